"""Run the trials of a sweep one after another."""

import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from tuning.database import DatabaseLost, PatientStorage, queue_again
from tuning.study import (
    NothingUntried,
    claim_untried,
    count_trials,
    is_interrupted,
    make_sampler,
    open_study,
    recover_trials,
    running_trials,
)
from tuning.sweep_file import Sweep
from tuning.trial import TrialFailed, run_trial
from utils.console import notify
from utils.files import check_writable

DEFAULT_TRIALS = 20


def run_sweep(sweep: Sweep, name: str, storage: PatientStorage, trials: int | None = None) -> Study:
    """Run trials until the study ``name`` has ``trials`` in total, or one has reached the target of the metric.

    Trials that other processes are running count. Interrupted trials do not, and are run again.

    Args:
        sweep: the search and the settings of the trials.
        name: of the study, which is created if it does not exist.
        storage: the database of the study.
        trials: number of trials in total; by default the whole grid, or 20. A grid repeats no combination of
            settings. Of another search with fewer combinations than trials each is tried; repeated ones count once.

    Returns the study. Raises UserError, and KeyboardInterrupt on a signal, which interrupts the running trial.
    """
    study = open_study(sweep, name, storage)
    size = combinations(sweep)
    total = total_trials(sweep, trials)
    once = sweep.file.method == "grid" or size <= total
    if size < (trials or 0):
        notify(f"the settings have only {size} combinations; each is tried once")
    check_writable(sweep.folder / "trial_0000.log")
    while not (reached := target_reached(study, sweep)):
        if count_trials(study, sweep, once) >= total:  # some of them may belong to a killed sweep
            recover_trials(study, storage)
        if count_trials(study, sweep, once) >= total:
            break
        trial = run_next(study, sweep, storage, once)
        if not is_interrupted(trial):
            count = min(count_trials(study, sweep, once), total)
            print(f"[{count}/{total}] {trial_summary(study, trial)}", flush=True)
        elif trial.params:  # else another machine has just taken the last combination
            print(f"trial {trial.number} had no heartbeats for a while and is run again", flush=True)
    if reached:
        print(f"the target {sweep.file.target} of {sweep.file.metric} is reached", flush=True)
    if running := running_trials(study):
        numbers = ", ".join(map(str, running))
        print(f"trial {numbers} is still running elsewhere; if it was killed, the same command runs it again later")
    return study


def run_next(study: Study, sweep: Sweep, storage: PatientStorage, once: bool) -> FrozenTrial:
    """Run the next trial, queued or new; returns it as the database has it.

    With ``once``, a new one has settings that no other trial has; where there are none left, it ends without any.
    Raises UserError and KeyboardInterrupt, after which the trial is run again.
    """
    optuna.storages.fail_stale_trials(study)
    study.sampler = make_sampler(sweep, 0)
    trial = study.ask()
    study.sampler = make_sampler(sweep, trial.number)
    value, state = None, TrialState.COMPLETE
    try:
        with heartbeats(storage, trial):
            try:
                value = run_trial(sweep, claim_untried(study, sweep, trial) if once else trial)
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except (TrialFailed, NothingUntried):
                state = TrialState.FAIL
        study.tell(trial, value, state, skip_if_finished=True)
    except optuna.exceptions.UpdateFinishedTrialError:  # another process missed the heartbeats and queued it again
        pass
    except DatabaseLost:
        raise
    except BaseException:  # a signal, a full disk
        queue_again(study, study.get_trials()[trial.number])
        study.tell(trial, state=TrialState.FAIL)
        raise
    return study.get_trials(deepcopy=False)[trial.number]


@contextmanager
def heartbeats(storage: PatientStorage, trial: Trial) -> Iterator[None]:
    """Inside, the database is told regularly that ``trial`` is running."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(storage.heartbeat_interval):
            storage.record_heartbeat(trial._trial_id)

    storage.record_heartbeat(trial._trial_id)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def combinations(sweep: Sweep) -> float:
    """The number of different settings of a search; infinite unless all are listed or whole numbers."""
    choices = [parameter.choices() for parameter in sweep.file.parameters]
    return math.inf if None in choices else math.prod(len(values) for values in choices if values is not None)


def total_trials(sweep: Sweep, trials: int | None) -> int:
    """The number of trials to run in total, at most run_cap and the number of different settings."""
    size = combinations(sweep)
    wanted = trials or (size if sweep.file.method == "grid" else DEFAULT_TRIALS)
    return int(min(wanted, size, sweep.file.run_cap or sys.maxsize))


def target_reached(study: Study, sweep: Sweep) -> bool:
    """Whether a trial has reached the target of the metric, if it has one."""
    target = sweep.file.target
    if target is None or all(trial.state.name != "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        return False
    return study.best_value >= target if sweep.file.goal == "maximize" else study.best_value <= target


def trial_summary(study: Study, trial: FrozenTrial) -> str:
    """One line about a finished trial: metric, best value so far, seconds, settings."""
    attributes = trial.user_attrs
    if trial.state.name == "FAIL":
        line = f"trial {trial.number} failed: {attributes['failure']}"
    else:
        line = f"trial {trial.number} {study.user_attrs['sweep']['metric']} {trial.value:.4f}"
        if trial.state.name == "PRUNED":
            line += f" (stopped after epoch {trial.last_step})"
    finished = [other for other in study.get_trials(deepcopy=False) if other.state.name in ("COMPLETE", "PRUNED")]
    if any(other.state.name == "COMPLETE" for other in finished):
        line += f"  best {study.best_value:.4f} (trial {study.best_trial.number})"
    settings = " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in attributes["settings"].items()
    )
    line += f"  {attributes['seconds']} s  {settings}"
    same = [
        o.number for o in finished if o.number < trial.number and o.user_attrs["settings"] == attributes["settings"]
    ]
    return f"{line}  (as trial {same[0]})" if same else line
