"""Progress of a run on the terminal."""

from typing import Any

import torch
from torch import Tensor

from evaluation.metrics import FID_NAMES
from training.step import StepSums


class Readout:
    """Sums that grow on the device, read now and then without waiting for the device."""

    EVERY = 20  # steps

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.copied = torch.cuda.Event() if self.cuda else None
        self.copy: Tensor | None = None  # pending
        self.steps = 0  # at the start of the copy

    def read(self, sums: Tensor, steps: int) -> StepSums | None:
        """The sums of some steps ago, once, once they are available; ``self.steps`` says how many steps they are of."""
        if self.copy is None and steps % self.EVERY == 0:
            self.copy = torch.empty_like(sums, device="cpu", pin_memory=self.cuda)
            self.copy.copy_(sums, non_blocking=True)
            self.steps = steps
            if self.copied:
                self.copied.record()
        if self.copy is None or (self.copied and not self.copied.query()):
            return None
        arrived, self.copy = StepSums(*self.copy.tolist()), None
        return arrived


def epoch_line(report: dict[str, Any], max_epochs: int) -> str:
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
