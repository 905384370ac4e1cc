"""How good samples are, beside real images (the floor of a distance) and noise (its ceiling)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import DATASETS, ImageSet, find_images
from evaluation.cache import Arrays, Cache, pixel_hash
from evaluation.fid import FID, SafeFID
from evaluation.fid_reference import split_reference
from evaluation.images import true_label
from evaluation.inception import cached_weights
from evaluation.metrics import wilson_interval
from evaluation.samples.agreement import class_agreement
from evaluation.samples.derailed import roughness
from evaluation.samples.distances import Distances, Reference, jackknife_interval
from evaluation.samples.features import EfficientNetFeatures, Features
from evaluation.samples.neighbours import K, neighbourhoods
from evaluation.sections.images import SEED, EvaluationImages, balanced_order, read_like, some
from evaluation.sections.networks import Network
from evaluation.sections.report import Report, Value, interval
from model.temperature import sample_temperature
from plots.images import labelled_grid
from utils.distributed import from_main, gather, in_order, rank, shared_batches
from utils.errors import DataError, UserError
from utils.text import composed, file_stems, printable

NOISE = 25  # standard deviation, in levels
FEWEST = K + 1  # images of a set
SHARE = 256  # images whose features a process computes at a time
REFERENCE_IMAGES = 5000  # of a larger split a random part: the memory for distances grows with the square


@dataclass(frozen=True)
class SampleSettings:
    """How samples are drawn and measured; see the settings of evaluate.py."""

    per_class: int
    seed: int
    temperature: float | None  # each checkpoint's
    device: torch.device
    imagenet_classes: Sequence[int] | None
    fid_weights: Path | None
    fid_dims: int

    def check(self, split: ImageSet) -> None:
        """Raise UserError where the settings do not fit the classes of ``split``."""
        if self.per_class * split.num_classes < FEWEST:
            raise UserError(f"--samples_per_class: {FEWEST} or more samples in all are needed")
        given = self.imagenet_classes
        if given is None:
            return
        if len(given) != split.num_classes or not all(0 <= number < 1000 for number in given):
            raise UserError(
                f"--imagenet_classes: give a number from 0 to 999 for each of the {split.num_classes} classes"
            )


@dataclass(frozen=True)
class DrawnFolder:
    """Images that another program drew: uint8 [N, C, H, W], their classes, int64 [N], -1 unknown, and their files."""

    name: str
    path: str
    images: Tensor
    labels: Tensor
    files: Sequence[Path]


def read_folder(name: str, folder: str, split: ImageSet, skip_bad_images: bool = False) -> DrawnFolder:
    """The images of a folder at the size of those of ``split``. Raises DataError."""
    if not os.path.isdir(folder):
        raise DataError(f"--images {printable(folder)} is no folder; give a folder of images")
    files = find_images(folder)
    if len(files) < FEWEST:
        raise DataError(f"--images {printable(folder)} has {len(files)} images; {FEWEST} or more are needed")
    labels = [class_of(file.relative_to(folder), split.class_names) for file in files]
    drawn = read_like(split, files, labels, skip_bad_images)
    if len(drawn) < FEWEST:
        raise DataError(f"--images {printable(folder)}: {drawn.describe_bad()}; {FEWEST} or more are needed")
    drawn = drawn.part(balanced_order(drawn.labels))
    return DrawnFolder(name, folder, drawn.images, drawn.labels, files)


def class_of(path: Path, class_names: Sequence[str]) -> int:
    """The class that the innermost folder of a relative path, or else the start of the file's name, is called after.

    As `generate.py` writes them, <class>_0001.png; -1 where there is none.
    """
    label = true_label(path, Path(), class_names)
    if label >= 0:
        return label
    stem = composed(path.stem).casefold()
    for stems in (class_names, file_stems(class_names)):
        fitting = [name for name in stems if stem == name.casefold() or stem.startswith(f"{name.casefold()}_")]
        if fitting:
            return stems.index(max(fitting, key=len))
    return -1


def real_split(images: EvaluationImages) -> tuple[str, ImageSet]:
    """The real images that stand beside samples, from another split than the reference, and its name before them."""
    return (images.split, images.judged) if images.split != images.reference[0] else ("train", images.train)


def too_few(images: EvaluationImages) -> str:
    """Why samples cannot be measured: a split has fewer than 6 images; "" where they can.

    Raises DataError, UserError where a split cannot be read.
    """
    for name, split in ((images.split, images.judged), images.reference, real_split(images)):
        if len(split) < FEWEST:
            return f"{len(split)} {name} images are too few to measure samples: {FEWEST} or more are needed"
    return ""


def samples(
    networks: Sequence[Network],
    folders: Sequence[DrawnFolder],
    images: EvaluationImages,
    settings: SampleSettings,
    report: Report,
    cache: Cache,
) -> None:
    """Section 3. The metrics of a row are frechet_distance, kernel_distance, precision, recall, ..."""
    report.heading("Samples")
    if lacking := too_few(images):
        report.text(f"{lacking}.")
        return
    reference_name, whole = images.reference
    reference = whole.part(some(len(whole), REFERENCE_IMAGES))
    sets = {
        network.name: network.samples(settings.per_class, settings.seed, settings.temperature)
        for network in networks
        if network.generative
    }
    drawn = dict(sets)
    sets |= {folder.name: (folder.images, folder.labels) for folder in folders}
    sets |= real_and_noise(images)
    count = min(len(reference), *(len(labels) for _, labels in sets.values()))
    measure = Measure(reference, images, count, settings, cache)
    report.text(
        f"Features of EfficientNet-Lite0 (ImageNet, images resized to 128x128), against the {len(reference)} "
        f"{reference_name} images. In the columns up to coverage all rows have the same number of images, {count}, on "
        "which the Fréchet distance depends. It is not FID, whose features are others. Class agreement: the share "
        "whose largest logit among the ImageNet classes of the data set is that of the class asked for. Derailed: the "
        "share with a window of 12x12 pixels that is rougher than any of all real images. Intervals (95 %): of the "
        "distances by the jackknife over the samples, of density by the bootstrap, of shares Wilson's. Real images are "
        "the floor of the distances, uniform noise is their ceiling."
    )
    header = ["images", "n", "Fréchet distance", "kernel distance", "precision", "recall", "density"]
    header += ["coverage", "class agreement", "derailed", *([measure.fid_name] if measure.fid_name else [])]
    rows: list[Sequence[str]] = [header]
    for name, (pixels, labels) in sets.items():
        metrics = measure(pixels, labels)
        report.metric(name, "samples", metrics)
        rows.append(cells(name, metrics, measure.fid_name))
    report.table("samples", rows)
    if not measure.fid_name:
        report.text("FID is not measured: its Inception weights are not here (see --fid_weights).")
    cooled = [(n.name, sample_temperature(settings.temperature, n.net)) for n in networks if n.generative]
    for name, temperature in cooled:
        report.metric(name, "samples", {"temperature": temperature})
        if temperature != 1:
            report.text(f"The samples of {name} are drawn at a temperature of {temperature:g}.")
    for name, (pixels, labels) in drawn.items():
        report.figure(f"samples_{name}", partial(labelled_grid, pixels, labels, images.judged.class_names))


def real_and_noise(images: EvaluationImages) -> dict[str, tuple[Tensor, Tensor]]:
    """Real images of another split than the reference, the same with noise, and uniform noise, with their classes."""
    name, split = real_split(images)
    order = balanced_order(split.labels)[: len(images.judged)]
    real, labels = split.images[order], split.labels[order]
    generator = torch.Generator().manual_seed(SEED)
    noisy = real + NOISE * torch.randn(real.shape, generator=generator)
    return {
        f"real ({name})": (real, labels),
        f"real, noise of {NOISE} levels": (noisy.round().clamp(0, 255).to(torch.uint8), labels),
        "uniform noise": (torch.randint(0, 256, real.shape, generator=generator, dtype=torch.uint8), labels),
    }


class Measure:
    """Measures sets of images against a reference.

    Args:
        reference: uint8 images; at most ``count`` of another set are compared with all of them.
        images: all real images, which say how rough real images are.
        count: images of each set that the distances are computed on, the same for all.
        settings: of the evaluation.
        cache: of the features.
    """

    def __init__(
        self, reference: ImageSet, images: EvaluationImages, count: int, settings: SampleSettings, cache: Cache
    ):
        self.count, self.settings, self.cache = count, settings, cache
        known = DATASETS[images.dataset].imagenet_classes
        self.imagenet_classes = settings.imagenet_classes or known
        self.network: EfficientNetFeatures | None = None
        self.reference_features = self.features(reference.images).pooled.numpy()
        self.reference = Reference(self.reference_features)
        splits = (reference, images.judged, images.train)
        self.roughest = max(roughness(split.images).max().item() for split in splits)
        self.fid, self.fid_name = self.load_fid(images)

    def load_fid(self, images: EvaluationImages) -> tuple[SafeFID | None, str]:
        """FID where its weights are, and what its numbers are called."""
        weights = self.settings.fid_weights or cached_weights()
        if weights is None or rank() > 0:
            return None, from_main("")
        where = (images.dataset, images.reference[0], images.image_size, images.data_dir, images.skip_bad_images)
        fid = SafeFID(lambda: FID(split_reference(*where), self.settings.fid_dims, weights, self.settings.device))
        return fid, from_main(fid.fid.name if fid.fid else "")

    def features(self, images: Tensor) -> Features:
        def compute() -> Arrays:
            self.network = self.network or EfficientNetFeatures(self.settings.device)
            parts = shared_batches(len(images), SHARE)
            found = in_order(gather([self.network(images[part.start : part.stop]) for part in parts]))
            return {
                "pooled": torch.cat([part.pooled for part in found]).numpy(),
                "logits": torch.cat([part.logits for part in found]).numpy(),
            }

        key = {"kind": "efficientnet-lite0", "what": pixel_hash(images), "how": self.settings.device.type}
        kept = self.cache.arrays(key, compute)
        return Features(*(torch.from_numpy(kept[name]) for name in ("pooled", "logits")))

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Value]:
        """The metrics of uint8 [N, C, H, W] with classes int64 [N], -1 unknown; classes take turns."""
        features = self.features(images)
        chosen = slice(0, self.count)
        distances = Distances(features.pooled[chosen].numpy(), self.reference)
        near = neighbourhoods(features.pooled[chosen].numpy(), self.reference_features)
        classes = labels[chosen].numpy()
        metrics: dict[str, Value] = {"images": self.count}
        for key, statistic in (("frechet_distance", distances.frechet), ("kernel_distance", distances.kernel)):
            low, high = jackknife_interval(statistic, self.count, classes)
            whole = statistic(np.arange(self.count))
            metrics |= {key: whole, f"{key}_low": low, f"{key}_high": high}
        metrics |= near.means()
        for key, (low, high) in near.intervals().items():
            metrics |= {f"{key}_low": low, f"{key}_high": high}
        asked = labels >= 0
        if self.imagenet_classes and asked.any():
            agree = class_agreement(features.logits[asked], labels[asked], self.imagenet_classes)
            metrics |= share("class_agreement", agree)
        metrics |= share("derailed", roughness(images) > self.roughest)
        if self.fid:
            metrics |= self.fid.measure(lambda: images[chosen])
        return metrics


def share(name: str, values: Tensor) -> dict[str, Value]:
    """The share of true values, bool [N], with its Wilson interval and N."""
    low, high = wilson_interval(int(values.sum()), len(values))
    mean = values.double().mean().item()
    return {name: mean, f"{name}_low": low, f"{name}_high": high, f"{name}_images": len(values)}


def cells(name: str, metrics: dict[str, Value], fid_name: str) -> Sequence[str]:
    """A row of the table."""

    def number(key: str, digits: int = 3) -> str:
        values = [metrics.get(part) for part in (key, f"{key}_low", f"{key}_high")]
        if not all(isinstance(value, float) for value in values):
            return "none"
        estimate, low, high = (float(value or 0) for value in values)
        return interval(estimate, low, high, digits)

    fid = metrics.get(fid_name)
    return (
        name,
        str(metrics["images"]),
        number("frechet_distance", 1),
        number("kernel_distance", 4),
        *(number(key) for key in ("precision", "recall", "density", "coverage", "class_agreement", "derailed")),
        *([f"{fid:.2f}" if isinstance(fid, float) else "none"] if fid_name else []),
    )
