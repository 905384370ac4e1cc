"""Bits per dimension and classification scores over every image of a split."""

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from data import ImageSet
from evaluation.metrics import classification_scores
from evaluation.scoring import Score, Scorer
from model import PixelCNN, bits_per_dim
from utils.distributed import gather, in_order, rank, shared_batches
from utils.errors import UserError
from utils.precision import Precision


@dataclass(frozen=True)
class Evaluation:
    """Of N images.

    Args:
        bpd: bits/dim under the true class.
        accuracy, balanced_accuracy, f1: 0..1, see `Scores`.
        predictions: int64 [N].
        log_likelihoods: nats [N, C_y].
    """

    bpd: float
    accuracy: float
    balanced_accuracy: float
    f1: float
    predictions: Tensor
    log_likelihoods: Tensor


def check_labelled(split: ImageSet, what: str) -> None:
    """Raise UserError where images of ``what``, as in "cpen455 test", have no class."""
    if (split.labels < 0).any():
        raise UserError(f"some {what} images have no class (label -1); remove them, or use another split")


def score_all(score: Score, images: Tensor, description: str = "evaluating") -> Tensor:
    """uint8 [N, C, H, W] -> a score of each class, float32 [N, num_classes], on the CPU.

    Several processes share the images; each gets the scores of all.
    """
    quiet = None if rank() == 0 else True
    batches = tqdm(shared_batches(len(images), score.batch_size), desc=description, leave=False, disable=quiet)
    return torch.cat(in_order(gather([score(images[batch.start : batch.stop]) for batch in batches])))


def evaluate(
    net: PixelCNN, split: ImageSet, precision: Precision = "fp32", batch_size: int | None = None
) -> Evaluation:
    """Score every image of a split under every class, ``batch_size`` images at a time (None: the device's default).

    Several processes share the images; each gets the evaluation of all.
    """
    scores = score_all(Scorer(net, precision, batch_size, split.image_size), split.images)
    true = scores.gather(1, split.labels[:, None]).double()
    predictions = scores.argmax(dim=1)  # of equal classes the first, as in `label_batch`
    of_labels = classification_scores(split.labels.tolist(), predictions.tolist())
    return Evaluation(
        bpd=bits_per_dim(-true.mean().item(), tuple(split.images.shape[1:])),
        accuracy=of_labels.accuracy,
        balanced_accuracy=of_labels.balanced_accuracy,
        f1=of_labels.f1,
        predictions=predictions,
        log_likelihoods=scores,
    )
