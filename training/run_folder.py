"""The folder of a run: config.yaml, metrics.jsonl and curves.png; others write its checkpoints, samples and figures."""

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from evaluation.metrics import FID_NAMES, METRICS
from evaluation.protocol import IMAGES
from plots.curves import plot_learning_curves
from training.saved_values import epoch_report
from training.settings import TrainSettings
from utils.console import notify
from utils.distributed import from_main, rank
from utils.errors import UserError
from utils.figures import is_figure
from utils.files import atomic_write
from utils.text import printable

MAX_TAG_BYTES = 150  # a name has 255 bytes on most file systems, and the rest of the folder's name comes on top


class RunFolder:
    """Makes the run's folder and writes what is known at the start. Only the main process writes.

    Args:
        settings: of the run.
        resumed: the folder of the run that is resumed, None for a new one.
        reports: of that run up to where it resumes; those after it are dropped.

    Raises UserError if a folder cannot be written.
    """

    def __init__(self, settings: TrainSettings, resumed: Path | None = None, reports: Sequence[dict[str, Any]] = ()):
        self.images = IMAGES[settings.select_on]
        if resumed is None:
            self.path = from_main(new_path(settings) if rank() == 0 else Path())
        else:
            self.path = resumed
        self.samples = Path(settings.sample_dir) if settings.sample_dir else self.path / "samples"
        if rank() > 0:
            return
        if resumed is None:
            check_place(settings)  # again: another run may have begun there while the images were read
        for folder, what in ((self.samples, "samples"), (self.path, "run")):
            with place_errors(what, folder):
                folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path / "config.yaml") as partial:
            partial.write_text(yaml.safe_dump(dataclasses.asdict(settings), sort_keys=False))
        if resumed is not None:
            self._write_metrics(reports)

    def write_reports(self, reports: Sequence[dict[str, Any]]) -> None:
        """Write metrics.jsonl and curves.png; on a full disk this is a warning."""
        if rank() > 0:
            return
        with tolerate_write_errors("metrics.jsonl"):
            self._write_metrics(reports)
        with tolerate_write_errors("curves.png"):
            plot_learning_curves(reports, curve_panels(reports, self.images), self.path / "curves.png")

    def _write_metrics(self, reports: Sequence[dict[str, Any]]) -> None:
        with atomic_write(self.path / "metrics.jsonl") as partial:
            partial.write_text("".join(json.dumps(report) + "\n" for report in reports))


def check_place(settings: TrainSettings) -> None:
    """Raise UserError where a new run cannot go: a folder that holds a run or anything else, or cannot be written."""
    if settings.run_dir is None and settings.tag is not None:
        if Path(settings.tag).name != settings.tag:
            raise UserError(f"--tag {printable(settings.tag)} cannot be part of a folder's name; give one without /")
        if len(os.fsencode(settings.tag)) > MAX_TAG_BYTES:
            raise UserError(f"--tag is too long for a folder's name; give one of at most {MAX_TAG_BYTES} bytes")
    folder = Path(settings.save_dir if settings.run_dir is None else settings.run_dir)
    with place_errors("run", folder):
        if settings.run_dir is not None and folder.exists() and not is_unused(folder):
            raise UserError(
                f"{printable(folder)} is not empty; give a new folder, so that no earlier run is lost, "
                "or --resume to resume it"
            )
        check_creatable(folder)
    if settings.sample_dir is not None:
        samples = Path(settings.sample_dir)
        with place_errors("samples", samples):
            check_creatable(samples)
            foreign = [file for file in samples.glob("epoch_*.png") if not is_figure(file)]
        if foreign:  # perhaps an image of the data set
            raise UserError(
                f"--sample_dir: {printable(foreign[0])} is no sample grid of this program; give another folder"
            )


def check_creatable(folder: Path) -> None:
    """Raise OSError unless a file can be written to ``folder``, or where it would be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    tempfile.TemporaryFile(dir=existing).close()


@contextmanager
def place_errors(what: str, folder: Path) -> Iterator[None]:
    """Inside, an OSError becomes a UserError that says that ``what`` cannot be written to ``folder``."""
    try:
        yield
    except OSError as error:
        problem = f"cannot write the {what} to {printable(folder)}: {error.strerror or error}; give another folder"
        raise UserError(problem) from None


def is_unused(folder: Path) -> bool:
    """Whether a folder is empty but for what a run leaves that was killed before it wrote its settings."""
    for path in folder.iterdir():
        if path.name == "samples" and path.is_dir() and not any(path.iterdir()):
            continue
        if path.name != "config.yaml.partial":
            return False
    return True


def new_path(settings: TrainSettings) -> Path:
    """Where a new run goes: --run_dir, or a new folder below --save_dir, which is made. Raises UserError."""
    if settings.run_dir is not None:
        return Path(settings.run_dir)
    words = [
        settings.dataset,
        f"r{settings.nr_resnet}_f{settings.nr_filters}_m{settings.nr_logistic_mix}",
        settings.tag,
        time.strftime("%Y%m%d-%H%M%S"),
    ]
    name = "_".join(word for word in words if word)
    for suffix in ("", *(f"_{count}" for count in range(2, 1000))):
        path = Path(settings.save_dir, name + suffix)
        with place_errors("run", path), suppress(FileExistsError):  # another trial started in the same second
            path.mkdir(parents=True)
            return path
    raise UserError(f"there are too many runs of this second in {printable(settings.save_dir)}; try again")


@contextmanager
def tolerate_write_errors(name: str) -> Iterator[None]:
    """A file that cannot be written, as on a full disk, is a warning: training continues."""
    try:
        yield
    except (OSError, UserError) as error:
        notify(f"warning: {name} was not written ({error}); training continues")


def curve_panels(reports: Sequence[dict[str, Any]], images: str) -> dict[str, dict[str, str]]:
    """The panels of curves.png of what is measured on ``images``, as in "held-out"; a Fréchet distance has one where it
    was measured."""
    panels = {
        "bits per dimension": {"train_bpd": "train (with dropout)", "val_bpd": images},
        f"{images} accuracy": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "macro F1"},
    }
    distances = [name for name in FID_NAMES if any(name in report for report in reports)]
    titles = {name: name.replace("_", " ") for name in distances}
    if any("frechet_distance" in report for report in reports):
        titles["frechet_distance"] = METRICS["frechet_distance"].title
    return panels | {title: {name: "samples"} for name, title in titles.items()}


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """The reports of a run so far, one per epoch; none before the first. Raises OSError, ValueError."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [epoch_report(json.loads(line)) for line in lines]
