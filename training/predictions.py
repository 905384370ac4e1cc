"""Labelling images by Bayes' rule: what to label, and the predictions."""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import torch
from torch import Tensor

from data import DataError, ImageSet, find_images, read_image
from model import PixelCNN, posterior
from training.cli import UserError
from training.distributed import gather, rank, world_size
from training.evaluation import bits_per_dim
from training.pictures import printable
from training.scoring import Score

__all__ = [
    "Images",
    "Prediction",
    "class_prior",
    "images_of_paths",
    "images_of_split",
    "join_list",
    "posterior_temperature",
    "predict",
    "true_label",
]


@dataclass(frozen=True)
class Images:
    """Images to label: names and true labels (-1 unknown) in order, and ``read(i)`` -> uint8 [C, H, W].

    ``read`` raises DataError for an image that cannot be read. ``passed_over`` are files without an image's extension.
    """

    names: Sequence[str]
    truth: Sequence[int]
    read: Callable[[int], Tensor]
    passed_over: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is known of one image.

    Args:
        name: its path.
        truth: true label, -1 unknown.
        log_likelihoods: log p(image | class) in nats for every class; empty where ``error`` is set.
        label: the most probable class, -1 where ``error`` is set.
        second: the class after it, -1 where there is none.
        confidence: posterior probability of that class, 0..1.
        bpd: bits per dimension of the image under that class.
        error: why the image could not be read, empty if it could.
    """

    name: str
    truth: int
    log_likelihoods: tuple[float, ...] = ()
    label: int = -1
    second: int = -1
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


def posterior_temperature(given: float | None, net: PixelCNN) -> float:
    """The temperature of the posterior: the one given, or the checkpoint's, or 1. Raises UserError for a bad one."""
    temperature = net.metadata.get("temperature", 1.0) if given is None else given
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise UserError("the checkpoint's temperature is no positive number; give --temperature")
    return float(temperature)


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
    unreadable: dict[Path, DataError] = {}  # folders that cannot be listed: what their rows say
    passed_over: list[Path] = []
    if not any(map(os.path.lexists, paths)):
        raise UserError(f"{printable(paths[0])}: no such file or folder")
    for path in paths:
        found = (
            find_images(path, unreadable, passed_over) if os.path.lexists(path) else [Path(path)]
        )  # a row says it is missing
        if not found:
            raise UserError(
                f"{printable(path)} has no images in it, told by their extensions (.png, .jpg, ...); "
                "give a folder that has, or files"
            )
        files += found
        truth += [-1 if file == Path(path) else true_label(file, Path(path), net.class_names) for file in found]

    def read(i: int) -> Tensor:
        if files[i] in unreadable:
            raise unreadable[files[i]]
        return read_image(files[i], net.image_channels, net.image_size)

    return Images([str(file) for file in files], truth, read, passed_over)


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


def predict(
    score: Score, images: Images, prior: Tensor | None = None, temperature: float = 1.0, start: int = 0
) -> Iterator[Prediction]:
    """Label the images from number ``start`` on, one prediction each, in order; one with an error for a bad file.

    While a batch is scored the next one is read. ``prior`` is p(class) [num_classes], uniform if None; temperature is
    that of `posterior`. Several processes share each batch; all get all predictions.
    """
    joint = score.batch_size * world_size()
    first = start // joint * joint  # the same batches from any start: rounding differs between batches
    batches = [range(i, min(i + joint, len(images.names))) for i in range(first, len(images.names), joint)]
    shares = [batch[rank() * score.batch_size :][: score.batch_size] for batch in batches]

    def read(i: int) -> Tensor | DataError:
        try:
            return images.read(i)
        except DataError as error:
            return error

    with ThreadPoolExecutor(max_workers=4) as pool:  # decoding releases the interpreter's lock
        reading = pool.map(read, shares[0] if shares else ())
        for share, following in pairwise([*shares, range(0)]):
            results = list(reading)
            reading = pool.map(read, following)
            readable = [result for result in results if isinstance(result, Tensor)]
            labelled = label_batch(score, torch.stack(readable), prior, temperature) if readable else iter(())
            predictions = []
            for i, result in zip(share, results, strict=True):
                known = {"name": images.names[i], "truth": images.truth[i]}
                if isinstance(result, DataError):
                    predictions.append(Prediction(**known, error=str(result)))
                else:
                    predictions.append(Prediction(**known, **next(labelled)))
            for prediction in chain.from_iterable(gather(predictions)):
                if first >= start:
                    yield prediction
                first += 1


def label_batch(score: Score, images: Tensor, prior: Tensor | None, temperature: float) -> Iterator[dict]:
    """uint8 [B, C, H, W] -> the fields of a Prediction that the network decides, for each image."""
    log_likelihoods = score(images).double()
    probabilities = posterior(log_likelihoods, prior, temperature)
    evidence = log_likelihoods if prior is None else log_likelihoods + prior.log()  # no temperature decides
    order = evidence.topk(min(2, evidence.shape[1]), dim=1).indices
    for nats, row, best in zip(log_likelihoods.tolist(), probabilities.tolist(), order.tolist(), strict=True):
        label = best[0]
        yield {
            "log_likelihoods": tuple(nats),
            "label": label,
            "second": best[-1] if len(best) > 1 else -1,
            "confidence": row[label],
            "bpd": bits_per_dim(-nats[label], tuple(images.shape[1:])),
        }
