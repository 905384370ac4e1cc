"""Progress of a run on the terminal."""

from typing import Any

import torch
from torch import Tensor

from data import ImageSet
from evaluation.metrics import FID_NAMES, METRICS, BestMetric, best_key
from training.step import StepSums
from utils.text import printable

SHOWN = 20  # classes that a line names


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


def class_counts(split: ImageSet) -> str:
    """The classes in the order of their labels with their numbers of images, of the first 20."""
    counts = split.labels.bincount(minlength=split.num_classes).tolist()
    shown = [f"{printable(name)}: {n}" for name, n in zip(split.class_names[:SHOWN], counts, strict=False)]
    rest = counts[SHOWN:]
    return ", ".join(shown) + (f" and {len(rest)} more classes of {min(rest)} to {max(rest)} images" if rest else "")


def best_line(best_metric: BestMetric, best: tuple[float, float], images: str) -> str:
    """What best.pt reached on ``images``, as in "held-out", from its `ranking` by ``best_metric``."""
    if best_metric == "last":
        return f"best.pt is of epoch {best[0]}, the last, with {-best[1]:.3f} {images} bits/dim"
    metric = METRICS[best_key(best_metric)[0]]
    if metric.goal == "minimize":
        return f"best {metric.of(images)} {-best[0]:.3f}"
    return f"best {metric.of(images)} {best[0]:.4f} (at {-best[1]:.3f} bits/dim)"


def epoch_line(report: dict[str, Any], max_epochs: int, images: str) -> str:
    """A report as one line for the terminal; ``images`` are those that are evaluated, as in "held-out"."""
    line = f"epoch {report['epoch']}/{max_epochs}  train {report['train_bpd']:.3f}"
    if "val_bpd" in report:
        line += f"  {images} {report['val_bpd']:.3f} bits/dim, accuracy {report['accuracy']:.4f}"
        line += f" (balanced {report['balanced_accuracy']:.4f}), macro F1 {report['f1']:.4f}"
    for name in (*FID_NAMES, "frechet_distance"):
        if name in report:
            line += f", {name} {report[name]:.2f}"
    if "skipped_steps" in report:
        line += f", {report['skipped_steps']} steps skipped"
    return f"{line}  lr {report['lr']:.2e}  {report['seconds']:.1f} s"
