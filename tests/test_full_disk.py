"""Runs on disks that are full."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import classify
import pcnn_train
from model import load_checkpoint
from tests.runs import SHORT, assert_same_run, assert_same_tree, last, reports
from training.trainer import Trainer
from utils.errors import CheckpointError, UserError

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_classification_that_meets_a_limit_on_files_is_one_line_and_can_be_resumed(undisturbed, tmp_path):
    import resource

    (tmp_path / "photos").mkdir()
    for number in range(40):
        Image.effect_noise((8, 8), 40 + number).save(tmp_path / "photos" / f"{number:02d}.png")
    (tmp_path / "photos" / "gone.png").symlink_to("nowhere")
    out, resumed = tmp_path / "out.csv", tmp_path / "resumed.csv"
    flags = ["--checkpoint", str(undisturbed / "best.pt"), str(tmp_path / "photos"), "--batch_size", "4", "--out"]
    assert classify.main([*flags, str(out)]) == 1

    def limited(limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    for limit in (3000, 100, 1):  # in a row; in the header; in the file beside it
        command = [sys.executable, str(ROOT / "classify.py"), *flags, str(resumed)]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda limit=limit: limited(limit))
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"error: {resumed}.partial cannot be written (File too large)")
        if limit == 3000:
            assert (tmp_path / "resumed.csv.partial").stat().st_size == limit
            assert classify.main([*flags, str(resumed), "--resume"]) == 1
            assert resumed.read_bytes() == out.read_bytes()
            resumed.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "photos"]


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


def test_a_resumed_run_that_can_write_no_checkpoint_says_so(undisturbed, tmp_path, monkeypatch):
    """There is a best.pt of before, but last.pt is of the start."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "last.pt").unlink()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="no checkpoint could be written"):
        pcnn_train.main(["--resume", str(folder)])
