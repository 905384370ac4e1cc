"""Where a run is, and what it shows of that while it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.metrics import FID_NAMES

__all__ = ["Progress", "Readout", "means", "mixed_seed", "summary"]


@dataclass
class Progress:
    """Where a run is.

    Args:
        sums: of the epoch so far, float [5] on the device; see `training.step.TrainingStep`, which adds to them.
        epoch: under way, from 1.
        images: of it that were trained on.
        steps: of it that were done, with the skipped ones; how many images a step has depends on the processes.
        step: steps of the run.
        seconds: of training in this epoch.
    """

    sums: Tensor
    epoch: int = 1
    images: int = 0
    steps: int = 0
    step: int = 0
    seconds: float = 0.0

    def next_epoch(self) -> "Progress":
        """The start of the epoch after this one."""
        return Progress(self.sums.zero_(), self.epoch + 1, step=self.step)


def mixed_seed(*numbers: int) -> int:
    """A seed for torch out of several numbers; those of nearby numbers have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def means(sums: Sequence[float], steps: int) -> tuple[float, float]:
    """Mean bits/dim and cross-entropy (nats) of the steps that were not skipped, from `Progress.sums`."""
    good = max(1, steps - sums[0])
    return sums[3] / good, sums[4] / good


class Readout:
    """Sums that grow on the device, read now and then without waiting for the device."""

    EVERY = 20  # steps

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.copied = torch.cuda.Event() if self.cuda else None
        self.copy: Tensor | None = None  # on its way
        self.steps = 0  # when it left

    def read(self, sums: Tensor, steps: int) -> list[float] | None:
        """The sums of some steps ago, once, when they have arrived; ``self.steps`` says how many steps they are of."""
        if self.copy is None and steps % self.EVERY == 0:
            self.copy = torch.empty_like(sums, device="cpu", pin_memory=self.cuda)
            self.copy.copy_(sums, non_blocking=True)
            self.steps = steps
            if self.copied:
                self.copied.record()
        if self.copy is None or (self.copied and not self.copied.query()):
            return None
        arrived, self.copy = self.copy.tolist(), None
        return arrived


def summary(report: dict, max_epochs: int) -> str:
    """A report as one line for the terminal."""
    line = f"epoch {report['epoch']}/{max_epochs}  train {report['train_bpd']:.3f}"
    if "val_bpd" in report:
        line += f"  validation {report['val_bpd']:.3f} bits/dim, accuracy {report['accuracy']:.4f}"
    for name in FID_NAMES:
        if name in report:
            line += f", {name} {report[name]:.2f}"
    if "skipped_steps" in report:
        line += f", {report['skipped_steps']} steps skipped"
    return f"{line}  lr {report['lr']:.2e}  {report['seconds']:.1f} s"
