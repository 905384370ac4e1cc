"""Early stopping: W&B's hyperband decides after the same epochs, and no trial is stopped after its last one."""

import optuna
import pytest

import tuning.trial
from tuning.stopping import Hyperband, make_pruner, parse_early_terminate
from tuning.study import open_study
from tuning.sweep_file import Sweep, parse_sweep
from tuning.trial import last_decision


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize(
    ("options", "decisions"),
    [  # as hyperband_stop_runs of wandb/sweeps computes them
        ({"min_iter": 3}, [3, 9, 27, 81]),
        ({"min_iter": 2, "eta": 2, "strict": True}, [2, 4, 8, 16, 32, 64]),
        ({"max_iter": 27, "s": 2}, [3, 9]),
        ({"max_iter": 27, "s": 9}, [1, 3, 9]),
        ({"max_iter": 80, "s": 3, "eta": 2}, [10, 20, 40]),
        ({"max_iter": 27, "s": 2, "min_iter": 5}, [3, 9]),
    ],
)
def test_the_epochs_of_decisions(options, decisions):
    """A trial of 100 epochs that is worse than all others, asked after each of them."""
    hyperband = parse_early_terminate({"type": "hyperband", **options})
    found = []
    for start in [1, *(epoch + 1 for epoch in decisions)]:
        study = optuna.create_study(direction="maximize", pruner=make_pruner(hyperband, 100))
        for _ in range(9):
            good = study.ask()
            for epoch in range(1, 101):
                good.report(0.9, epoch)
                good.should_prune()
            study.tell(good, 0.9)
        bad = study.ask()
        for epoch in range(1, 101):
            bad.report(0.1 if epoch >= start else 0.9, epoch)
            if epoch < (hyperband.end or 100) and bad.should_prune():
                found.append(epoch)
                break
    assert found == decisions


def test_a_third_goes_on():
    study = optuna.create_study(direction="maximize", pruner=make_pruner(Hyperband(1, 3), 9))
    trials = [study.ask() for _ in range(9)]
    for value, trial in enumerate(trials):
        trial.report(value / 9, 1)
        trial.should_prune()  # as one after the other arrives
    late = study.ask()
    late.report(6.5 / 9, 1)  # third of ten
    assert not late.should_prune()
    late = study.ask()
    late.report(5.5 / 9, 1)
    assert late.should_prune()


@pytest.mark.parametrize(
    ("early_terminate", "prune", "sampled", "last"),
    [
        (None, False, {}, 0),
        (None, True, {}, 12),
        ({"type": "hyperband", "min_iter": 2}, False, {}, 12),
        ({"type": "hyperband", "min_iter": 2}, False, {"max_epochs": 5}, 5),
        ({"type": "hyperband", "max_iter": 9, "s": 1}, False, {}, 9),
        ({"type": "hyperband", "max_iter": 90, "s": 1}, False, {}, 12),
        ({"type": "hyperband", "max_iter": 9, "s": 1}, True, {}, 12),
    ],
)
def test_no_decision_after_the_last_epoch(early_terminate, prune, sampled, last, tmp_path):
    content = {"method": "random", "parameters": {"nr_filters": {"values": [2, 3]}}, "early_terminate": early_terminate}
    sweep = Sweep(parse_sweep(content, "x"), {"max_epochs": 12}, tmp_path, prune=prune)
    assert last_decision(sweep, sampled) == last


def test_a_trial_is_stopped_by_hyperband(tmp_path, monkeypatch):
    """A real process that reports three epochs and would go on for ever, against a better trial."""
    content = {
        "method": "random",
        "metric": {"name": "accuracy", "goal": "maximize"},
        "parameters": {"nr_filters": {"values": [2, 3]}},
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
    }
    program = tmp_path / "program.py"
    program.write_text(
        "import json, pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[-1].partition('=')[2])\n"
        "folder.mkdir(parents=True)\n"
        "reports = [{'epoch': e, 'accuracy': 0.1} for e in (1, 2, 3)]\n"
        "(folder / 'part').write_text(''.join(json.dumps(r) + '\\n' for r in reports))\n"
        "(folder / 'part').rename(folder / 'metrics.jsonl')\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(tuning.trial, "PROGRAM", program)
    sweep = Sweep(parse_sweep(content, "x"), {"max_epochs": 12}, tmp_path / "s")
    (tmp_path / "s").mkdir()
    study = optuna.create_study(direction="maximize", pruner=make_pruner(sweep.file.hyperband, 12))
    for _ in range(2):
        good = study.ask()
        good.report(0.9, 2)
        assert not good.should_prune()
        study.tell(good, 0.9)
    with pytest.raises(optuna.TrialPruned):
        tuning.trial.run_trial(sweep, study.ask())


@pytest.mark.parametrize("options", [{"values": [16, 8, 12]}, {"min": 8, "max": 16}])
def test_prune_warms_up_for_a_quarter_of_the_fewest_epochs(options, tmp_path):
    """Of trials of 8 to 16 epochs: two epochs, where the default of max_epochs gives 50."""
    content = {
        "method": "random",
        "metric": {"name": "accuracy", "goal": "maximize"},
        "parameters": {"max_epochs": options},
    }
    sweep = Sweep(parse_sweep(content, "x"), {}, tmp_path, prune=True)
    study = open_study(sweep, "x", optuna.storages.InMemoryStorage())
    for _ in range(4):
        good = study.ask()
        for epoch in range(1, 9):
            good.report(0.9, epoch)
        study.tell(good, 0.9)
    bad, found = study.ask(), []
    for epoch in range(1, 9):
        bad.report(0.1, epoch)
        found.append(bad.should_prune())
    assert found == [False] + [True] * 7
