"""Optuna studies of sweeps: storage, sampler, pruner, and recovery of interrupted trials."""

import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.settings import TrainSettings, tagged
from tuning.sweep_file import Sweep
from utils.errors import UserError
from utils.signals import Interruption

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

HEARTBEAT = 10  # seconds between the heartbeats of a running trial
GRACE_PERIOD = 30  # seconds without a heartbeat after which a running trial counts as interrupted


def sqlite_url(path: Path) -> str:
    """The database URL of a local SQLite file."""
    return f"sqlite:///{path}"


def open_storage(url: str) -> "RDBStorage":
    """Open the Optuna storage at a database URL and create missing tables. Raises UserError."""
    import optuna
    from sqlalchemy.exc import DatabaseError

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # sweep.py prints its own line per trial
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    for retries in (3, 2, 1, 0):
        try:
            return optuna.storages.RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE_PERIOD,
                heartbeat_stale_trial_callback=retry_stale_trial,
            )
        except Exception as error:  # from SQLAlchemy, a driver or a missing driver: all concern the URL
            if retries and isinstance(error, DatabaseError):
                time.sleep(1)  # another machine may be creating the same tables
                continue
            message = str(error).strip().splitlines()[0]  # the SQL statement and a link follow
            raise UserError(f"the database {hide_password(url)} cannot be opened ({message})") from None
    raise AssertionError("the last attempt returns or raises")


def hide_password(url: str) -> str:
    from sqlalchemy.engine import make_url

    try:
        return make_url(url).render_as_string(hide_password=True)
    except Exception:  # an invalid URL may still contain a password
        return "of --storage"


def of_every_machine(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must be equal on all machines that share a study."""
    return {key: value for key, value in fixed.items() if key not in tagged("machine")}


def open_study(sweep: Sweep, name: str, storage: Any) -> "Study":
    """Open or create the study ``name``. Raises UserError if an existing study has another search."""
    import optuna

    study = optuna.create_study(
        study_name=name, storage=storage, direction=sweep.file.goal, load_if_exists=True, pruner=make_pruner(sweep)
    )
    file = sweep.file
    fixed = of_every_machine(sweep.fixed)
    spec = {
        "method": file.method, "metric": file.metric, "goal": file.goal, "parameters": file.raw, "fixed": fixed,
    }  # fmt: skip
    stored = study.user_attrs.get("sweep")
    if stored is None:
        study.set_user_attr("sweep", spec)
        return study
    stored = stored | {"fixed": of_every_machine(stored["fixed"])}  # older studies hold more
    for key, value in json.loads(json.dumps(spec)).items():  # the database holds JSON
        if stored[key] != value:
            raise UserError(
                f"the study {name} has other {key} ({json.dumps(stored[key])}); "
                "repeat its command to resume it, or start another with --study NAME"
            )
    return study


def load_study(name: str, save_dir: Path, url: str | None = None) -> "Study":
    """Load a study of sweep.py.

    Args:
        name: of the study, or the path of its .db file.
        save_dir: folder of the .db files.
        url: a database to use instead of these files.

    Raises UserError if there is no such study.
    """
    import optuna

    file = Path(name) if name.endswith(".db") else save_dir / f"{name}.db"
    if url is None and not file.is_file():
        found = ", ".join(sorted(path.stem for path in save_dir.glob("*.db"))) or "none"
        raise UserError(f"there is no study {name} ({file} is missing; studies of {save_dir}: {found})")
    storage = open_storage(url or sqlite_url(file))
    names = sorted(optuna.get_all_study_names(storage))
    wanted = file.stem if name.endswith(".db") else name
    if wanted not in names and len(names) == 1 and url is None:
        wanted = names[0]  # the file was renamed
    if wanted not in names:
        raise UserError(f"there is no study {wanted} in this database (studies: {', '.join(names) or 'none'})")
    study = optuna.load_study(study_name=wanted, storage=storage)
    if "sweep" not in study.user_attrs:
        raise UserError(f"the study {wanted} was not made by sweep.py")
    return study


def make_pruner(sweep: Sweep) -> "BasePruner":
    """Prune a trial whose best value so far is worse than the median of the others, after a quarter of its epochs."""
    import optuna

    epochs: Any = sweep.fixed.get("max_epochs", TrainSettings.max_epochs)
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=epochs // 4)


def make_sampler(sweep: Sweep, trial_number: int) -> "BaseSampler":
    """The sampler of a trial; bayes and random are seeded per trial, so that a resumed sweep repeats no sample."""
    import optuna

    if sweep.file.method == "grid":
        space = {parameter.name: parameter.options["values"] for parameter in sweep.file.parameters}
        return optuna.samplers.GridSampler(space, seed=sweep.seed)
    seed = (sweep.seed * 1_000_003 + trial_number) % 2**32
    if sweep.file.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)


def count_trials(study: "Study") -> int:
    """The number of trials that are finished or running; interrupted ones do not count, as they are run again."""
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state.name != "WAITING" and not is_interrupted(trial) for trial in trials)


def is_interrupted(trial: "FrozenTrial") -> bool:
    """Whether a trial was stopped from outside; a trial that failed by itself has a "failure" attribute."""
    return trial.state.name == "FAIL" and "failure" not in trial.user_attrs


def recover_trials(study: "Study", interruption: Interruption) -> None:
    """Queue the trials of killed sweeps again.

    Waits up to the grace period while trials are running elsewhere, since it takes that long to find out that a sweep
    was killed. Raises KeyboardInterrupt on a signal.
    """
    import optuna

    end = time.monotonic() + GRACE_PERIOD + 2  # databases round to whole seconds
    announced = False
    while True:
        optuna.storages.fail_stale_trials(study)
        running = [trial.number for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]
        if not running or time.monotonic() > end:
            return
        if not announced:
            numbers = ", ".join(map(str, running))
            print(f"waiting up to {GRACE_PERIOD} s to see whether trial {numbers} is still running", flush=True)
            announced = True
        time.sleep(0.5)
        if interruption.signum is not None:
            raise KeyboardInterrupt


def retry_stale_trial(study: "Study", trial: "FrozenTrial") -> None:
    """Optuna's callback for a trial without heartbeats."""
    print(f"trial {trial.number} was interrupted and is run again", flush=True)
    queue_again(study, trial)


def queue_again(study: "Study", trial: "FrozenTrial") -> None:
    """Queue a new trial with the settings of ``trial``."""
    import optuna

    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, trial)
