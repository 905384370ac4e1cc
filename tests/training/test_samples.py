"""The sample grid and FID of a network in training."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import generate
import pcnn_train
from data import load_split, read_image
from evaluation.samples.distances import Distances
from evaluation.samples.features import EfficientNetFeatures
from model import PixelCNN, save_checkpoint
from tests.runs import reports
from training.run_folder import read_reports
from training.samples import TrainingSamples, draw_per_class
from training.settings import TrainSettings

UNOFFICIAL = "frechet_distance_unofficial_weights"


SMALL = {
    "dataset": "folder", "image_size": 8, "nr_resnet": 1, "nr_filters": 4, "nr_logistic_mix": 1, "batch_size": 8,
    "max_epochs": 2, "sampling_interval": 1, "sample_batch_size": 2, "fid_samples": 5, "fid_dims": 64,
    "metric_samples": 0, "device": "cpu",
}  # fmt: skip


def settings_of(data_dir: Path) -> TrainSettings:
    return TrainSettings(**SMALL, data_dir=str(data_dir))


def train(data_dir: Path, run_dir: Path, **more) -> list[dict]:
    """The reports of a run."""
    flags = {**SMALL, "data_dir": data_dir, "run_dir": run_dir, **more}
    assert pcnn_train.main([word for name, value in flags.items() for word in (f"--{name}", str(value))]) == 0
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_failure_in_the_middle_of_a_run(hub, own_folder, tmp_path, monkeypatch, capsys, batch_sizes):
    from pytorch_fid import fid_score

    real, calls = fid_score.calculate_frechet_distance, []

    def fails_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise ValueError("Imaginary\ncomponent 3")
        return real(*arguments)

    monkeypatch.setattr(fid_score, "calculate_frechet_distance", fails_first)
    one, two = train(own_folder, tmp_path / "run")
    assert one["fid_error"] == "ValueError: Imaginary component 3" and UNOFFICIAL not in one
    assert np.isfinite(two[UNOFFICIAL]) and "fid_error" not in two
    assert "fid" not in one and "fid" not in two
    assert batch_sizes == [6, 4, 4]  # the test split once, and 2 of each class an epoch
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if "Imaginary" in line] == [f"FID failed: {one['fid_error']}"]
    assert f"{UNOFFICIAL} {two[UNOFFICIAL]:.2f}" in out

    without = train(own_folder, tmp_path / "without", fid_samples=0)
    assert [report["train_bpd"] for report in without] == [one["train_bpd"], two["train_bpd"]]
    assert not any(key.startswith(("fid", "frechet")) for report in without for key in report)


def test_a_run_without_weights_says_so_once_and_trains_on(empty_hub, own_folder, tmp_path, capsys):
    reports = train(own_folder, tmp_path / "run")
    assert [report["epoch"] for report in reports] == [1, 2]
    assert not any(key.startswith(("fid", "frechet")) for report in reports for key in report)
    assert sum(line.startswith("FID is not measured: ") for line in capsys.readouterr().err.splitlines()) == 1


def test_nothing_is_loaded_where_fid_is_off(empty_hub, digits, capsys):
    for off in ({"fid_samples": 0}, {"sampling_interval": 0}):
        settings = dataclasses.replace(settings_of("x"), **off)
        assert TrainingSamples(settings, digits, torch.device("cpu")).measure(digits.images[None]) == {}
    assert capsys.readouterr() == ("", "")


def test_draws_are_equal_per_class_and_the_same_each_time(hub, own_folder):
    validation = load_split("folder", "validation", 8, own_folder)
    samples = TrainingSamples(settings_of(own_folder), validation, torch.device("cpu"))
    net = PixelCNN(1, 4, 1, 3, 2)
    images = samples.draw(net)
    assert images.shape == (2, 2, 3, 8, 8) and images.dtype == torch.uint8
    assert torch.equal(images, samples.draw(net))


def test_generate_draws_the_images_that_training_measures(tmp_path):
    """So that FID in training and FID of generate.py are of the same images."""
    torch.manual_seed(0)
    net = PixelCNN(1, 4, 1, 1, 3).eval()
    save_checkpoint(tmp_path / "net.pt", net, image_size=(8, 8), class_names=("a", "b", "c"), dataset="folder")
    flags = ["--checkpoint", tmp_path / "net.pt", "--per_class", 2, "--seed", 7, "--out", tmp_path / "out"]
    assert generate.main(list(map(str, flags))) == 0
    for name, images in zip("abc", draw_per_class(net, 2, (8, 8), seed=7), strict=True):
        for number, image in enumerate(images, start=1):
            assert torch.equal(read_image(tmp_path / "out" / f"{name}_{number:04d}.png", 1, 8), image)


def test_reference_is_the_test_split_or_validation(hub, own_folder, digits, capsys):
    assert len(TrainingSamples(settings_of(own_folder), digits, torch.device("cpu")).fid.fid.reference) == 6
    for file in (own_folder / "test").rglob("*.png"):
        file.unlink()
    assert TrainingSamples(settings_of(own_folder), digits, torch.device("cpu")).fid.fid.reference is digits
    assert "against the validation images" in capsys.readouterr().err
    settings = dataclasses.replace(settings_of(own_folder), select_on="holdout")
    assert TrainingSamples(settings, digits, torch.device("cpu")).fid.fid.reference is digits
    assert "against the held-out images" in capsys.readouterr().err
    settings = dataclasses.replace(settings_of("x"), dataset="digits", data_dir=None)
    assert TrainingSamples(settings, digits, torch.device("cpu")).fid.fid.reference is digits


def test_configurations():
    configs = {name: yaml.safe_load(Path("configs", f"{name}.yaml").read_text()) for name in ("cpen455", "digits")}
    assert configs["cpen455"]["fid_dims"] == 192 and configs["cpen455"]["fid_samples"] == 100
    assert configs["digits"]["fid_samples"] == configs["digits"]["metric_samples"] == 0


MEASURED = {"frechet_distance", "kernel_distance", "derailed"}  # class agreement needs the ImageNet classes
CHEAP = {"fid_samples": 0, "metric_samples": 6}


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """How many images EfficientNet-Lite0 was given, call by call."""
    found, real = [], EfficientNetFeatures.__call__

    def call(self, images):
        found.append(len(images))
        return real(self, images)

    monkeypatch.setattr(EfficientNetFeatures, "__call__", call)
    return found


def test_a_run_measures_samples_without_a_download(own_folder, tmp_path, capsys, sizes):
    one, two = train(own_folder, tmp_path / "run", **CHEAP)
    assert sizes == [6, 6, 6]  # 3 of each class, the test split once, and 3 of each class
    for report in (one, two):
        assert report.keys() > MEASURED and not {"fid", "class_agreement", "sample_metrics_error"} & report.keys()
        assert report["frechet_distance"] > 0 and 0 <= report["derailed"] <= 1
    assert f"frechet_distance {two['frechet_distance']:.2f}" in capsys.readouterr().out
    without = train(own_folder, tmp_path / "without", fid_samples=0)
    assert [report["train_bpd"] for report in without] == [one["train_bpd"], two["train_bpd"]]
    assert not any(MEASURED & report.keys() for report in without)

    train(own_folder, tmp_path / "parts", **CHEAP, max_epochs=1)
    assert pcnn_train.main(["--resume", str(tmp_path / "parts"), "--max_epochs", "2"]) == 0
    assert reports(tmp_path / "parts") == reports(tmp_path / "run")


def test_measurements_that_fail_are_told_and_the_run_goes_on(own_folder, tmp_path, monkeypatch, capsys):
    real, calls = Distances.frechet, []

    def fails_first(self, *chosen):
        calls.append(self)
        if len(calls) == 1:
            raise ValueError("no\nconvergence")
        return real(self, *chosen)

    monkeypatch.setattr(Distances, "frechet", fails_first)
    train(own_folder, tmp_path / "run", **CHEAP)
    one, two = read_reports(tmp_path / "run")
    assert one["sample_metrics_error"] == "ValueError: no convergence" and not MEASURED & one.keys()
    assert two.keys() > MEASURED
    lines = [line for line in capsys.readouterr().err.splitlines() if "convergence" in line]
    assert lines == ["metrics of samples failed: ValueError: no convergence"]


def test_without_the_package_a_run_says_so_once(own_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    run = train(own_folder, tmp_path / "run", **CHEAP)
    assert len(run) == 2 and not any({*MEASURED, "sample_metrics_error"} & report.keys() for report in run)
    lines = [line for line in capsys.readouterr().err.splitlines() if "metrics of samples" in line]
    assert len(lines) == 1 and "pip install" in lines[0]


def test_samples_of_cpen455_are_measured_at_the_size_of_the_network(cpen455):
    """Real images in the place of samples: their classes are recognized, and none is derailed."""
    validation = load_split("cpen455", "validation", 16, cpen455)
    settings = TrainSettings(data_dir=str(cpen455), image_size=16, fid_samples=0, metric_samples=40)
    samples = TrainingSamples(settings, validation, torch.device("cpu"))
    assert samples.metrics.real.shape == (519, 3, 16, 16)
    real = torch.stack([validation.images[validation.labels == label][:10] for label in range(4)])
    noise = torch.randint(0, 256, real.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    good, bad = samples.measure(real), samples.measure(noise)
    assert good["class_agreement"] > 0.6 and good["derailed"] == 0 and bad["derailed"] == 1
    assert good["kernel_distance"] < 0.1 * bad["kernel_distance"]
    assert good["frechet_distance"] < 0.7 * bad["frechet_distance"]
