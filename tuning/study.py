"""Optuna's study of a sweep: its database, its search, its trials."""

import json
import os
import socket
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.settings import TrainSettings
from tuning.sweep_file import Sweep
from utils.errors import UserError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

__all__ = ["database", "open_storage"]

SETTLE = 5  # seconds in which a trial that begins has surely named its process
HEARTBEAT = 60  # seconds between signs of life; after 3 without, other machines do a trial again
ELSEWHERE = {"data_dir", "device", "en_wandb", "fid_weights"}  # may differ between machines that share a study


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
