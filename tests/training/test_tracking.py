"""W&B tracking: the real client against a real server on loopback, offline, and with a client that fails."""

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from training.settings import TrainSettings
from training.tracking import Tracker, WandbTracker, report_failed_trial, start_tracker

DIGITS = "--dataset digits --nr_resnet 1 --nr_filters 4 --nr_logistic_mix 1 --batch_size 256 --dropout 0".split()
DIGITS += ["--metric_samples", "0"]
SHORT = [*DIGITS, *"--max_epochs 2 --sample_batch_size 10 --lr 0.01 --ema 0.5".split()]


def reports_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_arrives_at_the_server_and_goes_on_when_resumed(openwandb, wandb_env, tmp_path):
    run = tmp_path / "run"
    flags = "--en_wandb True --log_model true --wandb_project digits --wandb_name first --wandb_tags quick small"
    code = """
import sys, torch
from pathlib import Path
import pcnn_train
from training.settings import TrainSettings
from training.tracking import start_tracker
pcnn_train.main(sys.argv[1:])
settings = TrainSettings(en_wandb=True, nr_filters=4, wandb_name="first", wandb_tags=["quick", "small"])
with start_tracker(settings, Path(sys.argv[-1]), torch.device("cpu")) as tracker:
    tracker.report({"epoch": 2, "accuracy": 0.0, "train_bpd": 7.5})  # the epoch again, after a crash
"""
    env = wandb_env | openwandb.env | {"WANDB_RUN_GROUP": "mine"}
    command = [sys.executable, "-c", code, *SHORT, *flags.split(), "--run_dir", str(run)]
    result = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0 and "W&B:" not in result.stderr, result.stderr
    saved = json.loads((run / "wandb_run.json").read_text())
    query = "select distinct step from metrics where run_id = ? and key not like 'system%' order by id"
    steps = [step for (step,) in openwandb.rows(query, saved["id"])]
    ((run_id, name, state, config, summary, tags),) = openwandb.rows(
        "select run_id, display_name, state, config_json, summary_json, tags_json from runs r, projects p"
        " where p.name = 'digits' and r.project_id = p.id"
    )
    assert saved == {"id": run_id, "project": "digits", "entity": "default", "step": len(steps)}
    assert steps == [*range(len(steps))]  # on from the first part: they do not collide
    assert (name, state, json.loads(tags)) == ("first", "finished", ["quick", "small"])

    config = {key: entry["value"] for key, entry in json.loads(config).items()}
    assert asdict(TrainSettings()).keys() <= config.keys() and config["nr_filters"] == 4
    assert config["environment"]["torch"] == torch.__version__ and config["environment"]["run_folder"] == str(run)
    assert config["environment"]["code"] is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", config["environment"]["code"])

    reports = reports_of(run)
    again = {"accuracy": [0.0], "train_bpd": [7.5]}
    for key in ("accuracy", "train_bpd", "val_bpd", "lr", "images_per_second"):
        rows = openwandb.rows("select value from metrics where run_id = ? and key = ? order by id", run_id, key)
        assert [value for (value,) in rows] == [report[key] for report in reports] + again.get(key, []), key
    epochs = openwandb.rows("select distinct value from metrics where run_id = ? and key = 'epoch'", run_id)
    assert epochs == [(1,), (2,)]
    summary = json.loads(summary)
    assert summary["best_accuracy"] == summary["accuracy"] == max(report["accuracy"] for report in reports)
    assert summary["best_val_bpd"] == min(report["val_bpd"] for report in reports)

    media = openwandb.folder / "files" / "default" / "digits" / run_id / "media" / "images"
    (samples,) = media.glob("samples_*.png")
    assert samples.read_bytes() == (run / "samples" / "epoch_0002.png").read_bytes()
    assert (run / "confusion.png").read_bytes() in [file.read_bytes() for file in media.glob("confusion_*.png")]
    artifacts = openwandb.rows("select artifact_type, metadata_json from artifacts where run_id = ?", run_id)
    assert artifacts[0][0] == "model" and json.loads(artifacts[0][1])["accuracy"] == summary["accuracy"]


