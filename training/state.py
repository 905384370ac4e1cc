"""All that changes while a network is trained, saved and restored as one."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.protocol import ORIGIN
from model import read_checkpoint
from training.resumed_images import check_images
from training.saved_values import epoch_report, number, whole_number
from training.step import TrainingStep
from utils.errors import UserError, reason
from utils.text import printable


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
        teacher = None if self.step.teacher is None else self.step.teacher.sha256
        return {
            **self.step.state(), "progress": progress, "best": best, "metrics": self.reports, "teacher_sha256": teacher,
        }  # fmt: skip

    def restore(self, path: Path, class_names: Sequence[str], images: str) -> None:
        """Return to the state in a last.pt, weights included; a warning says so where its images were others.

        ``class_names`` and ``images``, an `image_list`, are those of the images that training goes on with.
        Raises CheckpointError; UserError where its classes or its teacher were others, or it does not hold all of the
        state.
        """
        checkpoint = read_checkpoint(path)
        try:
            check_images(checkpoint, path, class_names, images)
            teacher, known = self.step.teacher, checkpoint.get("teacher_sha256")  # none in older files
            if teacher is not None and known is not None and teacher.sha256 != known:
                raise UserError(f"--teacher {printable(teacher.path)} is not the file of this run; give that one")
            self.step.restore(checkpoint)
            self.step.net.metadata |= {name: checkpoint[name] for name in ORIGIN if name in checkpoint}
            progress = checkpoint["progress"]
            if progress["sums"].shape != self.step.sums.shape:
                raise ValueError(f"sums has shape {tuple(progress['sums'].shape)}")
            self.step.sums.copy_(progress["sums"])
            self.epoch = whole_number(progress["epoch"], "epoch", 1)
            self.total_steps = whole_number(progress["step"], "step")
            self.epoch_images = whole_number(progress["images"], "images")
            self.epoch_steps = whole_number(progress["steps"], "steps")
            self.epoch_seconds = number(progress["seconds"], "seconds", 0)
            if (best := checkpoint["best"]) is not None:
                if len(best) != 2:
                    raise ValueError(f"best is {best!r}, not a pair")
                self.best = number(best[0], "best"), number(best[1], "best")
            self.reports = [epoch_report(report) for report in checkpoint["metrics"]]
        except (LookupError, RuntimeError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"{printable(path)} does not hold a run that can be resumed: {reason(error)}") from None
