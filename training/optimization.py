"""The optimiser of the original recipe, its learning rate per step, and the moving average of the weights."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from model.pixelcnn import Stream
from training.muon import Muon
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
    """AdamW with the betas of PixelCNN++ (0.95, 0.9995), or Muon with it, and the schedule, which counts steps."""
    recipe: Any = {
        "lr": settings.lr,
        "betas": (0.95, 0.9995),
        "weight_decay": settings.weight_decay,
        "fused": True,
    }
    if settings.optimizer == "muon":
        optimizer: torch.optim.AdamW = Muon(net.parameters(), hidden_weights(net), **recipe)
    else:
        optimizer = torch.optim.AdamW(net.parameters(), **recipe)
    return optimizer, LambdaLR(optimizer, lr_factor(settings, total_steps))


def hidden_weights(net: nn.Module) -> list[nn.Parameter]:
    """The directions of the weight-normalised convolutions between feature maps."""
    streams = [module for module in net.modules() if isinstance(module, Stream)]
    named = (pair for stream in streams for pair in stream.named_parameters())
    return [parameter for name, parameter in named if name.endswith("original1")]  # v of torch's weight_norm


def restore_optimizer(optimizer: torch.optim.Optimizer, scheduler: LambdaLR, saved: Any, steps: int) -> None:
    """Return to the moments in ``saved``, the state dict of such an optimizer, after ``steps`` steps of the schedule.

    All else is as for a new run: the learning rate too is that of the present schedule. Raises LookupError, TypeError,
    ValueError, AttributeError, RuntimeError or OverflowError for other contents.
    """
    parameters = optimizer.param_groups[0]["params"]
    for index, state in saved["state"].items():
        shapes = {name: value.shape for name, value in state.items()}
        like = parameters[index].shape
        by_muon = isinstance(optimizer, Muon) and optimizer.updates(parameters[index])
        moments = ["momentum_buffer"] if by_muon else ["exp_avg", "exp_avg_sq"]
        if shapes != {"step": torch.Size()} | dict.fromkeys(moments, like):
            raise ValueError(f"the optimizer's state of parameter {index} is not that of this network")
    optimizer.load_state_dict(optimizer.state_dict() | {"state": saved["state"]})
    rate = scheduler.base_lrs[0] * scheduler.lr_lambdas[0](steps)
    optimizer.param_groups[0]["lr"] = rate
    place = {"last_epoch": steps, "_step_count": steps + 1, "_last_lr": [rate]}
    scheduler.load_state_dict(scheduler.state_dict() | place)


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
