"""Trials of a sweep with Optuna: each one the real pcnn_train.py in a process and a run folder of its own."""

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.cli import UserError, parse_settings
from training.interruption import Interruption
from training.pictures import check_writable
from training.settings import TrainSettings
from training.sweep_file import OWN_FOLDER, SweepFile, Value

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

__all__ = ["Sweep", "database", "fix", "fixed_settings", "open_storage", "run_sweep"]

PROGRAM = Path(__file__).resolve().parents[1] / "pcnn_train.py"
SETTLE = 5  # seconds in which a trial that begins has surely named its process
POLL = 0.5  # seconds between looks at a running trial's metrics.jsonl
HEARTBEAT = 60  # seconds between signs of life; after 3 without, other machines do a trial again
DEFAULT_TRIALS = 20
KEPT = ("epoch", "train_bpd", "val_bpd", "accuracy", "fid")  # of each report, so that --report needs no run folder
ELSEWHERE = {"data_dir", "device", "en_wandb", "fid_weights"}  # may differ between machines that share a study


class TrialFailed(Exception):
    """The reason, one line."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file with what the command line adds.

    Args:
        file: the search, without the settings that the command line fixes.
        fixed: settings of every trial.
        folder: gets trial_0000/, trial_0000.log, ...
        seed: of the search.
        prune: stop trials that fall behind.
        interruption: notes the signals that end the running trial.
    """

    file: SweepFile
    fixed: dict[str, Value]
    folder: Path
    seed: int = 0
    prune: bool = False
    interruption: Interruption = field(default_factory=Interruption)


def fix(sweep: SweepFile, assignments: Sequence[str]) -> SweepFile:
    """The sweep with settings fixed by ``assignments``, each "key=value", instead of searched. Raises UserError."""
    constants = dict(sweep.constants)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise UserError(f"--set {assignment}: give KEY=VALUE, as in --set max_epochs=2")
        constants[key] = value
    left = [parameter for parameter in sweep.parameters if parameter.name not in constants]
    if not left:
        raise UserError("--set leaves no setting to search over; fix fewer of them")
    raw = {parameter.name: sweep.raw[parameter.name] for parameter in left}
    return dataclasses.replace(sweep, constants=constants, parameters=left, raw=raw)


def fixed_settings(sweep: SweepFile, flags: Sequence[str] = (), en_wandb: bool = False) -> dict[str, Value]:
    """Settings that all trials share: the file's constants, over ``flags`` of pcnn_train.py, over the defaults.

    Only those that were named or are not the default. Raises UserError for what pcnn_train.py would not take, a
    value of a searched setting included.
    """
    constants = {**sweep.constants, "en_wandb": en_wandb}
    argv = [*flags, *to_flags(constants)]
    settings = parse_settings(TrainSettings, "", argv)
    for parameter in sweep.parameters:
        for value in parameter.options.get("values", []):
            parse_settings(TrainSettings, "", [*argv, *to_flags({parameter.name: value})])
    defaults, searched = TrainSettings(), {parameter.name for parameter in sweep.parameters}
    named = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in searched and (name in constants or value != getattr(defaults, name))
    }
    for name in OWN_FOLDER & named.keys():
        raise UserError(f"--{name} cannot be given to trials; sweep.py makes their folders (--save_dir)")
    return named


def to_flags(settings: dict[str, Any]) -> list[str]:
    """Settings as flags of pcnn_train.py."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def database(path: Path) -> str:
    """The URL of a local SQLite file."""
    return f"sqlite:///{path}"


def open_storage(url: str) -> Any:
    """Optuna's storage behind a database URL, with its tables. Raises UserError."""
    import optuna
    from sqlalchemy.exc import DatabaseError

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a line per trial is ours
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    for patience in (3, 2, 1, 0):
        try:
            return optuna.storages.RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT,
                grace_period=3 * HEARTBEAT,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
        except Exception as error:  # SQLAlchemy's, a driver's, a missing driver's: all are about the URL
            if patience and isinstance(error, DatabaseError):
                time.sleep(1)  # another machine may be making the same tables
                continue
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"the database {hide_password(url)} cannot be opened ({reason})") from None


def hide_password(url: str) -> str:
    from sqlalchemy.engine import make_url

    try:
        return make_url(url).render_as_string(hide_password=True)
    except Exception:  # no URL at all; it may hold a password all the same
        return "of --storage"


def open_study(sweep: Sweep, name: str, storage: Any) -> "Study":
    """The study called ``name``, made where there is none. Raises UserError where it searches something else."""
    import optuna

    study = optuna.create_study(
        study_name=name, storage=storage, direction=sweep.file.goal, load_if_exists=True, pruner=pruner(sweep)
    )
    fixed = {key: value for key, value in sweep.fixed.items() if key not in ELSEWHERE}
    file = sweep.file
    spec = {
        "method": file.method, "metric": file.metric, "goal": file.goal, "parameters": file.raw, "fixed": fixed,
    }  # fmt: skip
    before = study.user_attrs.get("sweep")
    if before is None:
        study.set_user_attr("sweep", spec)
    else:
        spec = json.loads(json.dumps(spec))
        for key in spec:
            if before[key] != spec[key]:
                raise UserError(
                    f"the study {name} has other {key} ({json.dumps(before[key])}); "
                    "repeat its command to go on with it, or begin another with --study NAME"
                )
    return study


