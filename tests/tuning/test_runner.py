"""The runner of a sweep, with trials that train nothing."""

import contextlib
import itertools
import signal
import sqlite3
from collections import Counter

import optuna
import pytest
from optuna.storages._heartbeat import get_heartbeat_thread

import sweep as script_module
import tuning.database
import tuning.runner
import tuning.trial
from tuning.database import open_storage
from tuning.runner import run_sweep
from tuning.study import claim_untried, open_study
from tuning.sweep_file import Sweep, fixed_settings, parse_sweep, read_sweep
from tuning.trial import TrialFailed
from utils.errors import UserError


def sweep_over(parameters, folder, **changes):
    """A random search that is not trained."""
    metric = {"name": "accuracy", "goal": "maximize"}
    file = parse_sweep({"method": "random", "metric": metric, "parameters": parameters} | changes, "x")
    return Sweep(file, fixed_settings(file), folder)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A sweep whose trials train nothing, and a storage where an interrupted trial is found after five seconds."""
    monkeypatch.setattr(tuning.database, "HEARTBEAT", 1)
    monkeypatch.setattr(tuning.database, "GRACE_PERIOD", 5)
    monkeypatch.setattr(tuning.runner, "run_trial", train_nothing)
    sweep = sweep_over({"dropout": {"min": 0.0, "max": 0.3}}, tmp_path / "sweeps", method="bayes")
    return sweep, open_storage(f"sqlite:///{tmp_path}/x.db", sweep.interruption)


def train_nothing(sweep, trial):
    trial.set_user_attr("settings", {"dropout": trial.suggest_float("dropout", 0, 0.3)})
    trial.set_user_attr("seconds", 0)
    return 0.5


def running_trial(study):
    """A trial that another process has just started."""
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = study.ask()
    trial.suggest_float("dropout", 0, 0.3)
    study._storage.record_heartbeat(trial._trial_id)
    return trial


def test_a_sweep_resumed_at_once_runs_the_interrupted_trial_last(quick, capsys):
    sweep, storage = quick
    killed = running_trial(open_study(sweep, "x", storage))
    study = run_sweep(sweep, "x", storage, 3)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert study.trials[3].params == killed.params and study.trials[2].params != killed.params
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["[2/3]", "[3/3]", "waiti", "trial", "[3/3]"]
    assert lines[3] == "trial 0 was interrupted and is run again"


def test_a_trial_that_another_process_runs_is_left_alone_and_named(quick, capsys):
    sweep, storage = quick
    study = open_study(sweep, "x", storage)
    alive, started = running_trial(study), running_trial(study)
    with contextlib.closing(sqlite3.connect(storage.engine.url.database)) as database, database:
        database.execute("DELETE FROM trial_heartbeats WHERE trial_id = ?", (started._trial_id,))  # before the first
    with get_heartbeat_thread(alive._trial_id, storage):
        assert run_sweep(sweep, "x", storage, 3).trials[2].state.name == "COMPLETE"
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "RUNNING", "COMPLETE"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("trial 0, 1 is still running elsewhere; if")


def test_a_signal_ends_the_wait_for_other_processes(quick):
    sweep, storage = quick
    running_trial(open_study(sweep, "x", storage))
    sweep.interruption.signum = signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, "x", storage, 1)


def sample_only(values):
    """In the place of run_trial: sample, and return the next of ``values``."""
    values = iter(values)

    def run(sweep, trial):
        settings = {parameter.name: parameter.suggest(trial) for parameter in sweep.file.parameters}
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("fixed", {})
        trial.set_user_attr("seconds", 0)
        value = next(values)
        if isinstance(value, str):
            trial.set_user_attr("failure", value)
            raise TrialFailed(value)
        return value

    return run


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_each_combination_of_a_small_search_is_tried_once(method, tmp_path, monkeypatch, capsys):
    """2 x 3 combinations and 20 trials; two of them were run by an earlier command that wanted fewer."""
    monkeypatch.setattr(tuning.runner, "run_trial", sample_only([0.5] * 20))
    sweep = sweep_over({"nr_filters": {"values": [2, 3]}, "seed": {"min": 1, "max": 3}}, tmp_path / "s", method=method)
    storage = open_storage(f"sqlite:///{tmp_path}/x.db")
    run_sweep(sweep, "x", storage, 2)
    assert "combinations" not in capsys.readouterr().err
    study = run_sweep(sweep, "x", storage, 20)
    tried = [tuple(trial.params.values()) for trial in study.trials]
    assert sorted(tried) == [(f, s) for f in (2, 3) for s in (1, 2, 3)]
    out, errors = capsys.readouterr()
    assert errors == "the settings have only 6 combinations; each is tried once\n"
    assert "[6/6]" in out and "as trial" not in out


def test_a_trial_with_the_settings_of_an_earlier_one_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning.runner, "run_trial", sample_only([0.5] * 20))
    search = {"nr_filters": {"values": [2, 3], "probabilities": [1, 0]}}  # of which there is no end
    run_sweep(sweep_over(search, tmp_path / "s"), "x", open_storage(f"sqlite:///{tmp_path}/x.db"), 2)
    first, second = capsys.readouterr().out.splitlines()
    assert "as trial" not in first and second.endswith("nr_filters=2  (as trial 0)")


@pytest.mark.parametrize("goal, values", [("maximize", [0.5, 0.9, 0.7]), ("minimize", [0.9, 0.5, 0.7])])
def test_a_reached_target_ends_the_sweep(goal, values, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning.runner, "run_trial", sample_only(values))
    metric = {"name": "accuracy", "goal": goal, "target": 0.8 if goal == "maximize" else 0.6}
    sweep = sweep_over({"dropout": {"min": 0.0, "max": 0.5}}, tmp_path / "s", metric=metric)
    storage = open_storage(f"sqlite:///{tmp_path}/x.db")
    assert len(run_sweep(sweep, "x", storage, 3).trials) == 2
    assert len(run_sweep(sweep, "x", storage, 3).trials) == 2
    assert "the target" in capsys.readouterr().out


def test_the_report_of_failed_trials_only_gives_the_reasons(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        tuning.runner, "run_trial", sample_only(["error: no images", "out of memory", "error: no images"])
    )
    storage = open_storage(f"sqlite:///{tmp_path}/x.db")
    run_sweep(sweep_over({"dropout": {"min": 0.0, "max": 0.5}}, tmp_path / "s"), "x", storage, 3)
    capsys.readouterr()
    with pytest.raises(UserError, match=r"no trial of x has completed.*\(trials: 3 failed\)"):
        script_module.main(["--report", "x", "--save_dir", str(tmp_path)])
    assert capsys.readouterr().err.splitlines() == [
        "trial 0, 2 failed: error: no images",
        "trial 1 failed: out of memory",
    ]
    assert not (tmp_path / "x" / "report").exists()


def test_a_trial_that_another_process_queued_again_is_run_again(tmp_path, monkeypatch, capsys):
    """As when the heartbeats did not arrive."""
    storage = open_storage(f"sqlite:///{tmp_path}/x.db")
    sweep = sweep_over({"dropout": {"min": 0.0, "max": 0.5}}, tmp_path / "s")

    def run(sweep, trial):
        if trial.number == 0:
            trial.suggest_float("dropout", 0, 0.5)
            other = optuna.load_study(study_name="x", storage=open_storage(f"sqlite:///{tmp_path}/x.db"))
            other.tell(0, state=optuna.trial.TrialState.FAIL)
            tuning.database.queue_again(other, other.trials[0])
        return sample_only([0.5])(sweep, trial)

    monkeypatch.setattr(tuning.runner, "run_trial", run)
    study = run_sweep(sweep, "x", storage, 1)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[0].params == study.trials[1].params
    assert capsys.readouterr().out.splitlines()[0] == "trial 0 had no heartbeats for a while and is run again"


def test_a_log_that_cannot_be_written_is_one_line_and_the_trial_is_queued(tmp_path, monkeypatch):
    storage = open_storage(f"sqlite:///{tmp_path}/x.db")
    sweep = sweep_over({"dropout": {"min": 0.0, "max": 0.5}}, tmp_path / "s")
    monkeypatch.setattr(tuning.trial, "new_folder", lambda parent, number: parent / "gone" / "trial")
    with pytest.raises(UserError, match=r"trial\.log cannot be written"):
        run_sweep(sweep, "x", storage, 1)
    assert [trial.state.name for trial in open_study(sweep, "x", storage).trials] == ["FAIL", "WAITING"]


def settings_of(study):
    return [tuple(trial.params.values()) for trial in study.trials]


def test_a_grid_of_fewer_trials_is_its_first_combinations(tmp_path, monkeypatch, capsys):
    """The later command for all of them runs the others; configs/optimizer_sweep.yaml has 36."""
    monkeypatch.setattr(tuning.runner, "run_trial", sample_only([0.5] * 36))
    file = read_sweep("configs/optimizer_sweep.yaml")
    sweep, storage = Sweep(file, {}, tmp_path / "s"), open_storage(f"sqlite:///{tmp_path}/x.db")
    every = list(itertools.product([8, 16, 32], [0.005, 0.01, 0.02], [0.99, 0.999], [1, 2]))
    assert settings_of(run_sweep(sweep, "x", storage, 12)) == every[:12]
    assert settings_of(run_sweep(sweep, "x", storage)) == every
    assert capsys.readouterr().out.splitlines()[-1].startswith("[36/36]")


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_repeated_settings_count_once_where_each_combination_is_tried(method, tmp_path, monkeypatch, capsys):
    """Of the five trials of an earlier command some have equal settings, and one failed by itself."""
    monkeypatch.setattr(tuning.runner, "run_trial", sample_only(["error: no images"] + [0.5] * 20))
    search = {"nr_filters": {"values": [2, 3]}, "seed": {"min": 1, "max": 3}}
    sweep = sweep_over(search, tmp_path / "s", method=method)
    storage = open_storage(f"sqlite:///{tmp_path}/x.db")
    before = settings_of(run_sweep(sweep, "x", storage, 5))
    assert len(before) == 5 > len(set(before))
    tried = settings_of(run_sweep(sweep, "x", storage, 6))
    assert set(tried) == set(itertools.product([2, 3], [1, 2, 3]))
    assert Counter(tried[5:]) == Counter(set(tried) - set(before))
    assert capsys.readouterr().out.splitlines()[-1].startswith("[6/6]")
    assert settings_of(run_sweep(sweep, "x", storage, 6)) == tried


def interleave(monkeypatch, other):
    """Call ``other`` whenever a sweep asks for a trial, just before it gets one."""
    ask, busy = optuna.Study.ask, []

    def ask_late(study):
        if not busy:
            busy.append(True)
            other(len(study.get_trials()))
            busy.clear()
        return ask(study)

    monkeypatch.setattr(optuna.Study, "ask", ask_late)


def two_machines(folder, method):
    """A search over six combinations, and the storage of each machine."""
    search = {"nr_filters": {"values": [2, 3]}, "seed": {"min": 1, "max": 3}}
    sweep = sweep_over(search, folder / "s", method=method)
    return sweep, [open_storage(f"sqlite:///{folder}/x.db") for _ in range(2)]


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_a_trial_that_another_machine_takes_first_costs_no_combination(method, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning.runner, "run_trial", sample_only([0.5] * 20))
    sweep, (here, there) = two_machines(tmp_path, method)
    interleave(monkeypatch, lambda count: count < 5 and run_sweep(sweep, "x", there, count + 1))
    tried = settings_of(run_sweep(sweep, "x", here, 6))
    assert set(tried) == set(itertools.product([2, 3], [1, 2, 3]))
    assert len(tried) == 6 or method != "grid"  # the other machine runs fewer trials, and so samples


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_machines_that_want_all_combinations_try_each_once(method, tmp_path, monkeypatch, capsys):
    """The other one takes the last, after which nothing is left for a trial that has been started here."""
    monkeypatch.setattr(tuning.runner, "run_trial", sample_only([0.5] * 20))
    sweep, (here, there) = two_machines(tmp_path, method)
    interleave(monkeypatch, lambda count: count == 5 and run_sweep(sweep, "x", there, 6))
    study = run_sweep(sweep, "x", here, 6)
    complete = [tuple(trial.params.values()) for trial in study.trials if trial.state.name == "COMPLETE"]
    assert sorted(complete) == list(itertools.product([2, 3], [1, 2, 3]))
    assert [trial.params for trial in study.trials if trial.state.name != "COMPLETE"] == [{}]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(" accuracy 0.5000 " in line for line in lines)


@pytest.mark.parametrize("method", ["grid", "random"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_trials_of_three_machines_claim_different_combinations_in_any_order(order, method, tmp_path):
    sweep, storages = two_machines(tmp_path, method)
    studies = [open_study(sweep, "x", storage) for storage in (*storages, storages[0])]
    trials = [study.ask() for study in studies]
    claimed = {}
    for number in order:
        trial = claim_untried(studies[number], sweep, trials[number])
        claimed[number] = tuple(parameter.suggest(trial) for parameter in sweep.file.parameters)
    assert len(set(claimed.values())) == 3
    if method == "grid":
        assert [claimed[number] for number in range(3)] == [(2, 1), (2, 2), (2, 3)]


def test_a_trial_stopped_before_it_has_settings_gets_them_when_it_is_run_again(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning.runner, "claim_untried", stop)
    sweep, (storage, _) = two_machines(tmp_path, "grid")
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, "x", storage)
    monkeypatch.setattr(tuning.runner, "claim_untried", claim_untried)
    monkeypatch.setattr(tuning.runner, "run_trial", sample_only([0.5] * 20))
    assert settings_of(run_sweep(sweep, "x", storage)) == [(), *itertools.product([2, 3], [1, 2, 3])]
