"""Bits per dimension and accuracy over every image of a split."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from data import ImageSet
from model import PixelCNN, class_log_likelihoods

__all__ = ["Evaluation", "autocast", "bits_per_dim", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """bpd: bits/dim under the true class; accuracy: 0..1; predictions: int64 [N]."""

    bpd: float
    accuracy: float
    predictions: Tensor


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The network in bf16 where ``precision`` says so; a no-op for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def bits_per_dim(nats: float, image_shape: tuple[int, ...]) -> float:
    """A negative log-likelihood in nats as bits per value of an image [C, H, W]."""
    return nats / (math.prod(image_shape) * math.log(2))


def evaluate(net: PixelCNN, split: ImageSet, precision: str = "fp32", batch_size: int | None = None) -> Evaluation:
    """Score every image of a split under every class; ``net`` is left in the mode it was in.

    batch_size counts images; by default the network sees about 256 maps (images x classes) at a time.
    """
    device = next(net.parameters()).device
    batch_size = batch_size or max(1, 256 // net.num_classes)
    training = net.training
    net.eval()
    batches = tqdm(split.images.split(batch_size), desc="evaluating", leave=False, disable=None)
    with autocast(precision, device):
        scores = torch.cat([class_log_likelihoods(net, batch).cpu() for batch in batches])
    net.train(training)
    true = scores.gather(1, split.labels[:, None]).double()
    predictions = scores.argmax(dim=1)
    return Evaluation(
        bpd=bits_per_dim(-true.mean().item(), tuple(split.images.shape[1:])),
        accuracy=(predictions == split.labels).double().mean().item(),
        predictions=predictions,
    )
