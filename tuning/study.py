"""Optuna studies of sweeps: opening, sampling, and recovery of interrupted trials."""

import itertools
import json
import random
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna import Study, Trial
from optuna.trial import FrozenTrial

from training.settings import TrainSettings, tagged
from tuning.checks import candidates
from tuning.database import PatientStorage, open_storage
from tuning.database_url import sqlite_url
from tuning.search_space import Value
from tuning.stopping import make_pruner
from tuning.sweep_file import Sweep
from utils.errors import UserError


class NothingUntried(Exception):
    """Other trials have all combinations of a finite search."""


def of_every_machine(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must be equal on all machines that share a study."""
    return {key: value for key, value in fixed.items() if key not in tagged("machine")}


def open_study(sweep: Sweep, name: str, storage: optuna.storages.BaseStorage) -> Study:
    """Open or create the study ``name``. Raises UserError if an existing study has another search."""
    file = sweep.file
    searched: list[Any] = [value for p in file.parameters if p.name == "max_epochs" for value in candidates(p)[0]]
    epochs: Any = min(map(int, searched), default=sweep.fixed.get("max_epochs", TrainSettings.max_epochs))
    pruner = make_pruner(None if sweep.prune else file.hyperband, epochs)
    study = optuna.create_study(
        study_name=name, storage=storage, direction=file.goal, load_if_exists=True, pruner=pruner
    )
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


def load_study(name: str, save_dir: Path, url: str | None = None) -> Study:
    """Load a study of sweep.py.

    Args:
        name: of the study, or the path of its .db file.
        save_dir: folder of the .db files.
        url: a database to use instead of these files.

    Raises UserError if there is no such study, or no such database, which is not created.
    """
    file = Path(name) if name.endswith(".db") else save_dir / f"{name}.db"
    if url is None and not file.is_file():
        found = ", ".join(sorted(path.stem for path in save_dir.glob("*.db"))) or "none"
        raise UserError(f"there is no study {name} ({file} is missing; studies of {save_dir}: {found})")
    storage = open_storage(url or sqlite_url(file), create=False)
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


def make_sampler(sweep: Sweep, trial_number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial, seeded per trial, so that a resumed sweep repeats no sample."""
    seed = (sweep.seed * 1_000_003 + trial_number) % 2**32
    if sweep.file.method == "bayes":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)  # of a grid, all settings are claimed


def claim_untried(study: Study, sweep: Sweep, trial: Trial) -> Trial:
    """Give a running trial of a finite search a combination that no other has; one that was queued keeps its own.

    Returns the trial with these settings fixed. Raises NothingUntried where others have all combinations.
    """
    # not optuna's GridSampler: it shuffles, sees no trial of another sampler, and fails outside of Study.optimize
    trials = study.get_trials(deepcopy=False)
    if combination(trials[trial.number], sweep) is not None:
        return trial
    # trials of other machines that come first and take the next combinations
    ahead = sum(not t.state.is_finished() and combination(t, sweep) is None for t in trials[: trial.number])
    tried = {combination(t, sweep) for t in trials if not is_interrupted(t)}
    untried = (values for values in all_combinations(sweep) if values not in tried)
    values = next(itertools.islice(untried, ahead, None), None)
    if values is None:
        raise NothingUntried
    settings = {p.name: value for p, value in zip(sweep.file.parameters, values, strict=True)}
    trial.storage.set_trial_system_attr(trial._trial_id, "fixed_params", settings)
    return Trial(study, trial._trial_id)


def all_combinations(sweep: Sweep) -> Iterable[tuple[Value, ...]]:
    """The combinations of settings of a finite search: of a grid as in the file, else in an order of their own."""
    every = itertools.product(*(parameter.choices() or () for parameter in sweep.file.parameters))
    if sweep.file.method == "grid":
        return every
    listed = list(every)
    return random.Random(sweep.seed).sample(listed, len(listed))


def combination(trial: FrozenTrial, sweep: Sweep) -> tuple[Value, ...] | None:
    """The settings of a trial that are searched over; None before it has them all."""
    settings = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    names = [parameter.name for parameter in sweep.file.parameters]
    return tuple(settings[name] for name in names) if settings.keys() >= set(names) else None


def count_trials(study: Study, sweep: Sweep, once: bool) -> int:
    """The number of trials that are finished or running; interrupted ones do not count, as they are run again.

    With ``once``, those of the same settings count as one.
    """
    trials = study.get_trials(deepcopy=False)
    counted = [trial for trial in trials if trial.state.name != "WAITING" and not is_interrupted(trial)]
    return len({combination(trial, sweep) or trial.number for trial in counted}) if once else len(counted)


def running_trials(study: Study) -> list[int]:
    """The numbers of the trials that are running, or whose process was killed."""
    return [trial.number for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial was stopped from outside; a trial that failed by itself has a "failure" attribute."""
    return trial.state.name == "FAIL" and "failure" not in trial.user_attrs


def recover_trials(study: Study, storage: PatientStorage) -> None:
    """Queue the trials of killed sweeps again.

    Waits up to the grace period of ``storage`` while trials are running elsewhere, since it takes that long to find
    out that a sweep was killed. Raises KeyboardInterrupt on a signal.
    """
    end = time.monotonic() + storage.grace + 2  # databases round to whole seconds
    announced = False
    while True:
        optuna.storages.fail_stale_trials(study)
        running = running_trials(study)
        if not running or time.monotonic() > end:
            return
        if not announced:
            numbers = ", ".join(map(str, running))
            print(f"waiting up to {storage.grace} s to see whether trial {numbers} is still running", flush=True)
            announced = True
        time.sleep(0.5)
        if storage.interruption.signum is not None:
            raise KeyboardInterrupt
