"""How well a network tells images of its data set from others."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data import DATASETS, ImageSet, find_images, load_split
from evaluation.calibration import fit_temperature
from evaluation.lossless import compressed_bits
from evaluation.sections.images import SEED, read_like, some
from evaluation.sections.networks import Network
from evaluation.sections.report import Report, cell
from evaluation.typicality import auroc, input_complexity
from evaluation.typicality import scores as typicality_scores
from plots.evaluation import plot_scores
from utils.distributed import main_first
from utils.errors import DataError, UserError
from utils.text import composed, file_stems, printable

MOST = 300  # images of a set that are scored, to save time
SCORES = {
    "log_likelihood": "log p(x)",
    "complexity_png": "log p(x) + PNG bits",
    "complexity_webp": "log p(x) + WebP bits",
    "confidence": "confidence",
}


def blurred(images: Tensor) -> Tensor:
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(images, [5, 5], [1.0, 1.0])


def gray(images: Tensor, channels: int) -> Tensor:
    """uint8 [N, C, H, W] -> the same in gray, [N, channels, H, W]; C and channels 1 or 3."""
    from torchvision.transforms.functional import rgb_to_grayscale

    return rgb_to_grayscale(images).expand(-1, channels, -1, -1).contiguous()


# the images of the data set, changed: uint8 [N, C, H, W] -> the same
CHANGED: dict[str, Callable[[Tensor], Tensor]] = {
    "blurred": blurred,
    "gray": lambda images: gray(images, images.shape[1]),
    "negative": lambda images: 255 - images,
    "upside_down": lambda images: images.flip(2),
}


def default_sets(dataset: str) -> list[str]:
    return ["noise"] if dataset == "digits" else ["digits", "noise"]


def read_sets(names: Sequence[str], judged: ImageSet, skip_bad_images: bool = False) -> dict[str, Tensor | int]:
    """What each value of --ood names: images uint8 [N, C, H, W], or the label of a class that is left out.

    A value is digits, noise, a key of CHANGED, DATASET:SPLIT, a folder, or class:NAME. Raises UserError, DataError.
    """
    found = [read_set(name, judged, skip_bad_images) for name in names]
    return dict(zip(file_stems([Path(name).name or name for name in names]), found, strict=True))


def read_set(name: str, judged: ImageSet, skip_bad_images: bool) -> Tensor | int:
    channels, size = judged.images.shape[1], judged.image_size
    dataset, colon, split = name.partition(":")
    if name == "noise":
        generator = torch.Generator().manual_seed(SEED)
        return torch.randint(0, 256, (MOST, channels, *size), generator=generator, dtype=torch.uint8)
    if name in CHANGED:
        return CHANGED[name](judged.images)
    if dataset == "class" and colon:
        if composed(split) not in judged.class_names:
            known = ", ".join(map(printable, judged.class_names))
            raise UserError(f"--ood {printable(name)}: the classes are {known}")
        if judged.num_classes < 3:
            raise UserError(f"--ood {printable(name)}: the other classes must be two or more")
        return judged.class_names.index(composed(split))
    if os.path.isdir(name):
        files = find_images(name)
        if not files:
            raise DataError(f"--ood {printable(name)} has no images")
        chosen = [files[i] for i in some(len(files), MOST).tolist()]
        return read_like(judged, chosen, skip_bad_images=skip_bad_images).images
    if dataset not in DATASETS or dataset == "folder":
        raise UserError(
            f"--ood {printable(name)} is no folder; give a folder of images, digits, noise, {', '.join(CHANGED)}, "
            f"class:NAME, or DATASET:SPLIT as in cifar10:test (data sets: {', '.join(DATASETS)})"
        )
    images = main_first(lambda: load_split(dataset, split or "validation", size)).images
    images = images[some(len(images), MOST)]
    return images if images.shape[1] == channels else gray(images, channels)


def unseen(networks: Sequence[Network], judged: ImageSet, sets: dict[str, Tensor | int], report: Report) -> None:
    """Section 5. The metrics of a network's row are auroc_SET_SCORE, and auroc_mean_SCORE over the sets."""
    report.heading("What it has never seen")
    report.text(
        "AUROC: the probability that an image of the data set has a higher score than one of the other set; 0.5 is "
        "chance, below it the other images look more usual than its own. log p(x) is the mixture over the classes; "
        "with the bits of a lossless file it is the input complexity score of Serra et al. (2020), with its sign "
        "turned; confidence is that of the posterior at a temperature fitted on the images of the data set. For "
        "class_NAME the class is left out of the mixture, and its images are the others; the network was trained on "
        "them nevertheless, so this is only how unlike the other classes they are."
    )
    rows: list[Sequence[str]] = [("network", "other images", "n", *SCORES.values())]
    inside_files = lossless(judged.images)
    outside_files = {name: lossless(others) for name, others in sets.items() if isinstance(others, Tensor)}
    for network in networks:
        known, truth = network.scores(judged.images), judged.labels
        temperature = fit_temperature(known, truth)
        values: dict[str, dict[str, float]] = {}
        for name, others in sets.items():
            if isinstance(others, int):
                rest = [label for label in range(judged.num_classes) if label != others]
                of_all = scores(known[:, rest], inside_files, temperature, network.generative)
                inside, outside = (
                    {score: found[rows] for score, found in of_all.items()}
                    for rows in (truth != others, truth == others)
                )
            else:
                inside = scores(known, inside_files, temperature, network.generative)
                nats = network.scores(others, name)
                outside = scores(nats, outside_files[name], temperature, network.generative)
            values[name] = {score: auroc(inside[score], outside[score]) for score in inside}
            count = len(outside["confidence"])
            rows.append((network.name, name, str(count), *(cell(values[name].get(score)) for score in SCORES)))
            panels = {SCORES[score]: (inside[score].numpy(), outside[score].numpy()) for score in inside}
            report.figure(f"unseen_{network.name}_{name}", partial(plot_scores, panels, name))
        average = {
            score: float(np.mean([row[score] for row in values.values()]))
            for score in SCORES
            if all(score in row for row in values.values())
        }
        if len(sets) > 1:
            rows.append((network.name, "mean", "", *(cell(average.get(score)) for score in SCORES)))
        for name, row in (*values.items(), ("mean", average)):
            report.metric(network.name, "unseen", {f"auroc_{name}_{score}": value for score, value in row.items()})
    report.table("unseen", rows)


class Files(NamedTuple):
    """N images as lossless files: the bits of each by format, float64 [N], and the shape of an image."""

    bits: dict[str, Tensor]
    shape: tuple[int, ...]


def lossless(images: Tensor) -> Files:
    return Files({name: compressed_bits(images, name) for name in ("png", "webp")}, tuple(images.shape[1:]))


def scores(nats: Tensor, files: Files, temperature: float, generative: bool) -> dict[str, Tensor]:
    """SCORES of images with log-likelihoods [N, num_classes], float64 [N] each; of a baseline the confidence alone."""
    found = typicality_scores(files.bits["webp"], nats, files.shape, temperature)
    found["complexity_webp"] = found.pop("input_complexity")
    found["complexity_png"] = input_complexity(files.bits["png"], nats, files.shape)
    return {name: found[name] for name in SCORES if generative or name == "confidence"}
