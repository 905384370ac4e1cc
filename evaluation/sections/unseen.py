"""How well a network tells images of its data set from others."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur, rgb_to_grayscale

from data import DATASETS, ImageSet, find_images, load_split, read_image
from evaluation.calibration import fit_temperature
from evaluation.lossless import compressed_bits
from evaluation.sections.images import SEED, shuffled
from evaluation.sections.networks import Network
from evaluation.sections.report import Report
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
# the images of the data set, changed: uint8 [N, C, H, W] -> the same
CHANGED: dict[str, Callable[[Tensor], Tensor]] = {
    "blurred": lambda images: gaussian_blur(images, [5, 5], [1.0, 1.0]),
    "gray": lambda images: rgb_to_grayscale(images, images.shape[1]) if images.shape[1] == 3 else images,
    "negative": lambda images: 255 - images,
    "upside_down": lambda images: images.flip(2),
}


def default_sets(dataset: str) -> list[str]:
    return ["noise"] if dataset == "digits" else ["digits", "noise"]


def read_sets(names: Sequence[str], judged: ImageSet) -> dict[str, Tensor | int]:
    """What each value of --ood names: images uint8 [N, C, H, W], or the label of a class that is left out.

    A value is digits, noise, a key of CHANGED, DATASET:SPLIT, a folder, or class:NAME. Raises UserError, DataError.
    """
    found = [read_set(name, judged) for name in names]
    return dict(zip(file_stems([Path(name).name or name for name in names]), found, strict=True))


def read_set(name: str, judged: ImageSet) -> Tensor | int:
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
        chosen = shuffled(len(files))[:MOST].sort().values
        return torch.stack([read_image(files[i], channels, size) for i in chosen.tolist()])
    if dataset not in DATASETS or dataset == "folder":
        raise UserError(
            f"--ood {printable(name)} is no folder; give a folder of images, digits, noise, {', '.join(CHANGED)}, "
            f"class:NAME, or DATASET:SPLIT as in cifar10:test (data sets: {', '.join(DATASETS)})"
        )
    images = main_first(lambda: load_split(dataset, split or "validation", size)).images
    images = images[shuffled(len(images))[:MOST].sort().values]
    if images.shape[1] < channels:
        return images.expand(-1, channels, -1, -1).contiguous()
    return images if images.shape[1] == channels else images.float().mean(1, keepdim=True).round().to(torch.uint8)


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
    for network in networks:
        means: dict[str, list[float]] = {name: [] for name in SCORES}
        for name, others in sets.items():
            inside, outside = scores(network, judged, others, name)
            values = {score: auroc(inside[score], outside[score]) for score in inside}
            report.metric(network.name, "unseen", {f"auroc_{name}_{score}": value for score, value in values.items()})
            count = len(next(iter(outside.values())))
            rows.append((network.name, name, str(count), *(cell(values.get(score)) for score in SCORES)))
            for score, value in values.items():
                means[score].append(value)
            panels = {SCORES[score]: (inside[score].numpy(), outside[score].numpy()) for score in inside}
            report.figure(f"unseen_{network.name}_{name}", partial(plot_scores, panels, name))
        average = {score: float(np.mean(values)) for score, values in means.items() if values}
        report.metric(network.name, "unseen", {f"auroc_mean_{score}": value for score, value in average.items()})
        if len(sets) > 1:
            rows.append((network.name, "mean", "", *(cell(average.get(score)) for score in SCORES)))
    report.table("unseen", rows)


def cell(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def scores(
    network: Network, judged: ImageSet, others: Tensor | int, name: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The scores of the images of the data set and of the others, by name, float64 [N] each.

    A baseline has a confidence alone.
    """
    known, truth = network.scores(judged.images), judged.labels
    temperature = fit_temperature(known, truth)
    if isinstance(others, int):
        rest = [label for label in range(judged.num_classes) if label != others]
        inside = judged.images[truth != others], known[truth != others][:, rest]
        outside = judged.images[truth == others], known[truth == others][:, rest]
    else:
        inside, outside = (judged.images, known), (others, network.scores(others, name))
    first, second = (all_scores(images, nats, temperature) for images, nats in (inside, outside))
    if not network.generative:
        return {"confidence": first["confidence"]}, {"confidence": second["confidence"]}
    return first, second


def all_scores(images: Tensor, nats: Tensor, temperature: float) -> dict[str, Tensor]:
    """SCORES of uint8 [N, C, H, W] with log-likelihoods [N, num_classes], float64 [N] each."""
    shape = tuple(images.shape[1:])
    found = typicality_scores(compressed_bits(images, "webp"), nats, shape, temperature)
    found["complexity_webp"] = found.pop("input_complexity")
    found["complexity_png"] = input_complexity(compressed_bits(images, "png"), nats, shape)
    return {name: found[name] for name in SCORES}
