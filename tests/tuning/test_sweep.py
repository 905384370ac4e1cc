"""sweep.py: real trials on the digits, resumed, failing and pruned ones, and the report."""

import contextlib
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from PIL import Image

import sweep as script_module
from tuning.report import load_study, trial_rows, write_report
from tuning.study import abandoned, open_storage, open_study, sampler
from tuning.sweep_file import fix, fixed_settings, parse_sweep, read_sweep
from tuning.trial import Sweep, TrialFailed, best_metrics
from utils.errors import UserError

TINY = "dataset=digits max_epochs=1 nr_resnet=1 nr_logistic_mix=1 batch_size=256 sampling_interval=0 lr=0.003".split()
SEARCH = {"nr_filters": {"values": [2, 3, 4]}, "dropout": {"min": 0.0, "max": 0.3}}


def write_sweep(folder, **changes):
    """A sweep file tiny.yaml over the digits, and the flags that begin its command."""
    content = {"method": "bayes", "metric": {"name": "accuracy", "goal": "maximize"}, "parameters": SEARCH} | changes
    content["parameters"] = content["parameters"] | {
        key: {"value": yaml.safe_load(value)} for key, value in (word.split("=") for word in TINY)
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return [str(path), "--save_dir", str(folder / "sweeps")]


def trials(folder, study="tiny"):
    return load_study(study, folder / "sweeps").get_trials()


def test_a_killed_sweep_goes_on(tmp_path, script, capsys):
    """Killed in its second trial, begun again: three whole trials, the second one with the settings it had."""
    command = [sys.executable, "sweep.py", *write_sweep(tmp_path), "--trials", "3", "--set", "lr=0.002"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert re.match(
        r"\[1/3\] trial 0 accuracy 0\.\d+  best 0\.\d+ \(trial 0\)  .* s  dropout=0\.\d+ nr_filters=", read(process)
    )
    wait_for(lambda: "settings" in trials(tmp_path)[-1].user_attrs and len(trials(tmp_path)) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed = trials(tmp_path)[1]
    assert killed.state.name == "RUNNING"

    result = script(*command[1:])
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "trial 1 was left unfinished; it is done again"
    assert [line.split()[0] for line in lines[1:3]] == ["[2/3]", "[3/3]"]
    again = trials(tmp_path)
    assert [trial.state.name for trial in again] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert again[2].params == killed.params and again[3].params != again[0].params
    for trial in (again[0], *again[2:]):
        run = yaml.safe_load(Path(trial.user_attrs["run_folder"], "config.yaml").read_text())
        assert run["dropout"] == pytest.approx(trial.params["dropout"]) and run["lr"] == 0.002
        assert run["nr_filters"] == trial.params["nr_filters"] and run["en_wandb"] is False
        assert trial.value == trial.user_attrs["metrics"]["accuracy"] == trial.user_attrs["history"][0]["accuracy"]

    assert script_module.main(command[2:]) == 0  # there is nothing left to do
    assert "[" not in capsys.readouterr().out and len(trials(tmp_path)) == 4

    study = str(tmp_path / "sweeps" / "tiny.db")
    assert script_module.main(["--report", study, "--out", str(tmp_path / "report")]) == 0
    assert len((tmp_path / "report" / "table.md").read_text().split("complete")) == 4
    config = script("pcnn_train.py", "--config", str(tmp_path / "report" / "best.yaml"), "--print_config")
    assert config.returncode == 0, config.stderr
    best = max(again, key=lambda trial: trial.value or 0)
    settings = yaml.safe_load(config.stdout)
    assert settings["nr_filters"] == best.params["nr_filters"] and settings["dataset"] == "digits"


def read(process):
    line = process.stdout.readline()
    assert line, "sweep.py ended"
    return line


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ctrl_c_ends_the_trial_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "sweep.py", *write_sweep(tmp_path), "--set", "max_epochs=500"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, start_new_session=True)
    folder = tmp_path / "sweeps" / "tiny" / "trial_0000"
    try:
        wait_for((folder / "metrics.jsonl").exists)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert said.splitlines() == [f"stopped; to go on: python sweep.py {' '.join(command[2:])}"]
    epochs = (folder / "metrics.jsonl").read_text()
    assert [trial.state.name for trial in trials(tmp_path)] == ["FAIL", "WAITING"]
    time.sleep(1.5)  # an epoch takes less
    assert (folder / "metrics.jsonl").read_text() == epochs  # nobody trains any more


def test_a_failed_trial_is_recorded_and_the_sweep_goes_on(tmp_path, capsys):
    search = {"load_params": {"values": [None, str(tmp_path / "none.pt")]}}
    flags = write_sweep(tmp_path, method="grid", parameters=search)
    assert script_module.main([*flags, "--set", "nr_filters=2"]) == 0
    states = {trial.params["load_params"]: trial for trial in trials(tmp_path)}
    failed = states.pop(str(tmp_path / "none.pt"))
    assert failed.state.name == "FAIL" and re.match("error: .*none.pt", failed.user_attrs["failure"])
    assert states[None].state.name == "COMPLETE"
    out = capsys.readouterr().out
    assert f"trial {failed.number} failed: error: " in out and "[2/2]" in out
    assert script_module.main(["--report", "tiny", "--save_dir", str(tmp_path / "sweeps")]) == 0
    table = (tmp_path / "sweeps" / "tiny" / "report" / "table.md").read_text()
    assert "failed: error: " in table and "complete" in table


def test_a_hopeless_trial_is_stopped(tmp_path, capsys):
    """Four trials that were better from the first epoch on, then a real one with --prune."""
    flags = write_sweep(tmp_path)
    sets = ["--set", "max_epochs=16", "--set", "nr_filters=2", "--set", "lr=0.00001"]
    file = fix(read_sweep(flags[0]), sets[1::2])
    (tmp_path / "sweeps").mkdir()
    storage = open_storage(f"sqlite:///{tmp_path}/sweeps/tiny.db")
    study = open_study(Sweep(file, fixed_settings(file), tmp_path), "tiny", storage)
    for _ in range(4):
        study.add_trial(
            optuna.trial.create_trial(
                value=0.99,
                params={"dropout": 0.1},
                distributions={"dropout": optuna.distributions.FloatDistribution(0, 0.3)},
                intermediate_values=dict.fromkeys(range(1, 17), 0.99),
                user_attrs={"settings": {"dropout": 0.1}, "fixed": {}, "seconds": 1},
            )
        )
    assert script_module.main([*flags, *sets, "--trials", "5", "--prune"]) == 0
    trial = trials(tmp_path)[-1]
    assert trial.state.name == "PRUNED" and 4 <= len(trial.user_attrs["history"]) < 16
    assert "(stopped after epoch " in capsys.readouterr().out


def test_pruning_is_asked_for(tmp_path):
    assert not script_module.parse(["x.yaml"]).prune and script_module.parse(["x.yaml", "--prune"]).prune


def synthetic(path, folder, count):
    """A study of made-up numbers with the settings that the sweep file gives."""
    file = read_sweep(path)
    sweep = Sweep(file, fixed_settings(file), folder)
    folder.mkdir(exist_ok=True)
    study = open_study(sweep, file.name, open_storage(f"sqlite:///{folder}/{file.name}.db"))
    numbers = random.Random(0)

    def objective(trial):
        if file.method != "grid":
            study.sampler = sampler(sweep, trial.number)
        settings = {parameter.name: parameter.suggest(trial) for parameter in file.parameters}
        quality = numbers.random()
        history = [
            {"epoch": e, "train_bpd": 5 - quality, "val_bpd": 5 - e * quality, "accuracy": e * quality / 4}
            for e in (1, 2, 3)
        ]
        history[2]["accuracy"] = 0.0  # the second epoch is the best
        history[0]["fid"] = 50 - 10 * quality
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("fixed", sweep.fixed)
        trial.set_user_attr("history", history)
        trial.set_user_attr("seconds", 1.0)
        trial.set_user_attr("metrics", best_metrics(history, file.metric, file.goal))
        if trial.number == 3 and file.method != "grid":
            trial.set_user_attr("failure", "error: a | b")
            raise TrialFailed
        return history[1]["accuracy"]

    study.sampler = sampler(sweep, 0)
    study.optimize(objective, count, catch=(TrialFailed,))
    return study


def test_the_report(tmp_path):
    study = synthetic("sweep.yaml", tmp_path / "s", 12)
    written = write_report(study, tmp_path / "report")
    assert {path.name for path in written} == {
        "table.md", "best.yaml", "curves.png", "parallel_accuracy.png", "parallel_fid.png",
        "importance_accuracy.png", "importance_fid.png",
    }  # fmt: skip
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.format == "PNG" and min(image.size) > 150
    rows = trial_rows(study)
    assert [row.state for row in rows] == ["complete"] * 11 + ["failed"]
    accuracies = [row.metrics["accuracy"] for row in rows[:11]]
    assert accuracies == sorted(accuracies, reverse=True) and all(row.metrics["epoch"] == 2 for row in rows)
    table = (tmp_path / "report" / "table.md").read_text().splitlines()
    assert table[0].startswith("| trial | batch_size | nr_filters |") and " fid " in table[0]
    assert table[2].startswith(f"| {rows[0].number} |") and r"failed: error: a \| b" in table[13]
    best = yaml.safe_load((tmp_path / "report" / "best.yaml").read_text())
    assert best == rows[0].settings | {"lr_decay": 0.99995, "max_epochs": 200, "en_wandb": False}


def test_importance_and_correlation_find_what_matters(tmp_path, monkeypatch):
    """accuracy = nr_filters / 100, whatever batch_size is; distributions that Optuna lacks keep their names."""
    from tuning.report import correlations, setting_importances

    parameters = {
        "nr_filters": {"distribution": "q_normal", "mu": 50, "sigma": 10, "q": 5},
        "batch_size": {"values": [16, 32, 64]},
        "augment": {"values": ["none", "flip"]},
    }
    metric = {"name": "accuracy", "goal": "maximize"}
    file = parse_sweep({"method": "random", "metric": metric, "parameters": parameters}, "x")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    study.set_user_attr("sweep", {"goal": "maximize", "metric": "accuracy"})

    def objective(trial):
        settings = {parameter.name: parameter.suggest(trial) for parameter in file.parameters}
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("metrics", {"accuracy": settings["nr_filters"] / 100})
        trial.set_user_attr("fixed", {})
        trial.set_user_attr("seconds", 1.0)
        return settings["nr_filters"] / 100

    study.optimize(objective, 30)
    importances = setting_importances(study, "accuracy")
    assert set(importances) == set(parameters) and importances["nr_filters"] > 0.9
    found = correlations(trial_rows(study), list(parameters), "accuracy")
    assert found["nr_filters"] == pytest.approx(1) and abs(found["batch_size"]) < 0.5 and "augment" not in found


def test_the_ablation(tmp_path):
    study = synthetic("configs/ablation.yaml", tmp_path / "s", 8)
    written = write_report(study, tmp_path / "report")
    assert {"ablation.md", "ablation.png"} <= {path.name for path in written}
    table = (tmp_path / "report" / "ablation.md").read_text().splitlines()
    assert table[0] == "| fusion | validation accuracy | validation bits/dim | FID | seeds |"
    assert [line.split(" | ")[0] for line in table[2:6]] == ["| early", "| early+middle", "| film", "| middle"]
    film = [row.metrics["accuracy"] for row in trial_rows(study) if row.settings["fusion"] == "film"]
    mean, spread = sum(film) / 2, abs(film[0] - film[1]) / 2**0.5
    assert f"| film | {mean:.4f} ± {spread:.4f} |" in table[4] and table[4].endswith("| 2 |")
    with Image.open(tmp_path / "report" / "ablation.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("method", ["bayes", "random", "grid"])
def test_each_method_searches_and_a_resumed_search_repeats_nothing(method):
    """Draws one trial at a time with a new sampler each, as a sweep that is killed after each trial would."""
    values = {"nr_filters": {"values": list(range(1, 9))}}
    if method != "grid":
        values["lr"] = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}
    metric = {"name": "accuracy", "goal": "maximize"}
    file = parse_sweep({"method": method, "metric": metric, "parameters": values}, "x")
    sweep = Sweep(file, {}, None)
    study = optuna.create_study(direction="maximize")

    def objective(trial):
        if method != "grid":
            study.sampler = sampler(sweep, trial.number)
        settings = {parameter.name: parameter.suggest(trial) for parameter in file.parameters}
        return -(math.log10(settings["lr"] / 1e-3) ** 2) if "lr" in settings else 0

    count = 8 if method == "grid" else 40
    for _ in range(count):
        study.sampler = sampler(sweep, 0)
        study.optimize(objective, 1)
    drawn = [trial.params for trial in study.trials]
    assert len({tuple(params.values()) for params in drawn}) == count
    assert all(type(params["nr_filters"]) is int for params in drawn)
    if method != "grid":
        near = sum(5e-4 < params["lr"] < 2e-3 for params in drawn[-20:])  # by chance 6 of 20
        assert near > 10 if method == "bayes" else near < 10


def test_machines_share_a_study(tmp_path):
    """Two sweeps of three trials over one database, at the same time: they share them."""
    flags = write_sweep(tmp_path, method="random")
    url = f"sqlite:///{tmp_path}/shared.db"
    commands = [
        [sys.executable, "sweep.py", flags[0], "--save_dir", str(tmp_path / name), "--storage", url, "--trials", "3"]
        for name in ("one", "two")
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [process.communicate(timeout=400)[0] for process in processes]
    study = load_study("tiny", tmp_path, url)
    complete = [trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    assert 3 <= len(complete) <= 4  # both may begin the last one at the same moment
    assert len({tuple(trial.params.values()) for trial in complete}) == len(complete)
    counts = [output.count("] trial ") for output in outputs]
    assert sum(counts) == len(complete) and min(counts) >= 1


@pytest.mark.parametrize("earlier", [None, 2**22 + 1])  # no process yet, or that of an earlier try: above any pid
def test_a_trial_that_has_just_begun_is_not_taken_for_abandoned(tmp_path, monkeypatch, earlier):
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/x.db"))
    dead, begun = study.ask(), study.ask()
    for trial in (dead, begun):
        if earlier:
            trial.set_user_attr("process", [socket.gethostname(), earlier])
    parent = [socket.gethostname(), os.getppid()]  # a process that lives and is not this one
    monkeypatch.setattr(time, "sleep", lambda _: begun.set_user_attr("process", parent))
    assert [trial.number for trial in abandoned(study)] == [dead.number]


def test_mistakes_are_one_line(tmp_path, script):
    flags = write_sweep(tmp_path)
    (tmp_path / "bad.yaml").write_text("method: bayes\nearly_terminate: {}\n")
    cases = [
        ([], "give either a SWEEP.yaml or --report"),
        ([flags[0], "--report", "x"], "give either"),
        ([str(tmp_path / "bad.yaml")], "early_terminate"),
        ([*flags, "--trials", "0"], "trials"),
        ([*flags, "--set", "nr_filters"], "KEY=VALUE"),
        ([*flags, "--set", "nr_filter=3"], "nr_filter"),
        ([*flags, "--set", "nr_filters=many"], "many"),
        ([*flags, "--set", "nr_filters=4", "--set", "dropout=0"], "no setting to search"),
        ([*flags, "--set", "run_dir=x"], "run_dir"),
        ([*flags, "--", "--nr_filter", "3"], "nr_filter"),
        ([*flags, "--storage", "nonsense"], "database"),
        (["--report", "none", "--save_dir", str(tmp_path)], "no study none"),
    ]
    for argv, words in cases:
        with pytest.raises(UserError, match=words) as error:
            script_module.main(argv)
        assert "\n" not in str(error.value), argv
    real = script("sweep.py", tmp_path / "bad.yaml")
    assert real.returncode == 2 and real.stderr.startswith("error: ") and len(real.stderr.splitlines()) == 1


def test_values_that_the_training_would_refuse_are_refused_at_once(tmp_path):
    flags = write_sweep(tmp_path, parameters={"fusion": {"values": ["early", "late"]}})
    with pytest.raises(UserError, match=r"late"):
        script_module.main(flags)


def test_a_study_is_of_one_search(tmp_path):
    file = read_sweep("sweep.yaml")
    storage = open_storage(f"sqlite:///{tmp_path}/x.db")
    open_study(Sweep(file, fixed_settings(file), tmp_path), "x", storage)
    open_study(Sweep(file, fixed_settings(file, ["--device", "cpu", "--data_dir", "d"]), tmp_path), "x", storage)
    fixed = fix(file, ["max_epochs=2"])
    with pytest.raises(UserError, match=r"other fixed .*--study NAME"):
        open_study(Sweep(fixed, fixed_settings(fixed), tmp_path), "x", storage)
    fixed = fix(file, ["nr_resnet=1"])
    with pytest.raises(UserError, match=r"other parameters"):
        open_study(Sweep(fixed, fixed_settings(fixed), tmp_path), "x", storage)


def test_which_settings_win(tmp_path):
    """--set over the file, the file over flags after --, these over the defaults; no W&B unless asked for."""
    file = fix(read_sweep("sweep.yaml"), ["max_epochs=2", "fusion=film"])
    fixed = fixed_settings(file, ["--config", "configs/digits.yaml", "--lr_decay", "0.9"])
    assert fixed["max_epochs"] == 2 and fixed["lr_decay"] == 0.99995 and fixed["dataset"] == "digits"
    assert fixed["fusion"] == "film" and fixed["en_wandb"] is False and "nr_filters" not in fixed
    assert fixed_settings(file, en_wandb=True)["en_wandb"] is True
