"""Runs with numbers that are none, with gradients that are too large and with batches that are."""

import pytest
import torch

import pcnn_train
import training.step
from tests.runs import SHORT, assert_same_tree, last, reports
from training.settings import TrainSettings
from training.trainer import Trainer
from utils.script import run_script


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
