"""One trial: pcnn_train.py in a process and a run folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.metrics import best_report, is_finite
from tuning.study import sampler
from tuning.sweep_file import Sweep, to_flags

if TYPE_CHECKING:
    from optuna import Study, Trial

__all__ = ["Sweep"]

PROGRAM = Path(__file__).resolve().parents[1] / "pcnn_train.py"
POLL = 0.5  # seconds between looks at a running trial's metrics.jsonl
KEPT = ("epoch", "train_bpd", "val_bpd", "accuracy", "fid")  # of each report, so that --report needs no run folder


class TrialFailed(Exception):
    """The reason, one line."""


def run_trial(sweep: Sweep, study: "Study", trial: "Trial") -> float:
    """Train once and return the best value of the metric. Raises TrialFailed, optuna.TrialPruned."""
    import optuna

    start = time.monotonic()
    trial.set_user_attr("process", [socket.gethostname(), os.getpid()])
    if sweep.file.method != "grid":
        study.sampler = sampler(sweep, trial.number)
    sampled = {parameter.name: parameter.suggest(trial) for parameter in sweep.file.parameters}
    folder = new_folder(sweep.folder, trial.number)
    trial.set_user_attr("settings", sampled)
    trial.set_user_attr("fixed", {key: value for key, value in sweep.fixed.items() if key != "en_wandb"})
    trial.set_user_attr("run_folder", str(folder.resolve()))
    flags = to_flags({**sweep.fixed, **sampled, "run_dir": str(folder)})
    with open(folder.with_suffix(".log"), "w") as log:
        log.write(f"{' '.join(flags)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-u", str(PROGRAM), *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    pruned = False
    reported = 0
    try:
        while process.poll() is None and not pruned:
            time.sleep(POLL)
            if sweep.interruption.signum is not None:
                raise KeyboardInterrupt  # here, and not in the middle of what a library does
            rows = read_metrics(folder)
            reported = report(trial, sweep.file.metric, rows, reported)
            pruned = sweep.prune and reported > 0 and process.poll() is None and trial.should_prune()
    finally:
        stop(process)
    rows = read_metrics(folder)
    report(trial, sweep.file.metric, rows, reported)
    trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
    trial.set_user_attr("history", [{key: row[key] for key in KEPT if key in row} for row in rows])
    best = best_metrics(rows, sweep.file.metric, sweep.file.goal)
    if best is not None:
        trial.set_user_attr("metrics", best)
    if pruned:
        raise optuna.TrialPruned
    reason = None
    if process.returncode != 0:
        reason = last_line(folder.with_suffix(".log"), process.returncode)
    elif best is None:
        reason = f"the run reported no {sweep.file.metric}"
    if reason:
        trial.set_user_attr("failure", reason)
        raise TrialFailed(reason)
    return best[sweep.file.metric]


def new_folder(parent: Path, number: int) -> Path:
    """A path for the run that nothing lies at: pcnn_train.py makes the folder and wants it new."""
    path, count = parent / f"trial_{number:04d}", 1
    while path.exists() or path.with_suffix(".log").exists():
        count += 1
        path = parent / f"trial_{number:04d}-{count}"
    return path


def stop(process: subprocess.Popen) -> None:
    """End a process that still runs; ask first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl so far."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def report(trial: "Trial", metric: str, rows: list[dict[str, Any]], reported: int) -> int:
    """Tell Optuna the metric of the rows after the first ``reported``; returns how many rows there are."""
    for row in rows[reported:]:
        if is_finite(row.get(metric)):
            trial.report(row[metric], row["epoch"])
    return len(rows)


def best_metrics(rows: list[dict[str, Any]], metric: str, goal: str) -> dict[str, Any] | None:
    """The numbers of the best epoch, and the run's lowest fid, which is not measured at every epoch."""
    best = best_report(rows, metric, goal)
    if best is None:
        return None
    lowest = best_report(rows, "fid", "minimize")
    return {key: best[key] for key in (*KEPT, metric) if key in best} | ({"fid": lowest["fid"]} if lowest else {})


def last_line(log: Path, returncode: int) -> str:
    """Why a run ended: the last line it wrote, at most 300 characters."""
    lines = [line for line in log.read_text(errors="replace").splitlines()[1:] if line.strip()]
    lines = [line for line in lines if not line.startswith("wandb:")]  # written after the error
    said = lines[-1].strip()[:300] if lines else "it wrote nothing"
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name} (out of memory?); last line: {said}"
    return said
