"""FID against pytorch-fid, on random weights under the name of its official file."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from data import ImageSet
from evaluation import inception
from evaluation.fid import FID, SafeFID
from evaluation.fid_reference import count_rotated, open_reference, parse_reference, split_reference
from plots.images import write_png
from utils.errors import DataError, UserError
from utils.files import file_hash

UNOFFICIAL = "frechet_distance_unofficial_weights"


def first(split: ImageSet, count: int) -> ImageSet:
    return dataclasses.replace(split, images=split.images[:count], labels=split.labels[:count])


def noisy(images: torch.Tensor, deviation: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + deviation * noise).clamp(0, 255).to(torch.uint8)


def test_zero_to_itself_and_more_with_noise_as_pytorch_fid_says(hub, digits, tmp_path, capsys, write_folder):
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


def test_reference_goes_through_the_network_once(hub, digits, tmp_path, batch_sizes, write_folder):
    images = digits.images[:12]
    reference = write_folder(images, tmp_path / "reference")
    one = FID(reference, 64)
    scores = [one.score(noisy(images, 30)), one.score(noisy(images, 30))]
    assert batch_sizes == [12, 12, 12]
    renamed = tmp_path / "same_pixels"
    renamed.mkdir()
    for file in reference.iterdir():
        (renamed / f"other_{file.name}").write_bytes(file.read_bytes())
    scores.append(FID(renamed, 64).score(noisy(images, 30)))
    assert batch_sizes[3:] == [12]
    assert scores[0] > 0.01 and scores == pytest.approx([scores[0]] * 3, abs=1e-3)

    write_png(255 - images[0], renamed / "other_000.png")
    changed = FID(renamed, 64).score(noisy(images, 30))
    assert batch_sizes[4:] == [12, 12] and abs(changed - scores[0]) > 1e-3


def test_cache_is_what_pytorch_fid_writes(hub, digits, tmp_path, write_folder):
    from pytorch_fid.fid_score import compute_statistics_of_path, save_fid_stats

    folder = write_folder(digits.images[:12], tmp_path / "reference")
    assert len(FID(folder, 64).reference_statistics) == 2
    (cached,) = (hub / "fid_statistics").iterdir()
    save_fid_stats([str(folder), str(tmp_path / "theirs.npz")], 12, "cpu", 64, num_workers=0)
    ours, theirs = np.load(cached), np.load(tmp_path / "theirs.npz")
    assert sorted(ours) == sorted(theirs) == ["mu", "sigma"]
    for key in theirs:
        assert ours[key].dtype == theirs[key].dtype
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5)
    mu, sigma = compute_statistics_of_path(str(cached), None, 1, 64, "cpu")
    assert mu.shape == (64,) and sigma.shape == (64, 64)


def test_caches_of_earlier_versions_stay_valid(hub, digits, write_folder, inception_weights, tmp_path):
    folder = write_folder(digits.images[:3], tmp_path / "reference")
    files = "".join(sorted(file_hash(file) for file in folder.iterdir()))
    shape = b"(3, 1, 8, 8)"
    for reference, content in (
        (folder, files.encode()),
        (first(digits, 3), shape + digits.images[:3].numpy().tobytes()),
    ):
        key = f"64 {file_hash(inception_weights)} {hashlib.sha256(content).hexdigest()}"
        cached = hub / "fid_statistics" / f"64_{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        cached.parent.mkdir(exist_ok=True)
        np.savez_compressed(cached, mu=np.full(64, 7.0), sigma=np.eye(64))
        mu, sigma = FID(reference, 64).reference_statistics
        assert (mu == 7).all() and (sigma == np.eye(64)).all()


@pytest.mark.parametrize("damage", ["half", "empty", "other dims", "not finite"])
def test_damaged_cache_is_computed_anew(hub, digits, damage, batch_sizes):
    reference = first(digits, 4)
    right = FID(reference, 64).reference_statistics
    (cached,) = (hub / "fid_statistics").iterdir()
    if damage == "half":
        cached.write_bytes(cached.read_bytes()[:1000])
    elif damage == "empty":
        cached.write_bytes(b"")
    elif damage == "other dims":
        np.savez(cached, mu=right[0][:3], sigma=right[1][:3, :3])
    else:
        np.savez(cached, mu=right[0] * np.nan, sigma=right[1])
    again = FID(reference, 64).reference_statistics
    assert batch_sizes == [4, 4]
    np.testing.assert_allclose(again[1], right[1])
    np.testing.assert_array_equal(FID(reference, 64).reference_statistics[0], again[0])
    assert batch_sizes == [4, 4] and [cached] == list((hub / "fid_statistics").iterdir())


def test_a_cache_that_cannot_be_written_only_warns(hub, digits, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    fid = FID(first(digits, 4), 64, cache_dir=tmp_path / "file" / "cache")
    assert abs(fid.score(digits.images[:4])) < 1e-3
    assert "were not kept" in capsys.readouterr().err


def test_never_called_fid_with_other_weights(hub, digits, inception_weights, monkeypatch, capsys):
    safe = SafeFID(lambda: FID(first(digits, 4), 64))
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "not the official" in err and UNOFFICIAL in err
    assert safe.fid.name == UNOFFICIAL
    measured = safe.measure(lambda: digits.images[:4])
    assert list(measured) == [UNOFFICIAL] and safe.describe(measured, 4, "X").startswith(f"{UNOFFICIAL} ")

    monkeypatch.setattr(inception, "OFFICIAL_SHA256", file_hash(inception_weights)[:8])
    capsys.readouterr()
    safe = SafeFID(lambda: FID(first(digits, 4), 64))
    assert capsys.readouterr().err == ""
    measured = safe.measure(lambda: digits.images[:4])
    assert list(measured) == ["fid"]
    weights = hub / "checkpoints" / inception_weights.name
    how = f"(pytorch-fid, dims 64, 4 images against the 4 of X, weights {weights})"
    assert safe.describe(measured, 4, "X") == f"fid {measured['fid']:.4f} {how}"
    assert safe.describe({"fid_error": "reason"}, 4, "X") == ""


def test_gray_is_rgb_and_sizes_may_differ(hub, digits, tmp_path, write_folder):
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
    assert capsys.readouterr().err.count("4 images are fewer than the 64 dimensions of FID") == 1


def test_what_cannot_be_measured(hub, digits, tmp_path, capsys, write_folder):
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
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[1] == "FID failed: MemoryError: all of it is used"


def test_randomness_of_the_run_is_left_alone(hub, digits):
    before = torch.get_rng_state()
    FID(first(digits, 4), 64).score(digits.images[:4])
    assert torch.equal(torch.get_rng_state(), before)


def test_references_by_name(own_folder, tmp_path):
    assert len(parse_reference(str(own_folder), (8, 8), None, 64)) == 18
    assert parse_reference("digits:validation", (8, 8), None, 64).images.shape == (360, 1, 8, 8)
    assert len(parse_reference("folder:test", (8, 8), str(own_folder), 64)) == 6
    (tmp_path / "empty").mkdir()
    for wrong in ("nowhere", "cow:test", "gone.npz", str(tmp_path / "empty")):
        with pytest.raises(UserError, match=r"--fid .*(nowhere|cow|gone|empty)"):
            parse_reference(wrong, (8, 8), None, 64)
    with pytest.raises(DataError, match="validation"):
        parse_reference("digits:test", (8, 8), None, 64)


def test_statistics_that_pytorch_fid_saved_are_a_reference(hub, digits, tmp_path, batch_sizes, write_folder):
    from pytorch_fid.fid_score import save_fid_stats

    folder, file = write_folder(digits.images[:12], tmp_path / "reference"), tmp_path / "statistics.npz"
    save_fid_stats([str(folder), str(file)], 12, "cpu", 64, num_workers=0)
    batch_sizes.clear()
    reference = parse_reference(str(file), (8, 8), None, 64)
    for given in (reference, file, str(file)):
        safe = SafeFID(lambda given=given: FID(given, 64))
        measured = safe.measure(lambda: noisy(digits.images[:12], 30))
    assert batch_sizes == [12] * 3 and not (hub / "fid_statistics").exists()  # the images alone, and nothing is cached
    assert measured[UNOFFICIAL] == pytest.approx(FID(folder, 64).score(noisy(digits.images[:12], 30)), rel=1e-3)
    assert measured[UNOFFICIAL] > 0.01
    assert "12 images against the statistics of X, weights" in safe.describe(measured, 12, "X")


RIGHT = {"mu": np.zeros(64), "sigma": np.eye(64)}
WRONG_STATISTICS = {
    "other dims": ({"mu": np.zeros(192), "sigma": np.eye(192)}, "192 dimensions, and --fid_dims is 64"),
    "no sigma": ({"mu": np.zeros(64)}, "sigma is not a file"),
    "another shape": (RIGHT | {"sigma": np.zeros(64)}, r"mu has shape \(64,\) and sigma \(64,\)"),
    "not finite": (RIGHT | {"mu": np.full(64, np.nan)}, "not finite"),
    "text": (RIGHT | {"mu": np.full(64, "x")}, "Cannot cast"),
    "pickled": (RIGHT | {"mu": np.full(64, None)}, "allow_pickle"),
    "half": (None, "not a .npz file"),
}


@pytest.mark.parametrize("wrong", WRONG_STATISTICS)
def test_wrong_statistics_are_one_line_before_weights_are_looked_for(empty_hub, tmp_path, capsys, wrong):
    arrays, words = WRONG_STATISTICS[wrong]
    file = tmp_path / "statistics.npz"
    np.savez(file, **(arrays or RIGHT))
    if arrays is None:
        file.write_bytes(file.read_bytes()[:1000])
    for read in (lambda: FID(file, 64), lambda: parse_reference(str(file), (8, 8), None, 64)):
        with pytest.raises(DataError, match=words) as caught:
            read()
        assert "\n" not in str(caught.value) and "stat" in str(caught.value)
    assert capsys.readouterr().err == "" and not empty_hub.exists()


def test_a_reference_of_one_image_is_refused_before_weights_are_looked_for(empty_hub, digits, tmp_path, write_folder):
    folder = write_folder(digits.images[:1], tmp_path / "one")
    for reference in (folder, first(digits, 1)):
        with pytest.raises(DataError, match="1 images; FID needs a reference of two or more"):
            FID(reference, 64)
    with pytest.raises(DataError, match=r"--fid .*one has 1 images"):
        parse_reference(str(folder), (8, 8), None, 64)
    assert not empty_hub.exists()


def test_photos_that_pytorch_fid_does_not_read_are_said(tmp_path, capsys, digits, write_folder):
    folder = write_folder(digits.images[:2], tmp_path / "reference")
    for name in ("1.HEIC", "2.heic", "notes.txt"):
        (folder / name).touch()
    assert len(open_reference(folder, 64)) == 2
    assert f"{folder}: FID leaves out 2 .heic; .heic cannot be read here" in capsys.readouterr().err


def test_rotated_files_are_counted_and_read_as_pytorch_fid_reads_them(hub, tmp_path, capsys):
    from pytorch_fid.fid_score import calculate_fid_given_paths

    folder = tmp_path / "reference"
    folder.mkdir()
    orientations = {"none.jpg": None, "1.jpg": 1, "6.jpg": 6, "8.png": 8, "3.tif": 3, "9.jpg": 9, "6.webp": 6}
    for number, (name, orientation) in enumerate(orientations.items()):
        exif = Image.Exif()
        if orientation is not None:
            exif[ExifTags.Base.Orientation] = orientation
        half = Image.linear_gradient("L").resize((40, 40)).point(lambda level, by=number: level // 2 + 8 * by)
        half.save(folder / name, exif=exif)
    (folder / "damaged.jpg").write_bytes(b"junk")
    assert count_rotated(sorted(folder.iterdir())) == 3  # 6.jpg, 8.png, 6.webp; a TIFF file is turned by Pillow itself
    (folder / "damaged.jpg").unlink()
    fid = FID(folder, 64)
    capsys.readouterr()
    drawn = folder.with_name("drawn")
    drawn.mkdir()
    for number in range(3):
        Image.effect_noise((40, 40), 40 + number).save(drawn / f"{number}.png")
    ours = [fid.score(sorted(drawn.iterdir())), FID(folder, 64).score(sorted(drawn.iterdir()))]
    err = capsys.readouterr().err  # said from the cache too
    assert err.count("3 of the 7 files of FID's reference have an orientation in their EXIF data") == 2
    theirs = calculate_fid_given_paths([str(drawn), str(folder)], 7, "cpu", 64, num_workers=0)
    assert ours == pytest.approx([theirs] * 2, rel=1e-3)


def test_cpen455_test_is_its_folder_as_published(tmp_path):
    (tmp_path / "test.csv").write_text("test/1.jpg,-1")
    with pytest.raises(DataError, match="put the test images there"):
        split_reference("cpen455", "test", 32, str(tmp_path))
    (tmp_path / "test").mkdir()
    assert split_reference("cpen455", "test", 32, str(tmp_path)) == tmp_path / "test"
