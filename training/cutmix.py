"""CutMix (Yun et al. 2019): a rectangle of another image of the batch in an image, whose label is then both.

torchvision's draws one rectangle for all images, with numbers that the host reads, and always.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Mixed(NamedTuple):
    """Images with rectangles of others: ``images``, uint8 [B, C, H, W], ``others``, the classes of the rectangles,
    int64 [B] (the image's own where none is pasted), and ``kept``, the rest of each image's area, float32 [B]."""

    images: Tensor
    others: Tensor
    kept: Tensor


def cutmix(images: Tensor, labels: Tensor, first: int, probability: float) -> Mixed:
    """Paste into each image from number ``first`` >= 1 on, with ``probability``, a rectangle of the one before it.

    Its area is uniform between none and all, its sides are in proportion to the image's, its centre is anywhere, and
    what lies outside the image is cut off. Random numbers are torch's global ones of the images' device.

    Args:
        images: uint8 [B, C, H, W].
        labels: their classes, int64 [B].
    """
    part, device = images[first:], images.device
    side = torch.rand(len(part), 1, device=device).sqrt()
    chosen = torch.rand(len(part), 1, device=device) < probability
    rows, columns = (
        ((torch.arange(size, device=device) + 0.5) / size - torch.rand(len(part), 1, device=device)).abs() < side / 2
        for size in part.shape[2:]
    )
    inside = ((rows & chosen)[:, :, None] & columns[:, None, :])[:, None]
    kept = torch.ones(len(images), device=device)
    kept[first:] -= inside.float().mean((1, 2, 3))
    return Mixed(
        torch.cat((images[:first], torch.where(inside, images[first - 1 : -1], part))),
        torch.cat((labels[:first], torch.where(chosen[:, 0], labels[first - 1 : -1], labels[first:]))),
        kept,
    )
