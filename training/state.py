"""All that changes while a network is trained, saved and restored as one."""

import hashlib
import time
from pathlib import Path
from typing import Any

from data import ImageSet
from model import read_checkpoint
from training.step import TrainingStep
from utils.console import notify
from utils.distributed import rank
from utils.errors import UserError, reason
from utils.text import composed, printable


def image_list(train: ImageSet, validation: ImageSet) -> str:
    """A hash of the images' names, which changes where one is added, removed or renamed."""
    names = "\n".join(composed(path) for split in (train, validation) for path in split.paths)
    return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()


def check_images(checkpoint: dict[str, Any], path: Path, train: ImageSet, validation: ImageSet) -> None:
    """Raise UserError where the images of a run to resume have other classes; warn where they are others."""
    run = printable(path.parent)
    before = tuple(composed(str(name)) for name in checkpoint["class_names"])
    if before != train.class_names:
        changes = [
            f"{', '.join(sorted(map(printable, names))[:5])} {what}"
            for names, what in (({*before} - {*train.class_names}, "gone"), ({*train.class_names} - {*before}, "new"))
            if names
        ]
        raise UserError(
            f"the run in {run} has other classes than these images ({', '.join(changes) or 'in another order'}); "
            "bring them back, or start another run"
        )
    images = image_list(train, validation)
    if checkpoint.get("images", images) != images and rank() == 0:  # older ones lack it
        notify(f"warning: the images are not those that the run in {run} had; it goes on with these, in another order")


class TrainingState:
    """Where a run is. Its ``state_dict``, beside the weights, is what resuming needs.

    Args:
        step: the network with its optimiser, schedule, loss scale, moving average and sums of the epoch.

    Attributes:
        epoch: the current one, from 1.
        epoch_images: images of it that were trained on, of all processes.
        epoch_steps: its steps so far, skipped ones included.
        epoch_seconds: of training in it.
        total_steps: steps of the run.
        best: `ranking` of best.pt by --best_metric; None before the first evaluation.
        reports: one for each finished epoch, the lines of metrics.jsonl.
    """

    def __init__(self, step: TrainingStep):
        self.step = step
        self.epoch, self.total_steps = 1, 0
        self.epoch_images, self.epoch_steps, self.epoch_seconds = 0, 0, 0.0
        self.best: tuple[float, float] | None = None
        self.reports: list[dict[str, Any]] = []
        self.start_clock()

    def start_clock(self) -> None:
        """Training (re)starts now: the time until the next `advance` counts as training."""
        self._epoch_began = time.perf_counter() - self.epoch_seconds

    def stop_clock(self) -> None:
        """Count the time up to now as training."""
        self.epoch_seconds = time.perf_counter() - self._epoch_began

    def advance(self, images: int) -> None:
        """One more step, on ``images`` images of all processes."""
        self.epoch_images += images
        self.epoch_steps += 1
        self.total_steps += 1
        self.stop_clock()

    def next_epoch(self, report: dict[str, Any]) -> None:
        """The epoch is over; ``report`` is what is known of it."""
        self.reports.append(report)
        self.epoch += 1
        self.epoch_images, self.epoch_steps, self.epoch_seconds = 0, 0, 0.0
        self.step.sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What last.pt holds beside the weights and their moving average."""
        progress = {
            "sums": self.step.sums,
            "epoch": self.epoch,
            "images": self.epoch_images,
            "steps": self.epoch_steps,
            "step": self.total_steps,
            "seconds": self.epoch_seconds,
        }
        best = None if self.best is None else list(self.best)
        return {**self.step.state(), "progress": progress, "best": best, "metrics": self.reports}

    def restore(self, path: Path, train: ImageSet, validation: ImageSet) -> None:
        """Return to the state in a last.pt, weights included; a warning says so where its images were others.

        Raises CheckpointError; UserError where its classes were others.
        """
        checkpoint = read_checkpoint(path)
        check_images(checkpoint, path, train, validation)
        try:
            self.step.restore(checkpoint)
            progress = checkpoint["progress"]
            self.step.sums.copy_(progress["sums"])
            self.epoch, self.total_steps = progress["epoch"], progress["step"]
            self.epoch_images, self.epoch_steps = progress["images"], progress["steps"]
            self.epoch_seconds = progress["seconds"]
            self.best = None if checkpoint["best"] is None else tuple(checkpoint["best"])
            self.reports = list(checkpoint["metrics"])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{printable(path)} does not hold a run that can be resumed: {reason(error)}") from None
