"""The trials of a sweep, one after the other."""

import math
import sys
from typing import TYPE_CHECKING, Any

from tuning.study import abandoned, counted, is_interrupted, is_mine, open_study, sampler
from tuning.sweep_file import Sweep
from tuning.trial import TrialFailed, run_trial
from utils.files import check_writable

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["run_sweep"]

DEFAULT_TRIALS = 20


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
