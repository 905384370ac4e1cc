"""The optimiser of the original recipe, its learning rate per step, and the moving average of the weights."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from training.settings import TrainSettings

__all__ = ["lr_factor", "make_optimizer", "moving_average"]


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


def moving_average(net: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of ``net``'s weights; ``update_parameters(net)`` after each step.

    The decay grows as (1 + n) / (10 + n) with the n-th update up to ``decay``, so that a short run's average is
    not mostly its random start.
    """

    @torch.no_grad()
    def average(averages: list[Tensor], currents: list[Tensor], count: Tensor | int) -> None:
        n = int(averaged.n_averaged)  # on the CPU; to read ``count`` the host would wait for the GPU
        torch._foreach_lerp_(averages, currents, 1 - min(decay, (1 + n) / (10 + n)))

    averaged = AveragedModel(net, multi_avg_fn=average)
    return averaged
