"""Runs whose epoch is chosen on held-out training images, and their evaluation on the validation images at the end."""

import json
import os
import shutil
import signal
import time

import pytest
import torch

import pcnn_train
import training.final_evaluation
from data import load_split
from data.splits import hold_out
from evaluation.evaluate import evaluate
from model import load_checkpoint
from tests.runs import SHORT, assert_same_run, last, reports, stopped_after_step
from training.settings import TrainSettings
from training.trainer import Trainer
from utils.errors import UserError
from utils.signals import Interrupted

HOLDOUT = [*SHORT, "--select_on", "holdout"]
SCORES = ("accuracy", "balanced_accuracy", "f1", "bpd")


def validation_of(report: dict) -> dict:
    return {key: value for key, value in report.items() if key.startswith("validation_")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is not interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        assert pcnn_train.main([*HOLDOUT, "--run_dir", str(folder)]) == 0
    return folder, printed


def test_epochs_are_chosen_on_held_out_images_and_the_validation_images_evaluated_at_the_end(whole):
    folder, printed = whole
    net = load_checkpoint(folder / "best.pt")
    held, validation = hold_out(load_split("digits", "train"))[1], load_split("digits", "validation")
    on_held, on_validation = evaluate(net, held), evaluate(net, validation)
    best = reports(folder)[net.metadata["epoch"] - 1]
    assert best["accuracy"] == max(report["accuracy"] for report in reports(folder)) == on_held.accuracy
    assert best["val_bpd"] == pytest.approx(on_held.bpd, abs=1e-5)
    measured = {"bpd": best["val_bpd"], **{name: best[name] for name in SCORES[:3]}}
    assert net.metadata["validation"] == {**measured, "split": "holdout", "images": 142}
    *others, final = reports(folder)
    assert not any(validation_of(report) for report in others) and final["validation_images"] == 360
    for name in SCORES:
        assert final[f"validation_{name}"] == pytest.approx(getattr(on_validation, name), abs=1e-6)
    assert printed[0].startswith("digits: 1295 training, 142 held-out and 360 validation images of 8x8, 10 classes")
    assert any(line.startswith(f"best held-out accuracy {on_held.accuracy:.4f} (at") for line in printed)
    (line,) = (line for line in printed if line.startswith("best.pt on the validation images: "))
    assert f"accuracy {on_validation.accuracy:.4f} (95 % interval 0." in line and "n = 360)" in line
    assert f"{on_validation.bpd:.3f} bits/dim" in line


def test_training_never_sees_a_held_out_image(tmp_path):
    train = load_split("digits", "train")
    rest, held = hold_out(train)
    trainer = Trainer(TrainSettings("digits", nr_resnet=1, nr_filters=2, nr_logistic_mix=1, select_on="holdout"))
    assert torch.equal(trainer.batches.images.cpu(), rest.images) and torch.equal(trainer.selection.images, held.images)
    assert len({image.numpy().tobytes() for image in train.images}) == len(train)  # so that pixels name an image
    kept = {image.numpy().tobytes() for image in held.images}
    seen = {image.numpy().tobytes() for images, _ in trainer.batches.epoch(1) for image in images.cpu()}
    assert len(seen) > 1200 and not seen & kept


def test_the_default_is_the_published_protocol(undisturbed):
    assert not any(validation_of(report) for report in reports(undisturbed))
    best = load_checkpoint(undisturbed / "best.pt").metadata
    assert best["settings"]["select_on"] == "validation"
    assert (best["validation"]["split"], best["validation"]["images"]) == ("validation", 360)


@pytest.mark.parametrize("steps", [4, 10, 25])
def test_a_run_cut_after_any_step_ends_as_if_it_had_not_been(steps, whole, tmp_path):
    folder = tmp_path / "run"
    with stopped_after_step(steps), pytest.raises(Interrupted):
        pcnn_train.main([*HOLDOUT, "--run_dir", str(folder)])
    assert last(folder)["step"] == steps and pcnn_train.main(["--resume", str(folder)]) == 0
    assert_same_run(folder, whole[0])


def test_a_run_cut_in_its_final_evaluation_repeats_it(whole, tmp_path, monkeypatch):
    def cut(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        raise AssertionError("a signal stops this at once")

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(training.final_evaluation, "evaluate", cut)
        with pytest.raises(Interrupted):
            pcnn_train.main([*HOLDOUT, "--run_dir", str(folder)])
    assert len(reports(folder)) == 2  # the last epoch is not over
    assert pcnn_train.main(["--resume", str(folder)]) == 0
    assert_same_run(folder, whole[0])


def copied(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def test_more_epochs_move_the_figures_to_the_new_last_one(whole, tmp_path):
    folder = copied(whole, tmp_path)
    assert pcnn_train.main(["--resume", str(folder), "--max_epochs", "4"]) == 0
    assert [bool(validation_of(report)) for report in reports(folder)] == [False, False, False, True]


def test_a_run_that_is_resumed_with_fewer_epochs_is_evaluated(whole, tmp_path, capsys):
    folder = copied(whole, tmp_path)
    assert pcnn_train.main(["--resume", str(folder), "--max_epochs", "2"]) == 0
    *_, final = reports(folder)
    assert final["epoch"] == 2 and validation_of(final) == validation_of(reports(whole[0])[-1])
    assert "best.pt on the validation images: " in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["gone", "damaged", "another network"])
def test_a_best_pt_that_cannot_be_read_back_costs_one_line(damage, whole, tmp_path, capsys):
    folder = copied(whole, tmp_path)
    best = folder / "best.pt"
    if damage == "gone":
        best.unlink()
    elif damage == "damaged":
        best.write_bytes(best.read_bytes()[:3000])
    else:
        shutil.copy(pcnn_train.__file__.replace("pcnn_train.py", "checkpoints/cpen455.pt"), best)
    assert pcnn_train.main(["--resume", str(folder)]) == 0
    told = capsys.readouterr()
    (line,) = (line for line in told.err.splitlines() if "validation images" in line)
    assert line.startswith("warning: the validation images are not evaluated: ")
    assert "on the validation images" not in told.out and not validation_of(reports(folder)[-1])
    assert [report["epoch"] for report in reports(folder)] == [1, 2, 3]


def test_the_protocol_of_a_run_does_not_change(whole, tmp_path):
    folder = copied(whole, tmp_path)
    with pytest.raises(UserError, match=r"--select_on validation: the run in .* has holdout"):
        pcnn_train.main(["--resume", str(folder), "--select_on", "validation"])
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("select_on: holdout\n", ""))  # of an older version
    with pytest.raises(UserError, match=r"--select_on holdout: the run in .* has validation"):
        pcnn_train.main(["--resume", str(folder), "--select_on", "holdout"])


def test_the_last_report_is_plain_json(whole):
    line = (whole[0] / "metrics.jsonl").read_text().splitlines()[-1]
    assert all(type(value) in (int, float) for value in json.loads(line).values())
