"""Labelling images by Bayes' rule: what to label, the predictions, their CSV file and how good they are."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from data import DataError, ImageSet, find_images, read_image
from model import PixelCNN, posterior
from training.cli import UserError
from training.evaluation import bits_per_dim
from training.pictures import printable, replacing
from training.scoring import Scorer

__all__ = [
    "Images",
    "Prediction",
    "class_prior",
    "images_of_paths",
    "images_of_split",
    "join_list",
    "predict",
    "scores",
    "true_label",
    "write_csv",
]


@dataclass(frozen=True)
class Images:
    """Images to label: names and true labels (-1 unknown) in order, and ``read(i)`` -> uint8 [C, H, W].

    ``read`` raises DataError for an image that cannot be read.
    """

    names: Sequence[str]
    truth: Sequence[int]
    read: Callable[[int], Tensor]


@dataclass(frozen=True)
class Prediction:
    """What is known of one image.

    Args:
        name: its path.
        truth: true label, -1 unknown.
        log_likelihoods: log p(image | class) in nats for every class; empty where ``error`` is set.
        label: the most probable class, -1 where ``error`` is set.
        confidence: posterior probability of that class, 0..1.
        bpd: bits per dimension of the image under that class.
        error: why the image could not be read, empty if it could.
    """

    name: str
    truth: int
    log_likelihoods: tuple[float, ...] = ()
    label: int = -1
    confidence: float = math.nan
    bpd: float = math.nan
    error: str = ""


def join_list(argv: Sequence[str], flag: str, belongs: Callable[[str], bool]) -> list[str]:
    """Rewrite ``flag a b c`` to ``flag=["a", "b", "c"]``, as jsonargparse reads lists, as far as values belong."""
    argv = list(argv)
    start = argv.index(flag) + 1 if flag in argv else len(argv)
    stop = start
    while stop < len(argv) and belongs(argv[stop]):
        stop += 1
    if stop == start:
        return argv
    return [*argv[: start - 1], f"{flag}={json.dumps(argv[start:stop], ensure_ascii=False)}", *argv[stop:]]


def class_prior(weights: Sequence[float] | None, num_classes: int) -> Tensor | None:
    """Positive weights, one a class, as probabilities that sum to 1: float64 [num_classes]. None stays None."""
    if weights is None:
        return None
    if len(weights) != num_classes:
        raise UserError(
            f"--prior has {len(weights)} numbers, the checkpoint has {num_classes} classes; give one for each"
        )
    for weight in weights:
        if not (weight > 0 and math.isfinite(weight)):
            raise UserError(f"--prior has {weight}; every number must be positive and finite")
    prior = torch.tensor(weights, dtype=torch.float64)
    return prior / prior.sum()


def true_label(file: Path, folder: Path, class_names: Sequence[str]) -> int:
    """The class that a folder between ``folder`` and ``file`` is named after, the innermost; -1 if there is none."""
    for part in reversed(file.relative_to(folder).parts[:-1]):
        if part in class_names:
            return class_names.index(part)
    return -1


def images_of_paths(paths: Sequence[str], net: PixelCNN) -> Images:
    """The images of files and folders (searched recursively), in order. Raises DataError, UserError."""
    files: list[Path] = []
    truth: list[int] = []
    for path in paths:
        found = find_images(path)
        if not found:
            raise UserError(f"{printable(path)} has no images in it; give a folder that has, or files")
        files += found
        truth += [-1 if file == Path(path) else true_label(file, Path(path), net.class_names) for file in found]
    return Images(
        names=[str(file) for file in files],
        truth=truth,
        read=lambda i: read_image(files[i], net.image_channels, net.image_size),
    )


def images_of_split(split: ImageSet, net: PixelCNN) -> Images:
    """The images of a data set's split. Raises UserError if the network was trained on another data set's."""
    if split.class_names != net.class_names or split.images.shape[1] != net.image_channels:
        raise UserError(
            f"a checkpoint of another data set ({net.dataset}): "
            f"it has {describe(net.class_names, net.image_channels)}, "
            f"these images have {describe(split.class_names, split.images.shape[1])}"
        )
    return Images(names=split.paths, truth=split.labels.tolist(), read=split.images.__getitem__)


def describe(class_names: Sequence[str], channels: int) -> str:
    shown = [printable(name) for name in class_names[:10]] + ["..."] * (len(class_names) > 10)
    return f"{channels} channel{'s' if channels > 1 else ''} and {len(class_names)} classes ({', '.join(shown)})"


def predict(scorer: Scorer, images: Images, prior: Tensor | None = None) -> Iterator[Prediction]:
    """Label the images, one prediction each, in order; a file that cannot be read is a prediction with an error.

    While a batch is scored the next one is read. ``prior`` is p(class) [num_classes], uniform if None.
    """
    size = scorer.batch_size
    batches = [range(start, min(start + size, len(images.names))) for start in range(0, len(images.names), size)]

    def read(i: int) -> Tensor | DataError:
        try:
            return images.read(i)
        except DataError as error:
            return error

    with ThreadPoolExecutor(max_workers=4) as pool:  # decoding releases the interpreter's lock
        reading = pool.map(read, batches[0] if batches else ())
        for numbers, following in pairwise([*batches, range(0)]):
            results = list(reading)
            reading = pool.map(read, following)
            readable = [result for result in results if isinstance(result, Tensor)]
            labelled = label_batch(scorer, torch.stack(readable), prior) if readable else iter(())
            for i, result in zip(numbers, results, strict=True):
                known = {"name": images.names[i], "truth": images.truth[i]}
                if isinstance(result, DataError):
                    yield Prediction(**known, error=str(result))
                else:
                    yield Prediction(**known, **next(labelled))


def label_batch(scorer: Scorer, images: Tensor, prior: Tensor | None) -> Iterator[dict]:
    """uint8 [B, C, H, W] -> the fields of a Prediction that the network decides, for each image."""
    log_likelihoods = scorer(images).double()
    confidences, labels = posterior(log_likelihoods, prior).max(dim=1)
    for nats, label, confidence in zip(log_likelihoods.tolist(), labels.tolist(), confidences.tolist(), strict=True):
        yield {
            "log_likelihoods": tuple(nats),
            "label": label,
            "confidence": confidence,
            "bpd": bits_per_dim(-nats[label], tuple(images.shape[1:])),
        }


def write_csv(path: str | Path, predictions: Sequence[Prediction], class_names: Sequence[str]) -> None:
    """Write a row for each prediction, numbers with 9 significant digits (a float32 exactly). Raises UserError."""
    header = ["path", "label", "class_name", "confidence", "bpd", *(f"logp_{name}" for name in class_names), "error"]
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(printable, header))
        for p in predictions:
            if p.error:
                cells = [""] * (len(header) - 2)
            else:
                numbers = [f"{number:.9g}" for number in (p.confidence, p.bpd, *p.log_likelihoods)]
                cells = [str(p.label), class_names[p.label], *numbers]
            writer.writerow(map(printable, [p.name, *cells, p.error]))


def scores(truth: Sequence[int], predicted: Sequence[int]) -> tuple[float, float]:
    """Accuracy and macro F1, both 0..1, of labels of the same N images; F1 over the classes that occur in either."""
    from sklearn.metrics import accuracy_score, f1_score

    return float(accuracy_score(truth, predicted)), float(f1_score(truth, predicted, average="macro"))