def pruner(sweep: Sweep) -> Any:
    """Stops a trial whose best so far is worse than the median of the others, after a quarter of its epochs."""
    import optuna

    epochs = sweep.fixed.get("max_epochs", TrainSettings.max_epochs)
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=epochs // 4)


def sampler(sweep: Sweep, trial_number: int) -> "BaseSampler":
    """Optuna's search; bayes and random draw anew for each trial, so that a resumed sweep repeats none."""
    import optuna

    if sweep.file.method == "grid":
        space = {parameter.name: parameter.options["values"] for parameter in sweep.file.parameters}
        return optuna.samplers.GridSampler(space, seed=sweep.seed)
    seed = (sweep.seed * 1_000_003 + trial_number) % 2**32
    if sweep.file.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)


def run_sweep(sweep: Sweep, name: str, storage: Any, trials: int | None = None) -> "Study":
    """Run trials until the study called ``name`` has ``trials`` in all; returns the study.

    By default the whole grid, or 20. Trials that other machines are running count; those of a killed sweep do not,
    and are done again. Raises UserError; KeyboardInterrupt ends the running trial, which is done again next time.
    """
    import optuna

    study = open_study(sweep, name, storage)
    again = optuna.storages.RetryHeartbeatStaleTrialCallback()
    for trial in abandoned(study):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        again(study, trial)
        print(f"trial {trial.number} was left unfinished; it is done again")
    study.sampler = sampler(sweep, 0)
    if sweep.file.method == "grid":
        grid = math.prod(len(parameter.options["values"]) for parameter in sweep.file.parameters)
        trials = min(trials or grid, grid)
    trials = min(trials or DEFAULT_TRIALS, sweep.file.run_cap or sys.maxsize)
    check_writable(sweep.folder / "trial_0000.log")
    while counted(study) < trials:
        try:
            study.optimize(lambda trial: run_trial(sweep, study, trial), n_trials=1, catch=(TrialFailed,))
        except KeyboardInterrupt:
            mine = [trial for trial in study.get_trials(deepcopy=False) if is_interrupted(trial) and is_mine(trial)]
            again(study, mine[-1]) if mine else None
            raise
        print(f"[{min(counted(study), trials)}/{trials}] {progress(study)}", flush=True)
    return study


def is_interrupted(trial: Any) -> bool:
    """Failed for no reason of its own; a trial that ran to an error carries the reason."""
    return trial.state.name == "FAIL" and "failure" not in trial.user_attrs


def is_mine(trial: Any) -> bool:
    return trial.user_attrs.get("process") == [socket.gethostname(), os.getpid()]


def counted(study: "Study") -> int:
    """Trials that have run or are running."""
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.name != "WAITING" and not is_interrupted(trial) for trial in trials)


def abandoned(study: "Study") -> list[Any]:
    """Trials that a dead sweep on this machine left running; those of others are found by their heartbeat.

    A trial that another sweep has just begun does not name its process yet, or names that of an earlier try: what
    looks abandoned must look so again a while later.
    """
    suspects = {trial.number for trial in without_process(study)}
    if not suspects:
        return []
    time.sleep(SETTLE)
    return [trial for trial in without_process(study) if trial.number in suspects]


def without_process(study: "Study") -> list[Any]:
    """Trials that run, but whose process, as far as they name it, is none of this machine now."""
    running = [trial for trial in study.get_trials() if trial.state.name == "RUNNING"]
    processes = [trial.user_attrs.get("process", [socket.gethostname(), 0]) for trial in running]
    return [
        trial
        for trial, (host, pid) in zip(running, processes, strict=True)
        if host == socket.gethostname() and not alive(pid)
    ]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return pid > 0 and pid != os.getpid()


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
    best = best_report(rows, sweep.file.metric, sweep.file.goal)
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


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def best_report(rows: list[dict[str, Any]], metric: str, goal: str) -> dict[str, Any] | None:
    """The numbers of the best epoch, and the run's lowest fid, which is not measured at every epoch."""
    measured = [row for row in rows if is_finite(row.get(metric))]
    if not measured:
        return None
    best = (max if goal == "maximize" else min)(measured, key=lambda row: row[metric])
    fids = [row["fid"] for row in rows if is_finite(row.get("fid"))]
    return {key: best[key] for key in (*KEPT, metric) if key in best} | ({"fid": min(fids)} if fids else {})


def last_line(log: Path, returncode: int) -> str:
    """Why a run ended: the last line it wrote, at most 300 characters."""
    lines = [line for line in log.read_text(errors="replace").splitlines()[1:] if line.strip()]
    lines = [line for line in lines if not line.startswith("wandb:")]  # written after the error
    said = lines[-1].strip()[:300] if lines else "it wrote nothing"
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name} (out of memory?); last line: {said}"
    return said


def progress(study: "Study") -> str:
    """The last trial of this process in a line: metric, best so far, seconds, settings."""
    trial = [trial for trial in study.get_trials(deepcopy=False) if is_mine(trial)][-1]
    metric = study.user_attrs["sweep"]["metric"]
    attributes = trial.user_attrs
    if trial.state.name == "FAIL":
        line = f"trial {trial.number} failed: {attributes['failure']}"
    else:
        line = f"trial {trial.number} {metric} {trial.value:.4f}"
        if trial.state.name == "PRUNED":
            line += f" (stopped after epoch {trial.last_step})"
    done = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    if done:
        line += f"  best {study.best_value:.4f} (trial {study.best_trial.number})"
    settings = " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in attributes["settings"].items()
    )
    return f"{line}  {attributes['seconds']} s  {settings}"
