"""evaluate.py: a report on the digits, by one process and by two, from the cache, and mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score

import evaluate as script_module
from data import load_split
from evaluation.baseline_network import build_baseline, save_baseline
from evaluation.evaluate import evaluate
from evaluation.generation import draw_images
from evaluation.sections import networks
from model import PixelCNN, class_log_likelihoods, load_checkpoint, save_checkpoint
from plots.images import write_png
from tests.runs import RUN
from utils.errors import DataError, UserError

ROOT = Path(__file__).resolve().parents[1]
FEW = "--samples_per_class 3 --robustness_images 20 --device cpu --ood noise --ood class:3".split()
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """The best.pt of a short run on the digits."""
    import pcnn_train

    folder = tmp_path_factory.mktemp("evaluated") / "short"
    flags = "--max_epochs 4 --batch_size 16 --sampling_interval 0 --lr 0.01".split()
    assert pcnn_train.main([*RUN, *flags, "--run_dir", str(folder)]) == 0
    return folder / "best.pt"


@pytest.fixture(scope="module")
def reported(checkpoint, tmp_path_factory) -> Path:
    """A report of all sections with its cache beside it."""
    folder = tmp_path_factory.mktemp("reported")
    assert run(checkpoint, folder / "report", folder / "cache") == 0
    return folder


def run(checkpoint: Path, out: Path, cache: Path, *more: str) -> int:
    return script_module.main([str(checkpoint), "--out", str(out), "--cache", str(cache), *FEW, *more])


@pytest.fixture
def evaluate_own(own_folder, tmp_path):
    """Evaluate a network of ``own_folder``, which has 8 training, 4 validation and 6 test images: evaluate_own(flags).

    It returns the report's folder.
    """
    net = PixelCNN(nr_resnet=1, nr_filters=4, nr_logistic_mix=1, image_channels=3, num_classes=2)
    save_checkpoint(tmp_path / "own.pt", net, image_size=(8, 8), class_names=("a", "b"), dataset="folder")

    def evaluate_own(flags: str) -> Path:
        places = {"--data_dir": own_folder, "--out": tmp_path / "report", "--cache": tmp_path / "cache"}
        more = [*(str(part) for place in places.items() for part in place), "--ood", "noise", "--device", "cpu"]
        assert script_module.main([str(tmp_path / "own.pt"), *more, "--samples_per_class", "3", *flags.split()]) == 0
        return tmp_path / "report"

    return evaluate_own


def no_computing(*_: object, **__: object) -> None:
    raise AssertionError("computed")


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_the_figures_are_those_of_the_library(checkpoint, reported):
    metrics = metrics_of(reported / "report")
    net = load_checkpoint(checkpoint)
    split = load_split("digits", "validation")
    evaluation = evaluate(net, split)
    assert metrics["short/classification/accuracy"] == pytest.approx(evaluation.accuracy)
    assert metrics["short/classification/f1"] == pytest.approx(evaluation.f1)
    assert metrics["short/likelihood/bpd"] == pytest.approx(evaluation.bpd, abs=1e-5)
    assert metrics["short/likelihood/train_images"] == 1437
    assert metrics["png/likelihood/bpd"] > 8  # the header of so small a file
    assert metrics["short/samples/images"] == 30 and metrics["uniform noise/samples/derailed"] > 0.5
    assert metrics["real (train)/samples/derailed"] == 0
    real, ours, noise = (
        metrics[f"{row}/samples/frechet_distance"] for row in ("real (train)", "short", "uniform noise")
    )
    assert real < min(ours, noise)
    inside = evaluation.log_likelihoods.double().logsumexp(1)
    noise = torch.randint(0, 256, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    outside = class_log_likelihoods(net, noise).double().logsumexp(1)
    expected = roc_auc_score([1] * len(inside) + [0] * 300, torch.cat([inside, outside]))
    assert metrics["short/unseen/auroc_noise_log_likelihood"] == pytest.approx(expected, abs=1e-4)
    three = split.labels == 3
    others = evaluation.log_likelihoods[:, [*range(3), *range(4, 10)]].double().logsumexp(1)
    assert metrics["short/unseen/auroc_class_3_log_likelihood"] == pytest.approx(
        roc_auc_score(~three, others), abs=1e-4
    )
    chosen = torch.cat([(split.labels == label).nonzero()[:2, 0] for label in range(10)])
    right = (evaluation.predictions == split.labels)[chosen].double().mean().item()
    assert metrics["short/robustness/clean_accuracy"] == pytest.approx(right)


def test_the_report_has_every_section_and_figure(reported):
    text = (reported / "report" / "report.md").read_text()
    for heading in ("Classification", "Likelihood", "Samples", "Robustness", "What it has never seen"):
        assert f"## {heading}" in text
    figures = {file.name for file in (reported / "report").glob("*.png")}
    assert figures >= {"coverage.png", "confusion_short.png", "reliability_short.png", "samples_short.png"}
    assert figures >= {"robustness.png", "unseen_short_noise.png", "unseen_short_class_3.png"}
    assert all(f"]({name})" in text for name in figures)


def test_a_second_report_computes_nothing(checkpoint, reported, tmp_path, monkeypatch):
    from evaluation.samples.features import EfficientNetFeatures
    from evaluation.scoring import Scorer
    from model import Sampler

    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    for kind in (Scorer, Sampler, EfficientNetFeatures):
        monkeypatch.setattr(kind, "__call__", fail)
    monkeypatch.setattr(Scorer, "of_class", fail)
    assert run(checkpoint, tmp_path / "report", reported / "cache") == 0
    assert metrics_of(tmp_path / "report") == metrics_of(reported / "report")


def test_a_damaged_cache_is_rebuilt(checkpoint, reported, tmp_path):
    shutil.copytree(reported / "cache", tmp_path / "cache")
    for number, file in enumerate(sorted((tmp_path / "cache").iterdir())):
        whole = file.read_bytes()
        file.write_bytes(b"" if number % 3 == 0 else whole[: len(whole) // 2] if number % 3 == 1 else b"x" + whole[1:])
    assert run(checkpoint, tmp_path / "report", tmp_path / "cache") == 0
    assert metrics_of(tmp_path / "report") == metrics_of(reported / "report")


def test_the_report_does_not_go_into_the_images_that_it_measures(checkpoint, digits, write_folder, tmp_path):
    write_folder(digits.images[:10], tmp_path / "theirs")
    flags = ["--images", str(tmp_path / "theirs"), "--dataset", "digits", "--out", str(tmp_path / "theirs" / "report")]
    with pytest.raises(UserError, match="is in the folder of --images"):
        script_module.main(flags)
    assert len(list((tmp_path / "theirs").iterdir())) == 10


@pytest.mark.integration
def test_a_signal_is_one_line_and_what_was_computed_is_kept(checkpoint, tmp_path):
    flags = ["--out", tmp_path / "report", "--cache", tmp_path / "cache", *FEW]
    command = [sys.executable, ROOT / "evaluate.py", checkpoint, *flags]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("cache/*.npz")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.splitlines()[-1] == "stopped; what was computed is kept: repeat the command to go on"
    assert list(tmp_path.glob("cache/*.npz"))


@pytest.mark.integration
def test_two_processes_report_what_one_reports(checkpoint, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, start in (("one", [sys.executable]), ("two", TORCHRUN)):
        flags = ["--out", tmp_path / name, "--cache", tmp_path / f"cache_{name}", *FEW, "--batch_size", 8]
        command = [*start, ROOT / "evaluate.py", checkpoint, *flags]
        done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / "metrics.json").read_bytes() == (tmp_path / "two" / "metrics.json").read_bytes()
    assert (tmp_path / "one" / "report.md").read_bytes() == (tmp_path / "two" / "report.md").read_bytes()


def test_images_of_a_folder_are_measured_like_samples(checkpoint, reported, tmp_path):
    net = load_checkpoint(checkpoint)
    (tmp_path / "theirs").mkdir()
    for label, number, image in draw_images(net, range(10), 3, net.image_size):
        write_png(image, tmp_path / "theirs" / f"{net.class_names[label]}_{number + 1:04d}.png")
    flags = ["--images", str(tmp_path / "theirs"), "--dataset", "digits", "--out", str(tmp_path / "report")]
    assert script_module.main([*flags, "--cache", str(tmp_path / "cache")]) == 0
    theirs, ours = metrics_of(tmp_path / "report"), metrics_of(reported / "report")
    for name in ("frechet_distance", "kernel_distance_low", "precision", "coverage", "derailed"):
        assert theirs[f"theirs/samples/{name}"] == pytest.approx(ours[f"short/samples/{name}"], rel=1e-6)
    assert not any("/classification/" in name for name in theirs)


@pytest.mark.slow
def test_a_distance_by_other_inception_weights_is_not_called_fid(checkpoint, reported, inception_weights, tmp_path):
    flags = ["--sections", "samples", "--fid_weights", str(inception_weights), "--fid_dims", "64"]
    assert run(checkpoint, tmp_path / "report", reported / "cache", *flags) == 0
    metrics = metrics_of(tmp_path / "report")
    name = "frechet_distance_unofficial_weights"
    assert 0 < metrics[f"real (train)/samples/{name}"] < metrics[f"uniform noise/samples/{name}"]
    assert metrics[f"short/samples/{name}"] > 0 and not any(key.endswith("/fid") for key in metrics)
    report = (tmp_path / "report" / "report.md").read_text()
    assert f"| {name} |" in report and "FID is not measured" not in report


def test_samples_are_drawn_at_the_temperature_of_the_flag_or_the_checkpoint(checkpoint, reported, tmp_path):
    cool = tmp_path / "short.pt"
    torch.save(torch.load(checkpoint, weights_only=True) | {"sample_temperature": 0.5}, cool)
    values = []
    for path, flags in ((cool, []), (checkpoint, ["--temperature", "0.5"]), (cool, ["--temperature", "1"])):
        assert run(path, tmp_path / "report", reported / "cache", "--sections", "samples", *flags) == 0
        values.append(metrics_of(tmp_path / "report")["short/samples/frechet_distance"])
        assert metrics_of(tmp_path / "report")["short/samples/temperature"] == (0.5 if len(values) < 3 else 1.0)
        told = "at a temperature of 0.5" in (tmp_path / "report" / "report.md").read_text()
        assert told == (len(values) < 3)
    assert values[0] == pytest.approx(values[1]) and values[0] != pytest.approx(values[2], rel=1e-3)
    assert values[2] == pytest.approx(metrics_of(reported / "report")["short/samples/frechet_distance"])


def test_two_checkpoints_side_by_side(checkpoint, tmp_path, capsys):
    net = load_checkpoint(checkpoint)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    about = {"image_size": net.image_size, "class_names": net.class_names, "dataset": "digits"}
    save_checkpoint(tmp_path / "worse.pt", net, **about)
    flags = [str(tmp_path / "worse.pt"), "--sections", "classification", "robustness"]
    assert run(checkpoint, tmp_path / "report", tmp_path / "cache", *flags) == 0
    metrics = metrics_of(tmp_path / "report")
    assert metrics["short/classification/mcnemar_p_worse"] < 0.01
    assert not any("/samples/" in name for name in metrics)
    printed = capsys.readouterr().out
    assert "| short |" in printed and "| worse |" in printed and "Fréchet" not in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["gone.pt"], "no checkpoint at gone.pt"),
        (["--dataset", "cifar"], "--dataset cifar"),
        (["--ood", "gone"], "is no folder"),
        (["--ood", "class:cheese"], "the classes are"),
        (["--images", "gone"], "is no folder"),
        (["--imagenet_classes", "1", "2"], "for each of the 10 classes"),
        (["--samples_per_class", "0"], "--samples_per_class 0"),
        (["--sections", "everything"], "--sections everything"),
        (["--fid_weights", "gone.pth"], "no such file"),
        (["--split", "test"], "--split test"),
        (["--out", "-"], "give the name of a folder"),
        (["--cache", __file__], "is not a folder"),
    ],
)
def test_mistakes_are_one_line(checkpoint, tmp_path, flags, message):
    arguments = flags if flags[0] == "gone.pt" else [str(checkpoint), *flags]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "report")]
    with pytest.raises(UserError) as raised:
        script_module.main(arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("split", "few", "message"),
    [
        ("validation", "", "4 validation images are too few to measure samples: 6 or more are needed"),
        ("train", "test", "5 test images are too few to measure samples: 6 or more are needed"),
        ("holdout", "", "2 holdout images are too few to measure samples: 6 or more are needed"),
    ],
)
def test_samples_are_left_out_where_real_images_are_too_few(
    evaluate_own, own_folder, monkeypatch, capsys, split, few, message
):
    if few:
        (own_folder / few / "a" / "000.png").unlink()
    monkeypatch.setattr(networks, "draw_images", no_computing)
    with pytest.raises(UserError, match=f"^{message}$"):
        evaluate_own(f"--split {split} --sections samples")
    capsys.readouterr()
    report = evaluate_own(f"--split {split}")
    assert capsys.readouterr().err.splitlines().count(message) == 1
    assert f"## Samples\n\n{message}.\n\n## Robustness" in (report / "report.md").read_text()
    sections = {name.split("/")[1] for name in metrics_of(report)}
    assert sections == {"classification", "likelihood", "robustness", "unseen"}


def test_a_folder_with_one_image_per_class_has_no_holdout(evaluate_own, own_folder, tmp_path):
    for file in own_folder.glob("train/*/00[1-3].png"):
        file.unlink()
    with pytest.raises(UserError, match=r"^--split holdout: no class has two training images; add some, or leave it"):
        evaluate_own("--split holdout")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("split", "bad", "section"),
    [
        ("validation", "train", "likelihood"),
        ("validation", "train", "samples"),
        ("train", "validation", "samples"),
    ],
)
def test_images_that_a_later_section_needs_are_read_first(
    evaluate_own, own_folder, monkeypatch, tmp_path, split, bad, section
):
    if bad == "validation":
        shutil.rmtree(own_folder / "test")  # samples are then compared with the validation images
    else:
        for number in (2, 3, 4):
            shutil.copy(own_folder / "validation/a/000.png", own_folder / f"validation/a/00{number}.png")
    (own_folder / bad / "a" / "000.png").write_bytes(b"")
    monkeypatch.setattr(networks.Network, "scores", no_computing)
    with pytest.raises(DataError, match=r"a/000\.png"):
        evaluate_own(f"--split {split} --sections classification {section}")
    assert not (tmp_path / "report").exists()


def test_a_baseline_needs_no_training_images(own_folder, tmp_path):
    about = {"image_size": (8, 8), "class_names": ["a", "b"], "dataset": "folder", "settings": {}}
    save_baseline(tmp_path / "base.pt", build_baseline([1], 3, 2), [1], **about)
    (own_folder / "train/a/000.png").write_bytes(b"")
    flags = ["--data_dir", str(own_folder), "--sections", "classification", "likelihood"]
    assert run(tmp_path / "base.pt", tmp_path / "report", tmp_path / "cache", *flags) == 0


def test_networks_of_other_images_are_refused(checkpoint, tmp_path):
    net = PixelCNN(nr_resnet=1, nr_filters=4, nr_logistic_mix=1, image_channels=3, num_classes=2)
    save_checkpoint(tmp_path / "other.pt", net, image_size=(8, 8), class_names=("a", "b"), dataset="folder")
    with pytest.raises(UserError, match="another data set"):
        run(checkpoint, tmp_path / "report", tmp_path / "cache", str(tmp_path / "other.pt"))


def test_the_report_is_logged_to_weights_and_biases(checkpoint, openwandb, wandb_env, tmp_path, script):
    flags = ["--out", tmp_path / "report", "--cache", tmp_path / "cache", *FEW, "--sections", "classification"]
    named = ["--en_wandb", "--wandb_project", "reports", "--wandb_name", "first"]
    done = script("evaluate.py", checkpoint, *flags, *named, env=wandb_env | openwandb.env)
    assert done.returncode == 0 and "W&B:" not in done.stderr, done.stderr
    ((run_id, name, state, summary),) = openwandb.rows(
        "select run_id, display_name, state, summary_json from runs r, projects p"
        " where p.name = 'reports' and r.project_id = p.id"
    )
    assert (name, state) == ("first", "finished")
    summary, metrics = json.loads(summary), metrics_of(tmp_path / "report")
    assert {key: summary[key] for key in metrics if metrics[key] is not None} == {
        key: value for key, value in metrics.items() if value is not None
    }
    media = openwandb.folder / "files" / "default" / "reports" / run_id / "media"
    (coverage,) = (media / "images").glob("coverage_*.png")
    assert coverage.read_bytes() == (tmp_path / "report" / "coverage.png").read_bytes()
    (table,) = (media / "table").glob("classification_*.table.json")
    assert json.loads(table.read_text())["data"][0][0] == "short"
