"""A checkpoint for others."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pcnn_train
from data import load_split
from data.splits import hold_out
from evaluation.calibration import cross_fitted_confidence, expected_calibration_error, fit_temperature
from evaluation.evaluate import evaluate
from evaluation.typicality import typicality_reference
from model import load_checkpoint, posterior, read_checkpoint
from model.temperature import sample_temperature
from training import export_checkpoint
from utils.errors import UserError


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    flags = "--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --batch_size 128 --dropout 0 --lr 0.005"
    more = "--precision fp32 --max_epochs 2 --sampling_interval 0 --fid_samples 0"
    assert pcnn_train.main([*flags.split(), *more.split(), "--run_dir", str(folder)]) == 0
    return folder / "best.pt"


@pytest.mark.parametrize("half", ["true", "false"])
def test_it_holds_the_average_what_was_measured_and_a_temperature(best, half, tmp_path, capsys):
    out = tmp_path / "shipped.pt"
    try:
        assert export_checkpoint.main(["--checkpoint", str(best), "--out", str(out), "--half", half]) == 0
    except UserError as error:  # on so small a network 16 bits may cost an image
        assert half == "true" and "leave it out" in str(error)
        return
    content = read_checkpoint(out)
    assert content["ema"] is None and "optimizer" not in content
    kind = torch.float16 if half == "true" else torch.float32
    assert {value.dtype for value in content["weights"].values()} == {kind}
    assert out.stat().st_size < best.stat().st_size / (2.5 if half == "true" else 1.5)
    net = load_checkpoint(out)
    split = load_split("digits", "validation")
    evaluation = evaluate(net, split)
    said = net.metadata["validation"]
    assert said["accuracy"] == evaluation.accuracy and said["bpd"] == pytest.approx(evaluation.bpd, abs=1e-6)
    assert said["images"] == 360 and 0 <= said["expected_calibration_error"] <= 1
    assert str(best.parent).encode() not in out.read_bytes()  # nothing of the machine where it was trained
    reference = typicality_reference(split.images, evaluation.log_likelihoods)
    torch.testing.assert_close(net.metadata["typicality"]["values"], reference["values"])
    assert net.metadata["temperature"] > 0 and net.metadata["settings"]["nr_filters"] == 8
    told = capsys.readouterr().out
    assert f"accuracy {evaluation.accuracy:.4f}" in told and "(fitted on the same 360 validation images)" in told

    confidence = cross_fitted_confidence(evaluation.log_likelihoods, split.labels)
    error = expected_calibration_error(confidence.tolist(), (evaluation.predictions == split.labels).tolist())
    assert said["expected_calibration_error"] == pytest.approx(error, abs=1e-4)
    assert net.metadata["temperature"] == pytest.approx(fit_temperature(evaluation.log_likelihoods, split.labels), 1e-3)
    assert net.metadata["temperature_from"] == "validation"
    assert f"5-fold cross-fitting of the temperature: {said['expected_calibration_error']:.4f}" in told


def test_what_16_bits_may_cost_is_said(best, tmp_path, monkeypatch):
    real, half = evaluate(load_checkpoint(best), load_split("digits", "validation")), []

    def one_image_worse(*arguments):
        half.append(real)
        return dataclasses.replace(real, accuracy=real.accuracy - (len(half) == 2) / 360)

    monkeypatch.setattr(export_checkpoint, "evaluate", one_image_worse)
    flags = ["--checkpoint", str(best), "--out", str(tmp_path / "out.pt"), "--half", "true"]
    with pytest.raises(UserError, match="leave it out"):
        export_checkpoint.main(flags)
    half.clear()
    assert export_checkpoint.main([*flags, "--half_cost", "0.003"]) == 0


def test_the_temperature_of_samples_is_kept(best, tmp_path):
    for flags, expected in ([], 1.0), (["--sample_temperature", "0.9"], 0.9):
        assert export_checkpoint.main(["--checkpoint", str(best), "--out", str(tmp_path / "out.pt"), *flags]) == 0
        assert sample_temperature(None, load_checkpoint(tmp_path / "out.pt")) == expected
    flags = ["--checkpoint", str(tmp_path / "out.pt"), "--out", str(tmp_path / "again.pt")]
    assert export_checkpoint.main(flags) == 0
    assert sample_temperature(None, load_checkpoint(tmp_path / "again.pt")) == 0.9


@pytest.fixture
def chosen_on_held_out(best, tmp_path):
    """The same network, as of a run whose epoch was chosen on held-out images."""
    content = read_checkpoint(best)
    content["settings"]["select_on"] = "holdout"
    content["validation"] |= {"split": "holdout", "images": 142}
    torch.save(content, tmp_path / "held.pt")
    return tmp_path / "held.pt"


def test_the_temperature_is_fitted_on_held_out_images_and_judged_on_validation_images(
    chosen_on_held_out, tmp_path, capsys
):
    out = tmp_path / "out.pt"
    assert export_checkpoint.main(["--checkpoint", str(chosen_on_held_out), "--out", str(out)]) == 0
    net, split = load_checkpoint(out), load_split("digits", "validation")
    held = hold_out(load_split("digits", "train"))[1]
    temperature = fit_temperature(evaluate(net, held).log_likelihoods, held.labels)
    evaluation = evaluate(net, split)
    assert temperature != pytest.approx(fit_temperature(evaluation.log_likelihoods, split.labels), rel=1e-2)
    assert net.metadata["temperature"] == pytest.approx(temperature, rel=1e-3)
    assert net.metadata["temperature_from"] == "holdout"
    confidence = posterior(evaluation.log_likelihoods.double(), None, temperature).amax(dim=1)
    error = expected_calibration_error(confidence.tolist(), (evaluation.predictions == split.labels).tolist())
    said = net.metadata["validation"]
    assert (said["split"], said["images"], said["accuracy"]) == ("validation", 360, evaluation.accuracy)
    assert said["expected_calibration_error"] == pytest.approx(error, abs=1e-4)
    told = capsys.readouterr().out
    assert "(fitted on 142 held-out training images): expected calibration error" in told and "cross-f" not in told
    assert export_checkpoint.main(["--checkpoint", str(out), "--out", str(tmp_path / "again.pt")]) == 0
    assert load_checkpoint(tmp_path / "again.pt").metadata["temperature"] == pytest.approx(temperature, rel=1e-3)


def test_held_out_images_that_were_seen_before_give_no_temperature(chosen_on_held_out, tmp_path):
    """By the weights that the run began with."""
    torch.save(read_checkpoint(chosen_on_held_out) | {"saw_held_out": True}, tmp_path / "seen.pt")
    out = tmp_path / "out.pt"
    assert export_checkpoint.main(["--checkpoint", str(tmp_path / "seen.pt"), "--out", str(out)]) == 0
    said = load_checkpoint(out).metadata
    assert said["temperature_from"] == "validation" and said["saw_held_out"] is True


def test_training_images_that_are_not_those_of_the_run_are_refused(chosen_on_held_out, tmp_path, monkeypatch):
    def fewer(name, split, *rest):
        images = load_split(name, split, *rest)
        return hold_out(images)[0] if split == "train" else images

    monkeypatch.setattr(export_checkpoint, "load_split", fewer)
    with pytest.raises(
        UserError, match=r"not those of the run: 129 would be held out, and 142 were; give the --data_dir"
    ):
        export_checkpoint.main(["--checkpoint", str(chosen_on_held_out), "--out", str(tmp_path / "out.pt")])
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("settings", [["nr_filters"], "x", 3, None])
def test_settings_that_are_none_are_left_out(best, settings, tmp_path):
    path, out = tmp_path / "made.pt", tmp_path / "out.pt"
    torch.save(read_checkpoint(best) | {"settings": settings, "epoch": "x", "step": [1]}, path)
    assert export_checkpoint.main(["--checkpoint", str(path), "--out", str(out)]) == 0
    assert read_checkpoint(out)["settings"] == {}


def test_a_run_keeps_the_scores_of_its_validation_images(best):
    net, split = load_checkpoint(best), load_split("digits", "validation")
    reference = typicality_reference(split.images, evaluate(net, split).log_likelihoods)
    torch.testing.assert_close(net.metadata["typicality"]["values"], reference["values"])
    assert reference["images"] == len(reference["values"]) == 360


def test_images_without_a_class_or_of_another_data_set_are_refused(best, tmp_path, monkeypatch):
    flags = ["--checkpoint", str(best), "--out", str(tmp_path / "out.pt")]
    split = load_split("digits", "validation")
    unknown = dataclasses.replace(split, labels=torch.full_like(split.labels, -1))
    monkeypatch.setattr(export_checkpoint, "load_split", lambda *_: unknown)
    with pytest.raises(UserError, match=r"some digits validation images have no class \(label -1\)"):
        export_checkpoint.main(flags)
    other = dataclasses.replace(split, class_names=split.class_names[:9])
    monkeypatch.setattr(export_checkpoint, "load_split", lambda *_: other)
    with pytest.raises(UserError, match="a checkpoint of another data set"):
        export_checkpoint.main(flags)
    assert not (tmp_path / "out.pt").exists()


def test_the_checkpoint_itself_is_not_written_over_and_standard_output_holds_it_alone(best, tmp_path):
    before = best.read_bytes()
    (tmp_path / "link.pt").symlink_to(best)
    for out in (best, tmp_path / "link.pt"):
        with pytest.raises(UserError, match=r"--out .* would overwrite .*best\.pt, which is an input"):
            export_checkpoint.main(["--checkpoint", str(best), "--out", str(out)])
    assert best.read_bytes() == before
    script = [sys.executable, "-m", "training.export_checkpoint", "--checkpoint", best, "--out", "-"]
    done = subprocess.run(script, cwd=Path(__file__).parents[2], capture_output=True, check=True)
    (tmp_path / "out.pt").write_bytes(done.stdout)
    assert load_checkpoint(tmp_path / "out.pt").metadata["temperature"] > 0
    assert b"accuracy" in done.stderr and b"standard output\n" in done.stderr


def test_where_it_cannot_be_written_is_told_before_the_images_are_read(best, tmp_path, monkeypatch):
    monkeypatch.setattr(export_checkpoint, "load_split", lambda *_: pytest.fail("the images were read"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "x.pt", "."):
        with pytest.raises(UserError, match=r"is a folder|cannot be written"):
            export_checkpoint.main(["--checkpoint", str(best), "--out", str(out)])
