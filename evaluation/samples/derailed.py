"""Samples that are derailed into noise: a pixel sampled badly makes those that follow unlikely, up to noise."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 12  # pixels
BATCH = 256  # images at a time: all of a large data set would take gigabytes


def roughness(images: Tensor) -> Tensor:
    """The roughness of the roughest place of each image, in levels: float64 [N] of uint8 [N, C, H, W].

    It is the mean absolute difference of neighbouring pixels in a window of 12x12 (or of a shorter side), over its
    horizontal and vertical pairs and all channels, and of all windows the largest. A sample that is rougher than every
    real image is taken for derailed.
    """
    return torch.cat([torch.empty(0, dtype=torch.float64), *map(roughness_of_batch, images.split(BATCH))])


def roughness_of_batch(images: Tensor) -> Tensor:
    """The same, all images at once."""
    levels = images.double()
    height, width = (min(WINDOW, side) for side in levels.shape[2:])
    across = levels.diff(dim=3).abs().mean(dim=1, keepdim=True)
    down = levels.diff(dim=2).abs().mean(dim=1, keepdim=True)
    pairs_across, pairs_down = height * (width - 1), (height - 1) * width
    total = pairs_across * F.avg_pool2d(across, (height, width - 1), stride=1)
    total += pairs_down * F.avg_pool2d(down, (height - 1, width), stride=1)
    return total.flatten(1).amax(dim=1) / (pairs_across + pairs_down)
