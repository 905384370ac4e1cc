"""Short runs and how two are compared; a plugin of conftest.py for the fixture and for pytest's own asserts."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch

from evaluation.scoring import Scorer
from model import load_checkpoint
from training.trainer import Trainer

RUN = (
    "--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --dropout 0.2 --precision fp32 --augment flip "
    "--fid_samples 0 --metric_samples 0 --sample_batch_size 10 --lr 0.003 --lr_schedule cosine --warmup 5 "
    "--grad_clip 1 --device cpu"
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


@contextmanager
def stopped_after_step(steps: int) -> Iterator[None]:
    """Inside, a run gets SIGTERM as soon as it has made ``steps`` steps in all."""
    step = Trainer.train_step

    def cut(self, *batch):
        result = step(self, *batch)
        if self.state.total_steps == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    with mock.patch.object(Trainer, "train_step", cut):
        yield


@contextmanager
def interrupted_after_batches(count: int) -> Iterator[None]:
    """Inside, Ctrl-C comes when ``count`` batches have been scored."""
    score, seen = Scorer.__call__, []

    def cut(self, images):
        if len(seen) == count:
            raise KeyboardInterrupt
        seen.append(images)
        return score(self, images)

    with mock.patch.object(Scorer, "__call__", cut):
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    import pcnn_train

    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert pcnn_train.main([*SHORT, "--run_dir", str(folder)]) == 0
    return folder
