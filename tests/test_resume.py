"""Runs that are cut off and resumed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import pcnn_train
import training.trainer
from model import load_checkpoint
from tests.runs import RUN, SHORT, assert_same_run, last, reports, stopped_after_step
from training.resume import find_run
from training.settings import TrainSettings
from training.trainer import Trainer
from utils.arguments import parse_settings
from utils.errors import UserError
from utils.script import run_script
from utils.signals import Interrupted, Interruption

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("steps", [1, 11, 18, 30])
def test_a_run_cut_after_any_step_ends_as_if_it_had_not_been(steps, undisturbed, tmp_path):
    folder = tmp_path / "run"
    with stopped_after_step(steps), pytest.raises(Interrupted) as stop:
        pcnn_train.main([*SHORT, "--run_dir", str(folder)])
    assert stop.value.signum == signal.SIGTERM and f"--resume {folder}" in str(stop.value)
    assert last(folder)["step"] == steps  # the step was finished, and no other begun
    assert pcnn_train.main(["--resume", str(folder)]) == 0
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize("where", ["evaluate", "labelled_grid"])
def test_a_run_cut_while_it_evaluates_or_draws(where, undisturbed, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def cut(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        raise AssertionError("a signal stops this at once")

    with monkeypatch.context() as patch:
        patch.setattr(training.trainer, where, cut)
        with pytest.raises(Interrupted):
            pcnn_train.main([*SHORT, "--run_dir", str(folder)])
    assert pcnn_train.main(["--resume", str(folder)]) == 0
    assert_same_run(folder, undisturbed)


def test_the_second_ctrl_c_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_closed_terminal_interrupts_unless_it_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        for ignored in (False, True):
            signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
            with Interruption() as interruption:
                os.kill(os.getpid(), signal.SIGHUP)
                assert interruption.signum == (None if ignored else signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_clock_saves_within_an_epoch(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(Trainer, "save_last", lambda self: steps.append(self.state.total_steps) or True)
    flags = [*SHORT, "--max_epochs", "1", "--save_minutes", "1e-9", "--run_dir", str(tmp_path / "run")]
    assert pcnn_train.main(flags) == 0
    assert set(range(12)) <= set(steps)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments(tmp_path):
    """Eight SIGKILLs, three SIGTERMs and a SIGINT, at random moments of real processes, each resumed."""
    flags = [*RUN, *"--max_epochs 6 --batch_size 32 --sampling_interval 3 --save_minutes 0.005".split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "pcnn_train.py")]
    whole = tmp_path / "whole"
    subprocess.run([*command, *flags, "--run_dir", whole], check=True, env=environment, capture_output=True)
    moments = random.Random(1)
    signals = [signal.SIGKILL] * 8 + [signal.SIGTERM] * 3 + [signal.SIGINT]
    moments.shuffle(signals)
    finished: list[Path] = []
    folder = tmp_path / "run0"
    cuts = 0
    while cuts < len(signals) or folder.exists():
        again = ["--resume", folder] if (folder / "config.yaml").exists() else [*flags, "--run_dir", folder]
        process = subprocess.Popen(
            [*command, *again], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        told = threading.Event()
        if cuts < len(signals):
            if moments.random() < 0.8:  # else perhaps before it has begun
                threading.Thread(target=lambda p=process, t=told: p.stdout.readline() and t.set()).start()
                told.wait(60)
            time.sleep(moments.uniform(0, 2.5))
            process.send_signal(signals[cuts])
        output, errors = process.communicate(timeout=300)
        if process.returncode == 0:
            finished.append(folder)
            folder = tmp_path / f"run{len(finished)}"
            if cuts == len(signals):
                break
            continue
        assert cuts < len(signals), (output, errors)
        killed = {-signals[cuts], 128 + signals[cuts]}
        assert process.returncode in killed, (process.returncode, signals[cuts], output, errors)
        cuts += 1
        if (folder / "last.pt").exists():
            load_checkpoint(folder / "last.pt")  # a loadable checkpoint, at any moment
    assert cuts == len(signals) and finished
    for folder in finished:
        assert_same_run(folder, whole)


def test_resume_auto_finds_the_newest_run_of_the_configuration(tmp_path, capsys):
    flags = [*SHORT, "--max_epochs", "1", "--sampling_interval", "0", "--save_dir", str(tmp_path), "--resume", "auto"]
    assert pcnn_train.main([*flags[:-2], "--resume=auto", "--seed", "5"]) == 0
    assert "starting a new run" in capsys.readouterr().out
    assert pcnn_train.main(flags) == 0
    assert "starting a new run" in capsys.readouterr().out
    (folder,) = (path.parent for path in tmp_path.glob("*/config.yaml") if "seed: 1\n" in path.read_text())
    assert pcnn_train.main([*flags, "--max_epochs", "2"]) == 0
    assert f"run folder: {folder}" in capsys.readouterr().out
    assert [report["epoch"] for report in reports(folder)] == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_resume_auto_says_which_runs_it_cannot_read(tmp_path, capsys):
    for name in ("old", "damaged"):
        (tmp_path / name).mkdir()
    (tmp_path / "old" / "config.yaml").write_text("lr: 0.1\nnr_heads: 3\n")
    settings = parse_settings(TrainSettings, "", ["--resume=auto", f"--save_dir={tmp_path}"])
    assert find_run(settings, [])[1] is None
    line = f"skipped in the search for a run to resume: {tmp_path}/old/config.yaml does not hold the settings of a run"
    assert capsys.readouterr().err.startswith(line)
    (tmp_path / "damaged" / "config.yaml").write_text("\0")
    find_run(settings, [])
    (error,) = capsys.readouterr().err.splitlines()
    assert error.endswith("(and 1 more)")


@pytest.mark.parametrize("left", [[], ["samples/"], ["samples/", "config.yaml.partial"], ["samples/", "config.yaml"]])
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(left, undisturbed, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes((undisturbed / "config.yaml").read_bytes())
    assert pcnn_train.main([*SHORT, "--run_dir", str(folder), "--resume", "auto"]) == 0
    assert_same_run(folder, undisturbed)
    assert not list(folder.glob("*.partial"))


def test_a_checkpoint_on_a_disk_that_is_not_mounted_is_no_new_run(undisturbed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "last.pt").unlink()
    (folder / "last.pt").symlink_to(tmp_path / "disk" / "last.pt")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for flags in (["--resume", str(folder)], [*SHORT, "--run_dir", str(folder), "--resume", "auto"]):
        with pytest.raises(UserError, match=r"no checkpoint at .*last\.pt"):
            pcnn_train.main(flags)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_signal_while_the_confusion_matrix_is_drawn(undisturbed, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def cut(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training.trainer, "plot_confusion_matrix", cut)
        with pytest.raises(Interrupted):
            pcnn_train.main([*SHORT, "--run_dir", str(folder)])
    assert (folder / "best.pt").exists() and not (folder / "confusion.png").exists()
    assert pcnn_train.main(["--resume", str(folder), "--max_epochs", "1"]) == 0
    assert (folder / "confusion.png").exists()  # of the first epoch, which best.pt is of


def test_resume_of_a_finished_run_changes_nothing(undisturbed):
    before = reports(undisturbed)
    assert pcnn_train.main(["--resume", str(undisturbed)]) == 0
    assert reports(undisturbed) == before


def test_more_epochs_of_a_cosine_are_said(undisturbed, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    assert pcnn_train.main(["--resume", str(folder), "--max_epochs", "4"]) == 0
    said = "now ends after 44 steps, 4 epochs: here the learning rate changes from 0.00e+00 to 4.39e-04"
    assert said in capsys.readouterr().err


def test_mistakes_with_resume(undisturbed, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.yaml").write_text((undisturbed / "config.yaml").read_text())
    (damaged / "last.pt").write_bytes((undisturbed / "last.pt").read_bytes()[:5000])
    stripped = tmp_path / "stripped"
    stripped.mkdir()
    (stripped / "config.yaml").write_text((undisturbed / "config.yaml").read_text())
    (stripped / "last.pt").write_bytes((undisturbed / "best.pt").read_bytes())
    early = tmp_path / "early"  # interrupted in its second epoch, before any evaluation
    early.mkdir()
    (early / "config.yaml").write_text((undisturbed / "config.yaml").read_text())
    state = last(undisturbed)
    torch.save(state | {"best": None, "progress": state["progress"] | {"epoch": 2}}, early / "last.pt")
    typed = tmp_path / "typed"  # made by hand
    typed.mkdir()
    (typed / "config.yaml").write_text((undisturbed / "config.yaml").read_text())
    torch.save(state | {"progress": state["progress"] | {"epoch": "2"}}, typed / "last.pt")
    for flags, words in (
        (["--resume", str(tmp_path / "nowhere")], ["nowhere", "config.yaml"]),
        (["--resume", str(early), "--max_epochs", "1"], ["--max_epochs 1", "is in epoch 2", "give at least 2"]),
        (["--resume", str(undisturbed), "--lr", "0.5"], ["--lr 0.5", "0.003"]),
        (["--resume", str(damaged)], ["last.pt", "damaged"]),
        (["--resume", str(stripped)], ["last.pt", "does not hold a run"]),
        (["--resume", str(typed)], ["last.pt", "does not hold a run", "epoch is '2', not a whole number from 1 on"]),
    ):
        with pytest.raises(SystemExit) as stop:
            run_script(lambda flags=flags: pcnn_train.main(flags))
        error = capsys.readouterr().err.strip()
        assert stop.value.code == 2 and len(error.splitlines()) == 1, error
        assert all(word in error for word in words), error
