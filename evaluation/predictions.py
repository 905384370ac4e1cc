"""Classification by Bayes' rule: from log-likelihoods to predictions."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from evaluation.images import Images
from evaluation.scoring import Score
from evaluation.typicality import typicality
from model import PixelCNN, bits_per_dim, posterior
from utils.console import notify
from utils.distributed import gather, rank, shared_batches, world_size
from utils.errors import DataError


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one image.

    Args:
        name: its path.
        truth: true label, -1 unknown.
        log_likelihoods: log p(image | class) in nats for every class; empty where ``error`` is set.
        label: the most probable class, of a rejected image too; -1 where ``error`` is set.
        second: the class after it, -1 where there is none.
        confidence: posterior probability of that class, 0..1.
        bpd: bits per dimension of the image under that class.
        error: why the image could not be read, empty if it could.
        typicality: fraction of the checkpoint's reference images that are odder, 0..1; NaN without a reference.
        rejected: whether it is too odd to be given a class.
    """

    name: str
    truth: int
    log_likelihoods: tuple[float, ...] = ()
    label: int = -1
    second: int = -1
    confidence: float = math.nan
    bpd: float = math.nan
    error: str = ""
    typicality: float = math.nan
    rejected: bool = False


def class_probabilities(prediction: Prediction, prior: Tensor | None = None, temperature: float = 1.0) -> list[float]:
    """The posterior probability of each class, 0..1, of which `Prediction.confidence` is the label's; see `predict`."""
    log_likelihoods = torch.tensor([prediction.log_likelihoods], dtype=torch.float64)
    return posterior(log_likelihoods, prior, temperature)[0].tolist()


def warn_unconditional(net: PixelCNN, consequence: str) -> None:
    """Say what it means that the network does not see the class, where that is so."""
    if not net.conditional and rank() == 0:
        notify(f"warning: the network was made with --fusion none and does not see the class: {consequence}")


def predict(
    score: Score,
    images: Images,
    prior: Tensor | None = None,
    temperature: float = 1.0,
    start: int = 0,
    reference: dict[str, Any] | None = None,
    reject: float | None = None,
) -> Iterator[Prediction]:
    """Classify the images from number ``start`` on: one prediction each, in order, with an error for a bad file.

    While a batch is scored the next one is read. ``prior`` is p(class) [num_classes], uniform if None; temperature is
    that of `posterior`. With a ``reference``, see `evaluation.typicality`, images have a typicality, and those below
    ``reject`` are rejected. Several processes share each batch; all get all predictions.
    """
    joint = score.batch_size * world_size()
    first = start // joint * joint  # the same batches from any start: rounding differs between batches
    shares = shared_batches(len(images.names), score.batch_size, first)

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
            labelled: Iterator[dict[str, Any]] = iter(())
            if readable:
                labelled = label_batch(score, torch.stack(readable), prior, temperature, reference, reject)
            predictions = []
            for i, result in zip(share, results, strict=True):
                known: dict[str, Any] = {"name": images.names[i], "truth": images.truth[i]}
                if isinstance(result, DataError):
                    predictions.append(Prediction(**known, error=str(result)))
                else:
                    predictions.append(Prediction(**known, **next(labelled)))
            for prediction in chain.from_iterable(gather(predictions)):
                if first >= start:
                    yield prediction
                first += 1


def label_batch(
    score: Score,
    images: Tensor,
    prior: Tensor | None,
    temperature: float,
    reference: dict[str, Any] | None = None,
    reject: float | None = None,
) -> Iterator[dict[str, Any]]:
    """uint8 [B, C, H, W] -> the fields of a Prediction that the network decides, for each image."""
    log_likelihoods = score(images).double()
    probabilities = posterior(log_likelihoods, prior, temperature)
    evidence = log_likelihoods if prior is None else log_likelihoods + prior.log()  # labels: no temperature
    order = evidence.sort(dim=1, descending=True, stable=True).indices[:, :2]  # of equal classes the first
    typical = [math.nan] * len(images)
    if reference is not None:
        typical = typicality(reference, images, log_likelihoods).tolist()
    columns = log_likelihoods.tolist(), probabilities.tolist(), order.tolist(), typical
    for nats, row, best, share in zip(*columns, strict=True):
        label = best[0]
        yield {
            "log_likelihoods": tuple(nats),
            "label": label,
            "second": best[-1] if len(best) > 1 else -1,
            "confidence": row[label],
            "bpd": bits_per_dim(-nats[label], tuple(images.shape[1:])),
            "typicality": share,
            "rejected": reject is not None and not share >= reject,  # of a NaN too
        }
