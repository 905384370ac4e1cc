"""One trial of a sweep: pcnn_train.py in its own process and run folder."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna import Trial

from evaluation.metrics import METRICS, SAMPLED, best_report, is_finite
from evaluation.protocol import VALIDATION
from training.run_folder import read_reports
from training.settings import TrainSettings
from tuning.flags import to_flags
from tuning.sweep_file import Sweep
from utils.errors import UserError
from utils.outputs import write_errors

PROGRAM = Path(__file__).resolve().parents[1] / "pcnn_train.py"
POLL_INTERVAL = 0.5  # seconds
STORED_KEYS = ("epoch", "train_bpd", *METRICS)  # kept in the database, so that a report needs no run folders


class TrialFailed(Exception):
    """A run that failed; the message is the reason, on one line."""


def run_trial(sweep: Sweep, trial: Trial) -> float:
    """Train once and return the best value of the metric.

    Stores settings, reports, best metrics and duration as user attributes of the trial; training goes on while the
    database does not answer. Raises TrialFailed, optuna.TrialPruned, UserError where the log or the database cannot be
    written, and KeyboardInterrupt on a signal.
    """
    start = time.monotonic()
    metric = sweep.file.metric
    sampled = {parameter.name: parameter.suggest(trial) for parameter in sweep.file.parameters}
    folder = new_folder(sweep.folder, trial.number)
    log = folder.with_suffix(".log")
    trial.set_user_attr("settings", sampled)
    trial.set_user_attr("fixed", {key: value for key, value in sweep.fixed.items() if key != "en_wandb"})
    trial.set_user_attr("run_folder", str(folder.resolve()))
    process = start_training(to_flags({**sweep.fixed, **sampled, "run_dir": str(folder)}), log)
    pruned, reported, decisions = False, 0, last_decision(sweep, sampled)
    try:
        while process.poll() is None and not pruned:
            time.sleep(POLL_INTERVAL)
            if sweep.interruption.signum is not None:
                raise KeyboardInterrupt  # only here: a signal handler could interrupt a database transaction
            with suppress(UserError):  # of the database: training goes on, and its end is written once that answers
                reports = read_reports(folder)
                reported = report_metric(trial, metric, reports, reported)
                open_end = reported > 0 and reports[-1]["epoch"] < decisions
                pruned = open_end and process.poll() is None and trial.should_prune()
    finally:
        terminate(process)
    reports = read_reports(folder)
    report_metric(trial, metric, reports, reported)
    trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
    trial.set_user_attr("history", [{key: report[key] for key in STORED_KEYS if key in report} for report in reports])
    best = best_metrics(reports, metric, sweep.file.goal)
    if best is not None:
        trial.set_user_attr("metrics", best)
    if pruned:
        raise optuna.TrialPruned
    if process.returncode or best is None:
        failed = failure_reason(log, process.returncode) if process.returncode else f"the run reported no {metric}"
        trial.set_user_attr("failure", failed)
        raise TrialFailed(failed)
    return best[metric]


def last_decision(sweep: Sweep, sampled: dict[str, Any]) -> int:
    """The epoch from which on a trial is not stopped early: its last, W&B's max_iter, or 0 where none is stopped."""
    hyperband = None if sweep.prune else sweep.file.hyperband
    if not sweep.prune and hyperband is None:
        return 0
    epochs = int({**sweep.fixed, **sampled}.get("max_epochs", TrainSettings.max_epochs))
    return min(epochs, hyperband.end) if hyperband and hyperband.end else epochs


def new_folder(parent: Path, number: int) -> Path:
    """An unused path for a run folder and its log; pcnn_train.py creates the folder."""
    path, count = parent / f"trial_{number:04d}", 1
    while path.exists() or path.with_suffix(".log").exists():
        count += 1
        path = parent / f"trial_{number:04d}-{count}"
    return path


def start_training(flags: list[str], log: Path) -> subprocess.Popen:
    """Start pcnn_train.py; ``log`` gets the flags, then its output. Raises UserError where it cannot be written."""
    with write_errors(log), open(log, "w") as file:
        file.write(f"{' '.join(flags)}\n")
        file.flush()
        command = [sys.executable, "-u", str(PROGRAM), *flags]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


def terminate(process: subprocess.Popen) -> None:
    """End a process if it is running: SIGTERM, and SIGKILL after 10 seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def report_metric(trial: Trial, metric: str, reports: list[dict[str, Any]], reported: int) -> int:
    """Pass the metric of the reports after the first ``reported`` to Optuna; returns the number of reports."""
    for report in reports[reported:]:
        if is_finite(report.get(metric)):
            trial.report(report[metric], report["epoch"])
    return len(reports)


def best_metrics(reports: list[dict[str, Any]], metric: str, goal: str) -> dict[str, Any] | None:
    """The metrics of the best epoch; those of samples, which not every epoch has, are the best of the run, and those of
    the validation images, where they are evaluated at the end, the last."""
    best = best_report(reports, metric, goal)
    if best is None:
        return None
    sampled = {name: best_report(reports, name, METRICS[name].goal) for name in SAMPLED if name != metric}
    metrics = {key: best[key] for key in dict.fromkeys((*STORED_KEYS, metric)) if key in best}
    metrics |= {key: value for key, value in reports[-1].items() if key.startswith(VALIDATION)}
    return metrics | {name: report[name] for name, report in sampled.items() if report}


def failure_reason(log: Path, returncode: int) -> str:
    """Why a run failed: the last line of its output, at most 300 characters."""
    lines = [line for line in log.read_text(errors="replace").splitlines()[1:] if line.strip()]
    lines = [line for line in lines if not line.startswith("wandb:")]  # written after the error
    last = lines[-1].strip()[:300] if lines else "no output"
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name} (out of memory?); last line: {last}"
    return last