def test_offline_in_parts_then_synced(openwandb, wandb_env, tmp_path):
    """The line that says how to sync it later is true of all parts; nothing of the run is kept at home until then."""
    run = tmp_path / "run 1"
    code = """
import sys
import pcnn_train
from training.trainer import Trainer
evaluate = Trainer.evaluate
def cut(self, epoch):
    if epoch == 1:
        return evaluate(self, epoch)
    Trainer.evaluate = evaluate
    raise KeyboardInterrupt
Trainer.evaluate = cut
try:
    pcnn_train.main([*sys.argv[2:], "--run_dir", sys.argv[1]])
except KeyboardInterrupt:
    pcnn_train.main(["--resume", sys.argv[1]])
"""
    flags = [*SHORT, *"--sampling_interval 0 --en_wandb true --log_model true --wandb_tags small".split(), 70 * "x"]
    command = [sys.executable, "-c", code, str(run), *flags]
    env = wandb_env | {"WANDB_MODE": "offline", "WANDB_API_KEY": openwandb.KEY}
    env = {name: value for name, value in env.items() if name not in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")}
    result = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("W&B:")]
    assert "offline (WANDB_MODE is set)" in lines[1] and "cannot start" not in result.stderr
    assert lines[0].startswith(f"W&B: tags {40 * 'x'} is left out") and "between 1 and 64 characters" in lines[0]
    assert len(list((run / "wandb").glob("offline-run-*"))) == 2
    assert list((run / "wandb" / "data" / "artifacts" / "staging").iterdir())
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]

    command = shlex.split(lines[-1].split("in order: ")[1])
    assert command == ["wandb", "sync", str(run / "wandb")]
    command = [sys.executable, "-m", *command]
    result = subprocess.run(command, env=wandb_env | openwandb.env, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr
    run_id = json.loads((run / "wandb_run.json").read_text())["id"]
    ((summary, state, tags),) = openwandb.rows(
        "select summary_json, state, tags_json from runs where run_id = ?", run_id
    )
    assert json.loads(summary)["val_bpd"] == reports_of(run)[-1]["val_bpd"]
    assert (state, json.loads(tags), json.loads(summary)["failure"]) == ("finished", ["small"], "")
    rows = openwandb.rows("select step, value from metrics where run_id = ? and key = 'epoch' order by id", run_id)
    assert [step for step, _ in rows] == [*range(len(rows))] and {epoch for _, epoch in rows} == {1, 2}
    (project,) = openwandb.rows(
        "select p.name from projects p, runs r where p.id = r.project_id and run_id = ?", run_id
    )
    assert project == ("conditional-pixelcnn",)


def test_no_key_asks_nothing_even_on_a_terminal(script, wandb_env, tmp_path):
    master, slave = pty.openpty()
    run = tmp_path / "run"
    flags = [*SHORT, "--max_epochs", "1", "--sampling_interval", "0", "--en_wandb", "True", "--run_dir", run]
    try:
        result = script("pcnn_train.py", *flags, env=wandb_env | {"WANDB_SILENT": "true"}, stdin=slave, stderr=slave)
        written = os.read(master, 1 << 20).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert result.returncode == 0, written
    (line,) = re.findall(r"W&B: [^\r\n]*", written)
    assert "no API key" in line and line.endswith(f"wandb sync {run}/wandb")
    names = {path.name for path in run.iterdir()}
    assert {"best.pt", "last.pt", "metrics.jsonl", "curves.png", "confusion.png", "config.yaml", "samples"} <= names
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert not list((tmp_path / "home").glob("*"))  # nothing was written at home


def test_a_server_that_goes_away_costs_nothing(start_openwandb, wandb_env, tmp_path):
    code = f"""
import os, signal, sys, torch
from pathlib import Path
from training.settings import TrainSettings
from training.tracking import start_tracker
with start_tracker(TrainSettings(en_wandb=True), Path({str(tmp_path)!r}), torch.device("cpu")) as tracker:
    os.kill(int(sys.argv[1]), signal.SIGKILL)
    tracker.report({{"epoch": 1, "accuracy": 0.5}})
print("went on")
"""
    with start_openwandb() as server:
        env = wandb_env | server.env | {"WANDB_FINISH_TIMEOUT": "2"}
        command = [sys.executable, "-c", code, str(server.process.pid)]
        result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0 and "went on" in result.stdout, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("W&B:")]
    assert "did not take everything" in line
    command = shlex.split(line.split("later: ")[1])
    assert command[:2] == ["wandb", "sync"] and command[-1].startswith(f"{tmp_path}/wandb/run-")
    with start_openwandb() as server:
        command = [sys.executable, "-m", *command]
        result = subprocess.run(command, env=wandb_env | server.env, capture_output=True, text=True, timeout=400)
        assert result.returncode == 0, result.stderr
        assert server.rows("select value from metrics where key = 'accuracy'") == [(0.5,)]


