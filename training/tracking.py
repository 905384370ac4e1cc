"""Tracking with Weights & Biases. A failure here never ends a run; wandb is imported only with --en_wandb."""

import dataclasses
import functools
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from evaluation.metrics import METRICS, best_report
from evaluation.protocol import VALIDATION
from training.run_folder import read_reports
from training.saved_values import whole_number
from training.settings import TrainSettings
from training.wandb_run import open_run, run_files, say, sync_command
from utils.errors import UserError, reason, summary
from utils.files import atomic_write

RUN_FILE = "wandb_run.json"  # in the run's folder: which W&B run a resumed run continues, and at which of its steps


class Tracker:
    """Logs nothing: for runs without --en_wandb. As a context manager it finishes, or fails with the reason."""

    def report(self, values: dict[str, Any]) -> None:
        """Log the numbers of an epoch."""

    def image(self, name: str, path: Path, epoch: int) -> None:
        """Log an image file."""

    def finish(self) -> None:
        """The run succeeded."""

    def fail(self, reason: str) -> None:
        """The run ended early; ``reason`` is one line."""

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.finish()
        else:
            self.fail(summary(error))


def start_tracker(settings: TrainSettings, folder: Path, device: torch.device) -> Tracker:
    """The tracker that ``settings`` asks for, started; wandb's own files go below ``folder``.

    It continues the W&B run that ``folder`` belongs to, if any.
    """
    if not settings.en_wandb:
        return Tracker()
    config = dataclasses.asdict(settings) | {"environment": environment(folder, device)}
    named = {name: getattr(settings, f"wandb_{name}") for name in ("project", "entity", "name", "group", "tags")}
    step = 0
    try:
        saved = json.loads((folder / RUN_FILE).read_text())
        step = whole_number(saved.get("step", 0), "step")
        named |= {name: saved[name] for name in ("id", "project", "entity")} | {"resume": "allow"}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        say(f"{RUN_FILE} cannot be read ({reason(error)}); a new W&B run is started")
    return WandbTracker(folder, {"config": config, **named}, settings.log_model, step)


def tolerate_failures(method: Callable[..., None]) -> Callable[..., None]:
    """``method`` of a WandbTracker, whose first exception in a run is a warning and whose others are ignored."""

    @functools.wraps(method)
    def guarded(self: "WandbTracker", *arguments: Any) -> None:
        try:
            if self.run is not None:
                method(self, *arguments)
        except Exception as error:
            if not self.warned:
                say(f"{method.__name__} failed ({summary(error)}); training continues, W&B may lack some of it")
            self.warned = True

    return guarded


class WandbTracker(Tracker):
    """Logs to a W&B run, offline where there is no API key or no server."""

    def __init__(self, folder: Path, options: dict[str, Any], log_model: bool = False, step: int = 0):
        """``options`` are of wandb.init; those that are None are left to the WANDB_ environment variables.

        ``step`` is the first step of W&B to log at.
        """
        self.folder = folder
        self.log_model = log_model
        self.step = step
        self.resumed = "resume" in options
        self.warned = False
        self.best: dict[str, float] = {}  # of each metric, so far
        self.reports: list[dict[str, Any]] = []
        self.run: Any = None  # a wandb.Run
        try:
            self.run = open_run({"dir": str(folder), **{k: v for k, v in options.items() if v is not None}})
        except Exception as error:
            say(f"cannot start ({summary(error)}); training continues without it")
        self.prepare()

    @tolerate_failures
    def prepare(self) -> None:
        run = self.run
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")  # a resumed run repeats epochs, and W&B's own step cannot decrease
        self.step = max(self.step, run.starting_step)
        self.remember()
        if self.resumed:
            run.summary["failure"] = ""  # of the part that was interrupted; not every server removes a key
        for report in read_reports(self.folder):
            self.note_best(report)

    def remember(self) -> None:
        saved = {"id": self.run.id, "project": self.run.project, "entity": self.run.entity or None, "step": self.step}
        with atomic_write(self.folder / RUN_FILE) as partial:
            partial.write_text(json.dumps(saved) + "\n")

    def log(self, values: dict[str, Any]) -> None:
        """Log at the next step of W&B: offline, where the client counts from 0 in every part of a resumed run too."""
        self.run.log(values, step=self.step, commit=True)
        self.step += 1
        with suppress(UserError):  # on a full disk; the numbers matter more
            self.remember()

    def note_best(self, values: dict[str, Any]) -> None:
        self.reports.append(values)
        bests = {name: best_report(self.reports, name, metric.goal) for name, metric in METRICS.items()}
        self.best = {name: best[name] for name, best in bests.items() if best is not None}

    @tolerate_failures
    def report(self, values: dict[str, Any]) -> None:
        self.note_best(values)
        self.log(values)
        # by us: define_metric(summary="max") would make a mapping of "accuracy", which sweeps rank by
        bests = {f"best_{name}": value for name, value in self.best.items()}
        for name, value in self.best.items():
            if METRICS[name].goal == "maximize":
                bests[name] = value  # a sweep ranks runs by it
        bests |= {name: value for name, value in values.items() if name.startswith(VALIDATION)}
        self.run.summary.update(bests)

    @tolerate_failures
    def image(self, name: str, path: Path, epoch: int) -> None:
        import wandb

        self.log({name: wandb.Image(str(path)), "epoch": epoch})

    @tolerate_failures
    def finish(self) -> None:
        self.close(exit_code=0)

    @tolerate_failures
    def fail(self, reason: str) -> None:
        self.run.summary["failure"] = reason
        self.close(exit_code=1)

    def close(self, exit_code: int) -> None:
        import wandb

        checkpoint = self.folder / "best.pt"
        if self.log_model and checkpoint.exists():
            artifact = wandb.Artifact(f"model-{self.run.id}", type="model", metadata=self.best)
            artifact.add_file(str(checkpoint))
            self.run.log_artifact(artifact, aliases=["best"])
        try:
            self.run.finish(exit_code=exit_code)
            if self.run.offline and self.resumed:  # wandb itself names the last part alone
                say(f"all parts of this run, in order: {sync_command(run_files(self.run).parent)}")
        except TimeoutError:
            later = sync_command(run_files(self.run), "--include-online ")
            say(f"the server did not take everything in time; later: {later}")


def environment(folder: Path, device: torch.device) -> dict[str, str | None]:
    """Where and with which code a run is made."""
    cpu = platform.processor() or platform.machine()
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "run_folder": str(folder),
    }


def code_version() -> str | None:
    """The git commit of this code, with -dirty where it was changed since; None outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


@contextmanager
def report_failed_trial() -> Iterator[None]:
    """Inside `wandb agent`, a trial that fails before its run folder exists still ends as failed with its reason."""
    try:
        yield
    except Exception as error:
        if os.environ.get("WANDB_SWEEP_ID"):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                WandbTracker(Path(folder), {}).fail(summary(error))
        raise
