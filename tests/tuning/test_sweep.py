"""sweep.py: trials on the digits, resumed, failing, pruned and shared by two processes, and mistakes in a command."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

import sweep as script_module
from evaluation.metrics import FID_NAMES, SAMPLE_METRICS
from tests.runs import reports
from tuning.checks import MEASURED
from tuning.database import open_storage
from tuning.study import load_study, open_study
from tuning.sweep_file import Sweep, fix_settings, fixed_settings, read_sweep
from utils.errors import UserError

TINY = "dataset=digits max_epochs=1 nr_resnet=1 nr_logistic_mix=1 batch_size=256 sampling_interval=0 lr=0.003".split()
SEARCH = {"nr_filters": {"values": [2, 3, 4]}, "dropout": {"min": 0.0, "max": 0.3}}


def write_sweep(folder, **changes):
    """Write the sweep file tiny.yaml for the digits; returns the first arguments of its command."""
    content = {"method": "bayes", "metric": {"name": "accuracy", "goal": "maximize"}, "parameters": SEARCH} | changes
    content["parameters"] = content["parameters"] | {
        key: {"value": yaml.safe_load(value)} for key, value in (word.split("=") for word in TINY)
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return [str(path), "--save_dir", str(folder / "sweeps")]


def trials(folder, study="tiny"):
    return load_study(study, folder / "sweeps").get_trials()


def test_a_killed_sweep_is_resumed(tmp_path, script, capsys):
    """Killed in its second trial and resumed later: three complete trials, the second with the same settings."""
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
    with contextlib.closing(sqlite3.connect(tmp_path / "sweeps" / "tiny.db")) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 minute')")

    result = script(*command[1:])
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "trial 1 was interrupted and is run again"
    assert [line.split()[0] for line in lines[1:3]] == ["[2/3]", "[3/3]"]
    reported = set(MEASURED) - {*FID_NAMES, *SAMPLE_METRICS, "train_cross_entropy", "seconds", "images_per_second"}
    again = trials(tmp_path)
    assert [trial.state.name for trial in again] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert again[2].params == killed.params and again[3].params != again[0].params
    for trial in (again[0], *again[2:]):
        run = yaml.safe_load(Path(trial.user_attrs["run_folder"], "config.yaml").read_text())
        assert run["dropout"] == pytest.approx(trial.params["dropout"]) and run["lr"] == 0.002
        assert run["nr_filters"] == trial.params["nr_filters"] and run["en_wandb"] is False
        assert reports(Path(trial.user_attrs["run_folder"]))[0].keys() - {"epoch", "step", "lr"} == reported
        assert trial.value == trial.user_attrs["metrics"]["accuracy"] == trial.user_attrs["history"][0]["accuracy"]

    assert script_module.main(command[2:]) == 0  # nothing is left to run
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


def test_ctrl_c_interrupts_the_trial_and_prints_how_to_resume(tmp_path):
    command = [sys.executable, "sweep.py", *write_sweep(tmp_path), "--set", "max_epochs=500"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, start_new_session=True)
    folder = tmp_path / "sweeps" / "tiny" / "trial_0000"
    try:
        wait_for((folder / "metrics.jsonl").exists)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert errors.splitlines() == [f"stopped; to resume: python sweep.py {' '.join(command[2:])}"]
    epochs = (folder / "metrics.jsonl").read_text()
    assert [trial.state.name for trial in trials(tmp_path)] == ["FAIL", "WAITING"]
    time.sleep(1.5)  # an epoch takes less
    assert (folder / "metrics.jsonl").read_text() == epochs  # training has stopped


def test_a_failed_trial_is_recorded_and_the_sweep_continues(tmp_path, capsys):
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


def test_an_unpromising_trial_is_pruned(tmp_path, capsys):
    """Four trials that were better from the first epoch, then a real one with --prune."""
    flags = write_sweep(tmp_path)
    sets = ["--set", "max_epochs=16", "--set", "nr_filters=2", "--set", "lr=0.00001"]
    file = fix_settings(read_sweep(flags[0]), sets[1::2])
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


def test_pruning_is_off_by_default():
    assert not script_module.parse(["x.yaml"]).prune and script_module.parse(["x.yaml", "--prune"]).prune


def test_machines_share_a_study(tmp_path):
    """Two sweeps of three trials on one database at the same time share the trials."""
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
    assert 3 <= len(complete) <= 4  # both may start the last one at the same moment
    assert len({tuple(trial.params.values()) for trial in complete}) == len(complete)
    counts = [output.count("] trial ") for output in outputs]
    assert sum(counts) == len(complete) and min(counts) >= 1


def test_errors_are_one_line(tmp_path, script):
    flags = write_sweep(tmp_path)
    (tmp_path / "bad.yaml").write_text("method: grid\nearly_terminate: {}\n")
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
        ([*flags, "--storage", "nonsense"], "write sqlite:///nonsense for this file"),
        (["--report", "none", "--save_dir", str(tmp_path)], "no study none"),
    ]
    for argv, words in cases:
        with pytest.raises(UserError, match=words) as error:
            script_module.main(argv)
        assert "\n" not in str(error.value), argv
    real = script("sweep.py", tmp_path / "bad.yaml")
    assert real.returncode == 2 and real.stderr.startswith("error: ") and len(real.stderr.splitlines()) == 1


def test_invalid_values_are_rejected_before_the_first_trial(tmp_path):
    flags = write_sweep(tmp_path, parameters={"fusion": {"values": ["early", "later"]}})
    with pytest.raises(UserError, match=r"later"):
        script_module.main(flags)
