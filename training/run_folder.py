"""One folder per run: config.yaml, metrics.jsonl, last.pt, best.pt, samples/, curves.png, confusion.png."""

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from evaluation.metrics import FID_NAMES
from plots.curves import plot_learning_curves
from training.settings import TrainSettings
from utils.console import notify
from utils.distributed import from_main, rank
from utils.errors import CheckpointError, UserError
from utils.files import atomic_write
from utils.text import printable

__all__ = ["RunFolder", "refuse_place", "reported"]


class RunFolder:
    """Makes the run's folder and writes what is known at the start. Only the main process writes.

    Args:
        settings: of the run.
        resumed: the folder of an earlier run that goes on, None for a new one.
        metrics: the reports of that run up to where it goes on; those after it are dropped.

    Raises UserError if a folder cannot be written.
    """

    def __init__(self, settings: TrainSettings, resumed: Path | None = None, metrics: Sequence[dict[str, Any]] = ()):
        self.metrics: list[dict[str, Any]] = list(metrics)
        self.path = from_main(resumed or new_path(settings))
        self.samples = Path(settings.sample_dir) if settings.sample_dir else self.path / "samples"
        if rank() > 0:
            return
        if resumed is None:
            refuse_place(settings)  # again: another run may have begun there while the images were read
        for folder, what in ((self.samples, "samples"), (self.path, "run")):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise UserError(
                    f"cannot write the {what} to {printable(folder)}: {reason}; give another folder"
                ) from None
        with atomic_write(self.path / "config.yaml") as partial:
            partial.write_text(yaml.safe_dump(dataclasses.asdict(settings), sort_keys=False))
        if resumed is not None:
            with atomic_write(self.path / "metrics.jsonl") as partial:
                partial.write_text("".join(json.dumps(report) + "\n" for report in self.metrics))

    def report(self, **values: Any) -> None:
        """Append a report to metrics.jsonl and redraw curves.png; a disk that is full is said, and not the end."""
        self.metrics.append(values)
        if rank() > 0:
            return
        with reported("metrics.jsonl"), atomic_write(self.path / "metrics.jsonl") as partial:
            partial.write_text("".join(json.dumps(report) + "\n" for report in self.metrics))
        with reported("curves.png"):
            plot_learning_curves(self.metrics, curve_panels(self.metrics), self.path / "curves.png")


def refuse_place(settings: TrainSettings) -> None:
    """Raise UserError where a new run cannot go: a folder that holds a run or anything else, or cannot be written."""
    folder = Path(settings.run_dir or settings.save_dir)
    try:
        if settings.run_dir and folder.exists() and not is_unused(folder):
            raise UserError(
                f"{printable(folder)} is not empty; give a new folder, so that no earlier run is lost, "
                "or --resume to go on with it"
            )
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise UserError(f"cannot write the run to {printable(folder)}: {error.strerror or error}") from None


def is_unused(folder: Path) -> bool:
    """Whether a folder is empty but for what a run leaves that was killed before it wrote its settings."""
    for path in folder.iterdir():
        if path.name == "samples" and path.is_dir() and not any(path.iterdir()):
            continue
        if path.name != "config.yaml.partial":
            return False
    return True


def new_path(settings: TrainSettings) -> Path:
    """Where a new run goes: --run_dir, or a folder below --save_dir that does not exist yet."""
    if settings.run_dir is not None:
        return Path(settings.run_dir)
    words = [
        settings.dataset,
        f"r{settings.nr_resnet}_f{settings.nr_filters}_m{settings.nr_logistic_mix}",
        settings.tag,
        time.strftime("%Y%m%d-%H%M%S"),
    ]
    name = "_".join(word for word in words if word)
    names = (name, *(f"{name}_{count}" for count in range(2, 1000)))  # trials may start in the same second
    return next(path for path in (Path(settings.save_dir, name) for name in names) if not path.exists())


@contextmanager
def reported(name: str) -> Iterator[None]:
    """A file that cannot be written is told on stderr, and the run goes on."""
    try:
        yield
    except (OSError, UserError, CheckpointError) as error:
        notify(f"warning: {name} was not written ({error}); training goes on")


def curve_panels(reports: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The panels of curves.png; a Fréchet distance has one where it was measured."""
    panels = {
        "bits per dimension": {"train_bpd": "train (with dropout)", "val_bpd": "validation"},
        "validation accuracy": {"accuracy": "validation"},
    }
    distances = [name for name in FID_NAMES if any(name in report for report in reports)]
    return panels | {name.replace("_", " "): {name: "samples"} for name in distances}