def test_an_unreachable_server_means_offline(wandb_env, tmp_path):
    code = f"""
import torch
from pathlib import Path
from training.settings import TrainSettings
from training.tracking import start_tracker
with start_tracker(TrainSettings(en_wandb=True), Path({str(tmp_path)!r}), torch.device("cpu")) as tracker:
    tracker.report({{"epoch": 1, "accuracy": 0.5}})
"""
    env = wandb_env | {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": 40 * "0", "WANDB_HTTP_TIMEOUT": "2"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("W&B:")]
    assert "offline" in line and "127.0.0.1:9" in line and line.endswith(f"wandb sync {tmp_path}/wandb")


def test_wandb_is_imported_only_when_asked_for(tmp_path):
    code = f"""
import sys, pcnn_train
assert pcnn_train.main({[*SHORT, "--max_epochs", "1", "--run_dir", str(tmp_path / "run")]!r}) == 0
print("wandb" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400)
    assert result.returncode == 0 and result.stdout.endswith("False\n"), result.stderr
    assert (tmp_path / "run" / "confusion.png").exists() and not (tmp_path / "run" / "wandb").exists()


class Run:
    """Stands for a wandb run; it notes what it is told, and raises where ``broken``."""

    id, project, entity, offline, starting_step = "abc123", "p", "", False, 0
    dir = "folder/wandb/run-x/files"

    def __init__(self, broken=False):
        self.broken, self.summary, self.logged, self.exit_code = broken, {}, [], None

    def define_metric(self, *_, **__):
        pass

    def log(self, values, step, commit):
        if self.broken:
            raise ConnectionResetError("the service\nis gone")
        assert commit and step == len(self.logged)
        self.logged.append(values)

    def finish(self, exit_code):
        if self.broken:
            raise RuntimeError("still gone")
        self.exit_code = exit_code


@pytest.fixture
def fake(monkeypatch):
    def make(**options):
        run = Run(**options)
        monkeypatch.setattr("training.tracking.open_run", lambda _: run)
        return run

    return make


def test_a_failing_client_is_told_once_and_costs_nothing(fake, tmp_path, capsys):
    fake(broken=True)
    with WandbTracker(tmp_path, {}) as tracker:
        for epoch in (1, 2, 3):
            tracker.report({"epoch": epoch, "accuracy": 0.5})
    assert capsys.readouterr().err == (
        "W&B: report failed (ConnectionResetError: the service is gone); training continues, W&B may lack some of it\n"
    )


def test_a_client_that_cannot_start_costs_nothing(monkeypatch, tmp_path, capsys):
    def refuse(_):
        raise OSError("disk full")

    monkeypatch.setattr("training.tracking.open_run", refuse)
    with start_tracker(TrainSettings(en_wandb=True), tmp_path, torch.device("cpu")) as tracker:
        tracker.report({"epoch": 1})
        tracker.image("samples", tmp_path / "none.png", 1)
    assert capsys.readouterr().err == "W&B: cannot start (OSError: disk full); training continues without it\n"


def test_summary_keeps_the_best(fake, tmp_path):
    run = fake()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "val_bpd": 3.0, "accuracy": 0.7, "fid": null}\n')
    with WandbTracker(tmp_path, {}) as tracker:
        tracker.report({"epoch": 2, "val_bpd": 2.5, "accuracy": 0.6, "f1": 0.5, "fid": 30.0})
        tracker.report({"epoch": 3, "train_bpd": 2.4})
        tracker.report({"epoch": 4, "val_bpd": float("nan"), "accuracy": 0.65, "f1": 0.4, "fid": 40.0})
    best = {"accuracy": 0.7, "best_accuracy": 0.7, "best_val_bpd": 2.5, "best_fid": 30.0, "f1": 0.5, "best_f1": 0.5}
    assert run.summary == best and run.exit_code == 0
    assert [values["epoch"] for values in run.logged] == [2, 3, 4] and run.logged[0]["accuracy"] == 0.6


def test_summary_has_the_figures_of_the_validation_images(fake, tmp_path):
    run = fake()
    with WandbTracker(tmp_path, {}) as tracker:
        tracker.report({"epoch": 1, "accuracy": 0.9})
        tracker.report({"epoch": 2, "accuracy": 0.8, "validation_accuracy": 0.7, "validation_images": 360})
    best = {"accuracy": 0.9, "best_accuracy": 0.9}
    assert run.summary == {**best, "validation_accuracy": 0.7, "validation_images": 360}
    assert run.logged[1]["validation_accuracy"] == 0.7


def test_a_folder_that_cannot_be_written_costs_no_number(fake, tmp_path, capsys):
    run = fake()
    folder = tmp_path / "run"
    folder.mkdir()
    with WandbTracker(folder, {}) as tracker:
        shutil.rmtree(folder)
        tracker.report({"epoch": 1, "accuracy": 0.5})
    assert run.logged and run.summary["best_accuracy"] == 0.5 and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "OutOfMemoryError: CUDA out of memory. Tried"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_a_failure_ends_the_run_with_its_reason(fake, tmp_path, error, reason):
    run = fake()
    with pytest.raises(type(error)), WandbTracker(tmp_path, {}):
        raise error
    assert run.exit_code == 1 and run.summary["failure"] == reason


def test_a_loss_that_is_no_number_ends_the_run(fake, tmp_path):
    import pcnn_train
    from utils.errors import UserError

    run = fake()
    with pytest.raises(UserError, match="non-finite in 5 steps in a row; lower --lr"):
        pcnn_train.main(
            [*DIGITS, "--lr", "1e30", "--max_epochs", "2", "--en_wandb", "true", "--run_dir", str(tmp_path / "r")]
        )
    assert run.exit_code == 1 and "non-finite" in run.summary["failure"]
    assert all(values["epoch"] == 1 for values in run.logged)


@pytest.mark.parametrize("inside", [True, False])
def test_a_start_that_fails_is_reported_inside_a_sweep_alone(fake, monkeypatch, inside):
    run = fake()
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1") if inside else monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    with pytest.raises(ValueError), report_failed_trial():
        raise ValueError("no such thing")
    assert (run.exit_code, run.summary.get("failure")) == ((1, "ValueError: no such thing") if inside else (None, None))


def test_null_tracker_takes_everything(tmp_path):
    with start_tracker(TrainSettings(), tmp_path, torch.device("cpu")) as tracker:
        assert type(tracker) is Tracker
        tracker.report({"epoch": 1})
        tracker.image("samples", tmp_path / "none.png", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"id": "x"}', '{"id": "x", "project": "p", "entity": "", "step": "1"}']
)
def test_a_damaged_file_of_the_run_starts_a_new_one(content, monkeypatch, tmp_path, capsys):
    options = {}
    monkeypatch.setattr("training.tracking.WandbTracker", lambda folder, given, *_: options.update(given))
    settings = TrainSettings(en_wandb=True, wandb_project="mine")
    (tmp_path / "wandb_run.json").write_text(content)
    start_tracker(settings, tmp_path, torch.device("cpu"))
    assert "id" not in options and options["project"] == "mine"
    assert "W&B: wandb_run.json cannot be read" in capsys.readouterr().err
    (tmp_path / "wandb_run.json").write_text('{"id": "x", "project": "theirs", "entity": null}')
    start_tracker(settings, tmp_path, torch.device("cpu"))
    assert (options["id"], options["project"], options["resume"]) == ("x", "theirs", "allow")
