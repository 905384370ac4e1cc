"""Runs that are cut off, on disks that are full and with numbers that are none."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import pcnn_train
import training.step
import training.trainer
from model import load_checkpoint
from training.settings import TrainSettings
from training.trainer import Trainer
from utils.arguments import run_script
from utils.errors import CheckpointError
from utils.signals import Interrupted, Interruption

ROOT = Path(__file__).resolve().parents[1]
RUN = (
    "--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --dropout 0.2 --precision fp32 --augment flip "
    "--fid_samples 0 --sample_batch_size 10 --lr 0.003 --lr_schedule cosine --warmup 5 --grad_clip 1 --device cpu"
).split()
SHORT = [*RUN, *"--max_epochs 3 --batch_size 128 --sampling_interval 2".split()]


def last(folder: Path) -> dict:
    return torch.load(folder / "last.pt", weights_only=True)


def reports(folder: Path) -> list[dict]:
    """metrics.jsonl without the times, which no run repeats."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    times = {"seconds", "images_per_second"}
    return [{key: value for key, value in json.loads(line).items() if key not in times} for line in lines]


def assert_same_tree(ours, theirs) -> None:
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            if key not in ("seconds", "images_per_second", "settings"):
                assert_same_tree(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same_tree(one, other)
    else:
        assert ours == theirs


def assert_same_run(folder: Path, undisturbed: Path) -> None:
    """Bit for bit: reports, weights, moving average, the optimiser's moments, best.pt and the pictures drawn."""
    assert reports(folder) == reports(undisturbed)
    assert_same_tree(last(folder), last(undisturbed))
    best, other = (load_checkpoint(path / "best.pt") for path in (folder, undisturbed))
    assert_same_tree(best.state_dict(), other.state_dict())
    drawn = sorted(file.name for file in (undisturbed / "samples").iterdir())
    assert sorted(file.name for file in (folder / "samples").iterdir()) == drawn
    for name in drawn:
        assert (folder / "samples" / name).read_bytes() == (undisturbed / "samples" / name).read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert pcnn_train.main([*SHORT, "--run_dir", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("steps", [1, 11, 18, 30])
def test_a_run_cut_after_any_step_ends_as_if_it_had_not_been(steps, undisturbed, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    step = Trainer.train_step

    def cut(self, *batch):
        result = step(self, *batch)
        if self.state.total_steps == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", cut)
        with pytest.raises(Interrupted) as stop:
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


def test_the_clock_saves_within_an_epoch(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(Trainer, "save_last", lambda self: steps.append(self.state.total_steps) or True)
    flags = [*SHORT, "--max_epochs", "1", "--save_minutes", "1e-9", "--run_dir", str(tmp_path / "run")]
    assert pcnn_train.main(flags) == 0
    assert set(range(12)) <= set(steps)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_at_random_moments(tmp_path):
    """20 SIGKILLs, 5 SIGTERMs and 2 SIGINTs, at random moments of real processes, each resumed."""
    flags = [*RUN, *"--max_epochs 10 --batch_size 32 --sampling_interval 3 --save_minutes 0.005".split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "pcnn_train.py")]
    whole = tmp_path / "whole"
    subprocess.run([*command, *flags, "--run_dir", whole], check=True, env=environment, capture_output=True)
    moments = random.Random(1)
    signals = [signal.SIGKILL] * 20 + [signal.SIGTERM] * 5 + [signal.SIGINT] * 2
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
    assert pcnn_train.main([*flags, "--seed", "5"]) == 0
    assert "starting a new run" in capsys.readouterr().out
    assert pcnn_train.main(flags) == 0
    assert "starting a new run" in capsys.readouterr().out
    (folder,) = (path.parent for path in tmp_path.glob("*/config.yaml") if "seed: 1\n" in path.read_text())
    assert pcnn_train.main([*flags, "--max_epochs", "2"]) == 0
    assert f"run folder: {folder}" in capsys.readouterr().out
    assert [report["epoch"] for report in reports(folder)] == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2


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


def test_mistakes_with_resume(undisturbed, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.yaml").write_text((undisturbed / "config.yaml").read_text())
    (damaged / "last.pt").write_bytes((undisturbed / "last.pt").read_bytes()[:5000])
    stripped = tmp_path / "stripped"
    stripped.mkdir()
    (stripped / "config.yaml").write_text((undisturbed / "config.yaml").read_text())
    (stripped / "last.pt").write_bytes((undisturbed / "best.pt").read_bytes())
    for flags, words in (
        (["--resume", str(tmp_path / "nowhere")], ["nowhere", "config.yaml"]),
        (["--resume", str(undisturbed), "--lr", "0.5"], ["--lr 0.5", "0.003"]),
        (["--resume", str(damaged)], ["last.pt", "damaged"]),
        (["--resume", str(stripped)], ["last.pt", "does not hold a run"]),
    ):
        with pytest.raises(SystemExit) as stop:
            run_script(lambda flags=flags: pcnn_train.main(flags))
        error = capsys.readouterr().err.strip()
        assert stop.value.code == 2 and len(error.splitlines()) == 1, error
        assert all(word in error for word in words), error


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(tmp_path, monkeypatch, capsys):
    """Everything that is written in the second epoch fails; the third is as it would have been."""
    folder = tmp_path / "run"
    train_epoch = Trainer.train_epoch

    def epoch(self):
        report = train_epoch(self)
        monkeypatch.setattr(torch, "save", full if self.state.epoch == 2 else save)
        monkeypatch.setattr(os, "replace", full if self.state.epoch == 2 else replace)
        return report

    save, replace = torch.save, os.replace
    monkeypatch.setattr(Trainer, "train_epoch", epoch)
    assert pcnn_train.main([*SHORT, "--save_interval", "1", "--run_dir", str(folder)]) == 0  # a grid is due in epoch 2
    errors = capsys.readouterr().err
    for name in ("last.pt", "metrics.jsonl", "curves.png", "epoch_0002.png"):
        assert f"warning: {name} was not written" in errors, name
    assert "No space left" in errors
    assert [file.name for file in (folder / "samples").iterdir()] == ["epoch_0003.png"]
    assert [report["epoch"] for report in reports(folder)] == [1, 2, 3]
    assert last(folder)["epoch"] == 3 and not list(folder.glob("*.partial"))


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_run_that_meets_a_limit_on_files_goes_on(undisturbed, tmp_path):
    """No file may grow beyond the limit: a real failure to write, in a real process."""
    import resource

    def train(folder: Path, limit: int, *flags: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "pcnn_train.py", *flags, *SHORT, "--run_dir", folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
        )

    first = torch.load(undisturbed / "best.pt", weights_only=True)
    assert first["epoch"] > 0
    sizes = {name: (undisturbed / name).stat().st_size for name in ("best.pt", "last.pt")}
    assert sizes["best.pt"] < sizes["last.pt"]  # which holds the optimiser too
    folder = tmp_path / "run"
    result = train(folder, (sizes["best.pt"] + sizes["last.pt"]) // 2)
    assert result.returncode == 0 and "last.pt was not written" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    load_checkpoint(folder / "best.pt")
    assert reports(folder) == reports(undisturbed)  # it trained on all the same
    assert not list(folder.glob("*.partial"))
    assert pcnn_train.main([*SHORT, "--run_dir", str(folder), "--resume", "auto"]) == 0
    assert_same_run(folder, undisturbed)

    nothing = train(tmp_path / "nothing", sizes["best.pt"] // 2)
    assert nothing.returncode == 2 and "Traceback" not in nothing.stderr, nothing.stderr
    assert nothing.stderr.strip().splitlines()[-1].startswith("error: no checkpoint could be written")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_checkpoint_on_a_full_disk_keeps_the_earlier_one(undisturbed, tmp_path, monkeypatch):
    from model import save_checkpoint

    path = tmp_path / "net.pt"
    path.write_bytes((undisturbed / "best.pt").read_bytes())
    (tmp_path / "net.pt.partial").symlink_to("/dev/full")
    net = load_checkpoint(path)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(path, net, image_size=(8, 8), class_names=net.class_names, dataset="digits")
    assert_same_tree(load_checkpoint(path).state_dict(), net.state_dict())


def poison(monkeypatch, steps: set[int], value: float) -> None:
    """Make the log-likelihood of these steps ``value``."""
    step = Trainer.train_step

    def poisoned(self, *batch):
        log_likelihood = self.step.log_likelihood
        if self.state.total_steps in steps:
            self.step.log_likelihood = lambda *arguments: log_likelihood(*arguments) * value
        try:
            return step(self, *batch)
        finally:
            self.step.log_likelihood = log_likelihood

    monkeypatch.setattr(Trainer, "train_step", poisoned)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_no_number_is_skipped_and_counted(value, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {3, 4, 7}, value)
    folder = tmp_path / "run"
    assert pcnn_train.main([*SHORT, "--max_epochs", "1", "--run_dir", str(folder)]) == 0
    (report,) = reports(folder)
    assert report["skipped_steps"] == 3 and 0 < report["train_bpd"] < 10
    assert "3 steps skipped" in capsys.readouterr().out
    assert all(weight.isfinite().all() for weight in last(folder)["weights"].values())


def test_a_skipped_step_leaves_weights_and_moments_alone(tmp_path, monkeypatch):
    trainer = Trainer(TrainSettings(dataset="digits", nr_resnet=1, nr_filters=8, run_dir=str(tmp_path / "run")))
    batch = next(trainer.batches.epoch(1))
    trainer.net.train()
    trainer.train_step(*batch)
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    moments = [state["exp_avg"].clone() for state in trainer.step.optimizer.state.values()]
    poison(monkeypatch, {1}, float("nan"))
    trainer.train_step(*batch)
    assert_same_tree(dict(trainer.net.state_dict()), before)
    assert_same_tree([state["exp_avg"] for state in trainer.step.optimizer.state.values()], moments)
    assert trainer.step.sums[0] == 1


def test_many_steps_in_a_row_that_are_no_numbers_stop_the_run(tmp_path, monkeypatch, capsys):
    poison(monkeypatch, set(range(4, 100)), float("nan"))
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: pcnn_train.main([*SHORT, "--run_dir", str(tmp_path / "run")]))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and error.startswith("error: ") and "--lr" in error and "in a row" in error


def test_gradients_are_clipped(tmp_path):
    """With a tiny norm allowed, plain gradient descent would hardly move; Adam's moments tell."""
    moments = {}
    for clip in (0.0, 1e-3):
        settings = TrainSettings(dataset="digits", nr_resnet=1, nr_filters=8, grad_clip=clip, precision="fp32")
        trainer = Trainer(
            TrainSettings(**{**vars(settings), "run_dir": str(tmp_path / f"run{clip}"), "compile": False})
        )
        trainer.net.train()
        trainer.train_step(*next(trainer.batches.epoch(1)))
        squares = sum(state["exp_avg"].square().sum() for state in trainer.step.optimizer.state.values())
        moments[clip] = squares.sqrt() / 0.05  # the first moment is (1 - 0.95) x gradient
    assert moments[1e-3] == pytest.approx(1e-3, rel=1e-3) and moments[0.0] > 1e-2


def test_too_large_a_batch_names_the_flag_to_lower(tmp_path, monkeypatch, capsys):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(training.step, "log_likelihood", no_memory)
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: pcnn_train.main([*SHORT, "--run_dir", str(tmp_path / "run")]))
    assert stop.value.code == 2 and "--batch_size" in capsys.readouterr().err
