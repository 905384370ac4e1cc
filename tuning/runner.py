"""Run the trials of a sweep one after another."""

import math
import sys
from typing import TYPE_CHECKING

from tuning.study import count_trials, make_sampler, open_study, queue_again, recover_trials
from tuning.sweep_file import Sweep
from tuning.trial import TrialFailed, run_trial
from utils.files import check_writable

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

DEFAULT_TRIALS = 20


def run_sweep(sweep: Sweep, name: str, storage: "BaseStorage", trials: int | None = None) -> "Study":
    """Run trials until the study ``name`` has ``trials`` in total.

    Trials that other processes are running count. Interrupted trials do not, and are run again.

    Args:
        sweep: the search and the settings of the trials.
        name: of the study, which is created if it does not exist.
        storage: the database of the study.
        trials: number of trials in total; by default the whole grid, or 20.

    Returns the study. Raises UserError, and KeyboardInterrupt on a signal, which interrupts the running trial.
    """
    study = open_study(sweep, name, storage)
    study.sampler = make_sampler(sweep, 0)
    total = total_trials(sweep, trials)
    check_writable(sweep.folder / "trial_0000.log")

    def objective(trial: "Trial") -> float:
        if sweep.file.method != "grid":
            study.sampler = make_sampler(sweep, trial.number)
        try:
            return run_trial(sweep, trial)
        except KeyboardInterrupt:
            queue_again(study, study.get_trials()[trial.number])
            raise

    def print_summary(study: "Study", trial: "FrozenTrial") -> None:
        print(f"[{min(count_trials(study), total)}/{total}] {trial_summary(study, trial)}", flush=True)

    while True:
        if count_trials(study) >= total:  # some of them may belong to a killed sweep
            recover_trials(study, sweep.interruption)
        if count_trials(study) >= total:
            return study
        study.optimize(objective, n_trials=1, catch=(TrialFailed,), callbacks=[print_summary])


def total_trials(sweep: Sweep, trials: int | None) -> int:
    """The number of trials to run in total, at most the size of the grid and run_cap."""
    if sweep.file.method == "grid":
        grid = math.prod(len(parameter.options["values"]) for parameter in sweep.file.parameters)
        trials = min(trials or grid, grid)
    return min(trials or DEFAULT_TRIALS, sweep.file.run_cap or sys.maxsize)


def trial_summary(study: "Study", trial: "FrozenTrial") -> str:
    """One line about a finished trial: metric, best value so far, seconds, settings."""
    attributes = trial.user_attrs
    if trial.state.name == "FAIL":
        line = f"trial {trial.number} failed: {attributes['failure']}"
    else:
        line = f"trial {trial.number} {study.user_attrs['sweep']['metric']} {trial.value:.4f}"
        if trial.state.name == "PRUNED":
            line += f" (stopped after epoch {trial.last_step})"
    if any(other.state.name == "COMPLETE" for other in study.get_trials(deepcopy=False)):
        line += f"  best {study.best_value:.4f} (trial {study.best_trial.number})"
    settings = " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in attributes["settings"].items()
    )
    return f"{line}  {attributes['seconds']} s  {settings}"
