"""What was evaluated, and the table of the most important metrics."""

import os
from collections.abc import Sequence

from evaluation.protocol import chosen_on, holds_out
from evaluation.sections.images import EvaluationImages
from evaluation.sections.networks import Network
from evaluation.sections.report import Report
from evaluation.sections.samples import DrawnFolder
from utils.text import markdown_table, printable

COLUMNS: dict[str, tuple[str, int]] = {  # of the table: the metric and its digits
    "accuracy": ("classification/accuracy", 4),
    "calibration error": ("classification/calibration_error_scaled", 3),
    "bits/dim": ("likelihood/bpd", 3),
    "Fréchet distance": ("samples/frechet_distance", 1),
    "kernel distance": ("samples/kernel_distance", 4),
    "class agreement": ("samples/class_agreement", 3),
    "derailed": ("samples/derailed", 3),
    "accuracy, corrupted": ("robustness/accuracy", 3),
    "AUROC, unseen": ("unseen/auroc_mean_complexity_webp", 3),
}


def describe(networks: Sequence[Network], folders: Sequence[DrawnFolder], images: EvaluationImages) -> str:
    """A list of the networks, with file, size and on which images their epoch was chosen, and of folders of samples."""
    lines = [f"{len(images.judged)} {images.split} images of {images.dataset}."]
    for network in networks:
        parameters = sum(parameter.numel() for parameter in network.net.parameters())
        chosen = chosen_on(network.net) if network.generative else None
        how = "last epoch" if chosen is None else f"epoch chosen on the {chosen} images"
        if images.split == "train" or (images.split == "holdout" and not holds_out(network.net)):
            how += "; **it was trained on the images that are judged here**: its figures say nothing of new images"
        elif chosen == images.split:
            how += ", which are judged here: its figures are optimistic"
        if "teacher" in network.net.metadata:
            how += ", distilled from a discriminative baseline"
        kind = "PixelCNN++" if network.generative else "ResNet (discriminative baseline)"
        lines.append(
            f"- {network.name}: {printable(shown(network.path))}, sha256 {network.sha256[:12]}, {kind}, "
            f"{parameters:,} parameters, {how}"
        )
    for folder in folders:
        unknown = int((folder.labels < 0).sum())
        classes = f", {unknown} of unknown class, which the class agreement leaves out" if unknown else ""
        lines.append(f"- {folder.name}: {len(folder.labels)} images of {printable(shown(folder.path))}{classes}")
    return "\n".join([lines[0], "", *lines[1:]])


def summary_table(report: Report) -> str:
    """A Markdown table with a row for each that has one of the metrics of COLUMNS, which are the columns."""
    rows = list(dict.fromkeys(name.split("/")[0] for name in report.metrics))
    used = {title: key for title, key in COLUMNS.items() if any(f"{row}/{key[0]}" in report.metrics for row in rows)}

    def cell(row: str, key: str, digits: int) -> str:
        value = report.metrics.get(f"{row}/{key}")
        return "" if value is None else f"{value:.{digits}f}"

    table = [(row, *(cell(row, *key) for key in used.values())) for row in rows]
    return markdown_table([("", *used), *(row for row in table if any(row[1:]))])


def shown(path: str) -> str:
    """A path, short where it is below the current folder."""
    near = os.path.relpath(path)
    return path if near.startswith(os.pardir) else near
