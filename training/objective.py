"""The training loss: bits/dim of images given their class, and the cross-entropy of the Bayes posterior.

The sum of both is the hybrid of generative and discriminative training of Lasserre, Bishop and Minka (2006).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model import bits_per_dim
from training.settings import TrainSettings


def candidate_classes(labels: Tensor, num_classes: int, negatives: int, others: Tensor | None = None) -> Tensor:
    """The true class of each image, then ``negatives`` distinct ones at random: int64 [B] -> [B, 1 + negatives].

    One of ``others`` [B], if given, that is not the true class comes second. Random numbers are torch's global ones of
    the labels' device.
    """
    keys = torch.rand(len(labels), num_classes, device=labels.device)
    if others is not None:
        keys.scatter_(1, others[:, None], 1.0)  # the others are below 1
    keys.scatter_(1, labels[:, None], 2.0)  # the true class comes first
    return keys.topk(1 + negatives, dim=1).indices


def likelihood_images(settings: TrainSettings, batch: int) -> int:
    """How many images of a batch, its first ones, count in bits/dim: all but --discriminative_share, at least one."""
    if not settings.discriminative_weight:
        return batch
    return max(1, batch - round(settings.discriminative_share * batch))


def mixed_labels(classes: Tensor, others: Tensor, kept: Tensor) -> Tensor:
    """Labels as probabilities over ``classes`` [B, 1 + k], the true one first: ``kept`` [B] for that, the rest for the
    one of ``others`` [B], which is among them: float32 [B, 1 + k]."""
    labels = (classes == others[:, None]) * (1 - kept)[:, None]
    labels[:, 0] += kept
    return labels


def hybrid_loss(
    log_p: Tensor,
    image_shape: tuple[int, ...],
    weight: float,
    temperature: float,
    label_smoothing: float = 0.0,
    images: int | None = None,
    labels: Tensor | None = None,
    target: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """bits/dim under the true class + ``weight`` x cross-entropy of softmax(log p / temperature), both means over B.

    Args:
        log_p: log p(image | class) in nats, [B, 1 + k], the true class first.
        image_shape: (C, H, W).
        weight: of the cross-entropy, in bits/dim per nat.
        temperature: nats; a likelihood of thousands of pixels is a far too confident classifier at 1.
        label_smoothing: the share of the target that is spread over all 1 + k classes (Szegedy et al. 2016).
        images: bits/dim is the mean over that many images, the first ones; over all by default.
        labels: as probabilities, [B, 1 + k]; by default 1 for the true class.
        target: the probabilities that the cross-entropy is against, [B, 1 + k]; by default the labels.

    Returns:
        The loss, its bits/dim, and the cross-entropy in nats against the labels, without label smoothing: three
        scalars.
    """
    bpd = bits_per_dim(-log_p[:images, 0].mean(), image_shape)
    truth = torch.zeros(len(log_p), dtype=torch.int64, device=log_p.device) if labels is None else labels
    cross_entropy = minimised = F.cross_entropy(log_p / temperature, truth)
    if label_smoothing or target is not None:
        wanted = truth if target is None else target
        minimised = F.cross_entropy(log_p / temperature, wanted, label_smoothing=label_smoothing)
    return bpd + weight * minimised, bpd, cross_entropy
