"""The optimiser of the original recipe, its learning rate per step, and the moving average of the weights."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from training.settings import TrainSettings

Net = TypeVar("Net", bound=nn.Module)


def lr_factor(settings: TrainSettings, total_steps: int) -> Callable[[int], float]:
    """The learning rate of step 0, 1, ... as a fraction of ``settings.lr``."""

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
        if settings.lr_schedule == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total_steps)))
        return warm * settings.lr_decay**step

    return factor


def make_optimizer(net: nn.Module, settings: TrainSettings, total_steps: int) -> tuple[torch.optim.AdamW, LambdaLR]:
    """Adam with the betas of PixelCNN++ (0.95, 0.9995) and its schedule, which counts steps, not epochs."""
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.lr, betas=(0.95, 0.9995), weight_decay=settings.weight_decay, fused=True
    )
    return optimizer, LambdaLR(optimizer, lr_factor(settings, total_steps))


class MovingAverage(Generic[Net]):
    """An exponential moving average of a network's weights; call ``update`` after each step.

    The decay grows as (1 + n) / (10 + n) with the n-th update up to ``decay``, so that a short run's average is
    not mostly its random start. `torch.optim.swa_utils.AveragedModel` computes the same, but copies its counter to
    the GPU and waits for it at each update, and walks through all modules.

    Args:
        net: the network; its parameters must stay the same tensors.
        decay: 0 to below 1.

    Attributes:
        net: the network with averaged weights, in eval mode.
        updates: how many there were.
    """

    def __init__(self, net: Net, decay: float):
        self.net = deepcopy(net).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0
        self._averages: list[Tensor] = list(self.net.parameters())
        self._currents: list[Tensor] = list(net.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the network's present weights."""
        n = self.updates
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        torch._foreach_lerp_(self._averages, self._currents, 1 - decay)
        self.updates += 1
