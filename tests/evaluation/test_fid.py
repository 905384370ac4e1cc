"""FID: pytorch-fid's real code on random weights where it looks for its own."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from data import ImageSet, load_split
from evaluation.fid import FID, SafeFID
from evaluation.fid_reference import parse_reference, split_reference
from evaluation.inception import FIDUnavailable
from model import PixelCNN
from plots.images import write_png
from training import fid as fid_module
from training.samples import TrainingFID
from training.settings import TrainSettings
from utils.errors import DataError, UserError
from utils.files import file_hash

UNOFFICIAL = "frechet_distance_unofficial_weights"


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    """70 of the digits, uint8 [70, 1, 8, 8]."""
    split = load_split("digits", "validation")
    return ImageSet(split.images[:70], split.labels[:70], split.class_names, split.paths[:70])


def first(split: ImageSet, count: int) -> ImageSet:
    return dataclasses.replace(split, images=split.images[:count], labels=split.labels[:count])


def noisy(images: torch.Tensor, deviation: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + deviation * noise).clamp(0, 255).to(torch.uint8)


def write_folder(images: torch.Tensor, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        write_png(image, folder / f"{number:03d}.png")
    return folder


@pytest.fixture
def through_network(monkeypatch) -> list[int]:
    """How many images went through the network, call by call."""
    from pytorch_fid import fid_score

    counts = []
    real = fid_score.get_activations

    def count(files, *arguments):
        counts.append(len(files))
        return real(files, *arguments)

    monkeypatch.setattr(fid_score, "get_activations", count)
    return counts


def test_zero_to_itself_and_more_with_noise_as_pytorch_fid_says(hub, digits, tmp_path, capsys):
    from pytorch_fid.fid_score import calculate_fid_given_paths

    folder = write_folder(digits.images, tmp_path / "real")
    fid = FID(folder, dims=64)
    itself = fid.score(digits.images)
    little, much = (fid.score(noisy(digits.images, deviation)) for deviation in (10, 40))
    assert abs(itself) < 1e-3 < 0.01 < little < much / 2
    assert "warning" not in capsys.readouterr().err  # 70 images are enough for 64 dimensions
    (cached,) = (hub / "fid_statistics").iterdir()
    paths = [str(write_folder(noisy(digits.images, 40), tmp_path / "drawn")), str(cached)]
    assert much == pytest.approx(calculate_fid_given_paths(paths, 35, "cpu", 64, num_workers=0), rel=1e-4)


def test_reference_goes_through_the_network_once(hub, digits, tmp_path, through_network):
    images = digits.images[:12]
    reference = write_folder(images, tmp_path / "reference")
    one = FID(reference, 64)
    scores = [one.score(noisy(images, 30)), one.score(noisy(images, 30))]
    assert through_network == [12, 12, 12]
    renamed = tmp_path / "same_pixels"
    renamed.mkdir()
    for file in reference.iterdir():
        (renamed / f"other_{file.name}").write_bytes(file.read_bytes())
    scores.append(FID(renamed, 64).score(noisy(images, 30)))
    assert through_network[3:] == [12]
    assert scores[0] > 0.01 and scores == pytest.approx([scores[0]] * 3, abs=1e-3)

    write_png(255 - images[0], renamed / "other_000.png")
    changed = FID(renamed, 64).score(noisy(images, 30))
    assert through_network[4:] == [12, 12] and abs(changed - scores[0]) > 1e-3


def test_cache_is_what_pytorch_fid_writes(hub, digits, tmp_path):
    from pytorch_fid.fid_score import compute_statistics_of_path, save_fid_stats

    folder = write_folder(digits.images[:12], tmp_path / "reference")
    FID(folder, 64).reference_statistics()
    (cached,) = (hub / "fid_statistics").iterdir()
    save_fid_stats([str(folder), str(tmp_path / "theirs.npz")], 12, "cpu", 64, num_workers=0)
    ours, theirs = np.load(cached), np.load(tmp_path / "theirs.npz")
    assert sorted(ours) == sorted(theirs) == ["mu", "sigma"]
    for key in theirs:
        assert ours[key].dtype == theirs[key].dtype
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5)
    mu, sigma = compute_statistics_of_path(str(cached), None, 1, 64, "cpu")
    assert mu.shape == (64,) and sigma.shape == (64, 64)


@pytest.mark.parametrize("damage", ["half", "empty", "other dims", "not finite"])
def test_damaged_cache_is_computed_anew(hub, digits, damage, through_network):
    reference = first(digits, 4)
    right = FID(reference, 64).reference_statistics()
    (cached,) = (hub / "fid_statistics").iterdir()
    if damage == "half":
        cached.write_bytes(cached.read_bytes()[:1000])
    elif damage == "empty":
        cached.write_bytes(b"")
    elif damage == "other dims":
        np.savez(cached, mu=right[0][:3], sigma=right[1][:3, :3])
    else:
        np.savez(cached, mu=right[0] * np.nan, sigma=right[1])
    again = FID(reference, 64).reference_statistics()
    assert through_network == [4, 4]
    np.testing.assert_allclose(again[1], right[1])
    FID(reference, 64).reference_statistics()
    assert through_network == [4, 4] and [cached] == list((hub / "fid_statistics").iterdir())


def test_a_cache_that_cannot_be_written_only_warns(hub, digits, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    fid = FID(first(digits, 4), 64, cache_dir=tmp_path / "file" / "cache")
    assert abs(fid.score(digits.images[:4])) < 1e-3
    assert "were not kept" in capsys.readouterr().err


def test_never_called_fid_with_other_weights(hub, digits, inception_weights, monkeypatch, capsys):
    safe = SafeFID(lambda: FID(first(digits, 4), 64))
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "not the official" in err and UNOFFICIAL in err
    assert safe.fid.name == UNOFFICIAL and list(safe.measure(lambda: digits.images[:4])) == [UNOFFICIAL]
    assert safe.describe(digits.images[:4], "X").startswith(UNOFFICIAL)

    monkeypatch.setattr(fid_module, "OFFICIAL_SHA256", file_hash(inception_weights)[:8])
    capsys.readouterr()
    safe = SafeFID(lambda: FID(first(digits, 4), 64))
    assert capsys.readouterr().err == ""
    assert list(safe.measure(lambda: digits.images[:4])) == ["fid"]
    line = safe.describe(digits.images[:4], "X")
    assert line.startswith("fid ") and "dims 64, 4 images against the 4 of X" in line


def test_the_official_hash_is_the_one_in_the_official_name():
    from pytorch_fid.inception import FID_WEIGHTS_URL

    assert FID_WEIGHTS_URL.endswith(f"-{fid_module.OFFICIAL_SHA256}.pth")


def test_unreachable_weights_are_one_line_with_file_and_folder(empty_hub, digits, capsys):
    safe = SafeFID(lambda: FID(digits, 64))
    out, err = capsys.readouterr()
    assert out == "" and sum("Inception weights" in line for line in err.splitlines()) == 1
    line = err.splitlines()[-1]
    assert "pt_inception-2015-12-05-6726825d.pth" in line and str(empty_hub / "checkpoints") in line
    assert "--fid_weights" in line and "refused" in line
    assert safe.measure(lambda: pytest.fail("nothing is drawn")) == {} and safe.describe(digits.images, "X") == ""
    assert capsys.readouterr().err == ""  # said once


class Trap:
    def __reduce__(self):
        return (Path("trapped").touch, ())


def test_a_file_of_weights_is_used_as_given(empty_hub, digits, inception_weights, tmp_path, monkeypatch):
    copy = tmp_path / "copy of weights.bin"
    copy.symlink_to(inception_weights)
    fid = FID(first(digits, 4), 64, weights=copy)
    assert fid.weights == copy and fid.weights_sha256 == file_hash(inception_weights)
    assert abs(fid.score(digits.images[:4])) < 1e-3

    with pytest.raises(FIDUnavailable, match=r"none\.pth: no such file"):
        FID(digits, 64, weights=tmp_path / "none.pth")
    assert not (tmp_path / "none.pth").exists()
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "junk.pth": b"junk",
        "half.pth": inception_weights.read_bytes()[:100_000],
        "trap.pth": pickle.dumps(Trap()),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FIDUnavailable, match=name) as caught:
            FID(digits, 64, weights=tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "trapped").exists()


def test_gray_is_rgb_and_sizes_may_differ(hub, digits, tmp_path):
    images = digits.images[:6]
    folder = write_folder(images, tmp_path / "reference" / "deeper")
    write_png(images[0].repeat_interleave(2, 2), folder / "wide.png")
    (folder.parent / "notes.txt").write_text("no image")
    fid = FID(folder.parent, 64)
    assert len(fid.reference) == 7
    gray, rgb = (fid.score(batch) for batch in (noisy(images, 30), noisy(images, 30).expand(-1, 3, -1, -1)))
    assert gray > 0.01 and gray == pytest.approx(rgb, rel=1e-4)


def test_a_sample_below_dims_warns_once(hub, digits, capsys):
    fid = FID(first(digits, 4), 64)
    for _ in range(2):
        fid.score(digits.images[:4])
    assert capsys.readouterr().err.count("4 images for the 64 dimensions") == 1


def test_what_cannot_be_measured(hub, digits, tmp_path, capsys):
    with pytest.raises(DataError, match="two or more"):
        FID(write_folder(digits.images[:1], tmp_path / "one"), 64)
    with pytest.raises(DataError, match="nowhere"):
        FID(tmp_path / "nowhere", 64)
    safe = SafeFID(lambda: FID(first(digits, 4), 64))
    capsys.readouterr()
    assert "two or more" in safe.measure(lambda: digits.images[:1])["fid_error"]

    def out_of_memory():
        raise MemoryError("all of it\nis used")

    assert safe.measure(out_of_memory) == {"fid_error": "MemoryError: all of it is used"}
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_randomness_of_the_run_is_left_alone(hub, digits):
    before = torch.get_rng_state()
    FID(first(digits, 4), 64).score(digits.images[:4])
    assert torch.equal(torch.get_rng_state(), before)


def settings_of(data_dir: Path, **more) -> TrainSettings:
    return TrainSettings(
        dataset="folder", data_dir=str(data_dir), image_size=8, nr_resnet=1, nr_filters=4, nr_logistic_mix=1,
        batch_size=8, max_epochs=2, sampling_interval=1, sample_batch_size=2, fid_samples=5, fid_dims=64, device="cpu",
        **more,
    )  # fmt: skip


@pytest.fixture
def own_folder(digits, tmp_path) -> Path:
    """A data set of two classes: 8 images to train, 4 to validate, 6 to test."""
    images = iter(digits.images)
    for split, count in (("train", 4), ("validation", 2), ("test", 3)):
        for name in ("a", "b"):
            write_folder([next(images) for _ in range(count)], tmp_path / "own" / split / name)
    return tmp_path / "own"


def train(settings: TrainSettings) -> list[dict]:
    from training.trainer import Trainer

    folder = Trainer(settings).run()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_failure_in_the_middle_of_a_run(hub, own_folder, tmp_path, monkeypatch, capsys, through_network):
    from pytorch_fid import fid_score

    real, calls = fid_score.calculate_frechet_distance, []

    def fails_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise ValueError("Imaginary\ncomponent 3")
        return real(*arguments)

    monkeypatch.setattr(fid_score, "calculate_frechet_distance", fails_first)
    settings = settings_of(own_folder, run_dir=str(tmp_path / "run"))
    one, two = train(settings)
    assert one["fid_error"] == "ValueError: Imaginary component 3" and UNOFFICIAL not in one
    assert np.isfinite(two[UNOFFICIAL]) and "fid_error" not in two
    assert "fid" not in one and "fid" not in two
    assert through_network == [6, 4, 4]  # the test split once, and 2 of each class an epoch
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if "Imaginary" in line] == [f"no FID this time: {one['fid_error']}"]
    assert f"{UNOFFICIAL} {two[UNOFFICIAL]:.2f}" in out

    without = train(dataclasses.replace(settings, fid_samples=0, run_dir=str(tmp_path / "without")))
    assert [report["train_bpd"] for report in without] == [one["train_bpd"], two["train_bpd"]]
    assert not any(key.startswith(("fid", "frechet")) for report in without for key in report)


def test_a_run_without_weights_says_so_once_and_trains_on(empty_hub, own_folder, tmp_path, capsys):
    reports = train(settings_of(own_folder, run_dir=str(tmp_path / "run")))
    assert [report["epoch"] for report in reports] == [1, 2]
    assert not any(key.startswith(("fid", "frechet")) for report in reports for key in report)
    assert sum("no FID" in line for line in capsys.readouterr().err.splitlines()) == 1


def test_nothing_is_loaded_where_fid_is_off(empty_hub, digits, capsys):
    for off in ({"fid_samples": 0}, {"sampling_interval": 0}):
        settings = dataclasses.replace(settings_of("x"), **off)
        assert TrainingFID(settings, digits, torch.device("cpu")).measure(None) == {}
    assert capsys.readouterr() == ("", "")


def test_draws_are_equal_per_class_and_the_network_stays_as_it_was(hub, own_folder):
    validation = load_split("folder", "validation", 8, own_folder)
    fid = TrainingFID(settings_of(own_folder), validation, torch.device("cpu"))
    net = PixelCNN(1, 4, 1, 3, 2).train()
    images = fid.draw(net)
    assert images.shape == (4, 3, 8, 8) and images.dtype == torch.uint8 and net.training
    assert torch.equal(images, fid.draw(net))


def test_reference_is_the_test_split_or_validation(hub, own_folder, digits, capsys):
    assert len(TrainingFID(settings_of(own_folder), digits, torch.device("cpu")).safe.fid.reference) == 6
    for file in (own_folder / "test").rglob("*.png"):
        file.unlink()
    assert TrainingFID(settings_of(own_folder), digits, torch.device("cpu")).safe.fid.reference is digits
    assert "against the validation images" in capsys.readouterr().err
    settings = dataclasses.replace(settings_of("x"), dataset="digits", data_dir=None)
    assert TrainingFID(settings, digits, torch.device("cpu")).safe.fid.reference is digits


def test_references_by_name(own_folder, tmp_path):
    assert parse_reference(str(own_folder), (8, 8), None) == own_folder
    assert parse_reference("digits:validation", (8, 8), None).images.shape == (360, 1, 8, 8)
    assert len(parse_reference("folder:test", (8, 8), str(own_folder))) == 6
    (tmp_path / "empty").mkdir()
    for wrong in ("nowhere", "cow:test", str(tmp_path / "empty")):
        with pytest.raises(UserError, match=r"--fid .*(nowhere|cow|empty)"):
            parse_reference(wrong, (8, 8), None)
    with pytest.raises(DataError, match="validation"):
        parse_reference("digits:test", (8, 8), None)


def test_cpen455_test_is_its_folder_as_published(tmp_path):
    (tmp_path / "test.csv").write_text("test/1.jpg,-1")
    with pytest.raises(DataError, match="put the test images there"):
        split_reference("cpen455", "test", 32, str(tmp_path))
    (tmp_path / "test").mkdir()
    assert split_reference("cpen455", "test", 32, str(tmp_path)) == tmp_path / "test"


def test_configurations():
    configs = {name: yaml.safe_load(Path("configs", f"{name}.yaml").read_text()) for name in ("cpen455", "digits")}
    assert configs["cpen455"]["fid_dims"] == 192 and configs["cpen455"]["fid_samples"] == 100
    assert configs["digits"]["fid_samples"] == 0
