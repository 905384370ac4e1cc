"""Features against those of pytorch-fid's own code, and the file of its weights."""

import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import inception
from evaluation.fid import FID, SafeFID, gaussian
from evaluation.inception import InceptionFeatures
from plots.images import write_png
from utils import download
from utils.errors import DataError, UserError
from utils.files import file_hash


def theirs(files, features: InceptionFeatures) -> np.ndarray:
    """pytorch-fid's features of files, [N, dims]."""
    from pytorch_fid.fid_score import get_activations
    from pytorch_fid.inception import InceptionV3

    network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[features.dims]])
    size = min(len(files), 50)
    return get_activations(files, network, size, features.dims, num_workers=0)


def rgb(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("dims", [64, 192, 768, 2048])
def test_features_are_those_of_pytorch_fid(hub, digits, write_folder, tmp_path, dims):
    features = InceptionFeatures(dims)
    for number, images in enumerate((digits.images[:3], rgb(3, 9, 7))):
        files = sorted(write_folder(images, tmp_path / str(number)).iterdir())
        expected = theirs(files, features)
        assert expected.shape == (3, dims) and expected.std() > 1e-3
        for ours in (features(images), features(files)):
            assert ours.dtype == expected.dtype
            np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6 * expected.std())


def test_statistics_are_those_of_pytorch_fid_over_several_batches(hub, digits, write_folder, tmp_path, batch_sizes):
    from pytorch_fid.fid_score import calculate_activation_statistics

    files = sorted(write_folder(digits.images, tmp_path / "files").iterdir())
    features = InceptionFeatures(64)
    expected = calculate_activation_statistics(files, features.network, 50, 64, "cpu", num_workers=0)
    for images in (digits.images, files):
        for ours, one in zip(gaussian(features(images)), expected, strict=True):
            np.testing.assert_allclose(ours, one, rtol=1e-6, atol=1e-9)
    assert batch_sizes == [50, 20] * 3


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "CMYK", "I;16"])
def test_files_are_converted_as_pytorch_fid_does(hub, tmp_path, mode):
    file = tmp_path / "image.tif"
    picture = Image.fromarray(rgb(1, 9, 7)[0].permute(1, 2, 0).numpy())
    picture = picture.convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
    picture.save(file)
    features = InceptionFeatures(64)
    np.testing.assert_allclose(features([file]), theirs([file], features), rtol=1e-6)


def test_images_of_one_size_share_a_batch(hub, tmp_path, batch_sizes):
    files = []
    for number, side in enumerate((8, 8, 9, 8)):
        files.append(tmp_path / f"{number}.png")
        write_png(rgb(1, side, 8)[0], files[-1])
    features = InceptionFeatures(64)
    together = features(files)
    assert batch_sizes == [2, 1, 1]
    np.testing.assert_allclose(together, np.concatenate([features([file]) for file in files]), rtol=1e-4)


def test_a_damaged_file_is_named(hub, tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"damaged\.png: not a readable image .*; replace or remove it"):
        InceptionFeatures(64)([tmp_path / "damaged.png"])


def test_the_official_hash_is_the_one_in_the_official_name():
    from pytorch_fid.inception import FID_WEIGHTS_URL

    assert FID_WEIGHTS_URL.endswith(f"-{inception.OFFICIAL_SHA256}.pth")


def test_unreachable_weights_are_one_line_with_file_and_folder(empty_hub, digits, capsys):
    safe = SafeFID(lambda: FID(digits, 64))
    out, err = capsys.readouterr()
    assert out == "" and sum("Inception weights" in line for line in err.splitlines()) == 1
    line = err.splitlines()[-1]
    assert "pt_inception-2015-12-05-6726825d.pth" in line and str(empty_hub / "checkpoints") in line
    assert "--fid_weights" in line and "refused" in line
    assert safe.measure(lambda: pytest.fail("nothing is drawn")) == {} and safe.describe({}, 70, "X") == ""
    assert capsys.readouterr().err == ""  # said once


class Trap:
    def __reduce__(self):
        return (Path("trapped").touch, ())


def test_a_file_of_weights_is_used_as_given(empty_hub, digits, inception_weights, tmp_path, monkeypatch):
    copy = tmp_path / "copy of weights.bin"
    copy.symlink_to(inception_weights)
    fid = FID(digits, 64, weights=copy)
    assert fid.inception.weights == copy and fid.inception.weights_sha256 == file_hash(inception_weights)
    assert abs(fid.score(digits.images)) < 1e-3

    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        FID(digits, 64, weights=tmp_path / "none.pth")
    assert not (tmp_path / "none.pth").exists()
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "junk.pth": b"junk",
        "half.pth": inception_weights.read_bytes()[:100_000],
        "trap.pth": pickle.dumps(Trap()),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            FID(digits, 64, weights=tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "trapped").exists()


def download_from(url: str, monkeypatch) -> None:
    from pytorch_fid import inception as pytorch_fid_inception

    monkeypatch.setattr(pytorch_fid_inception, "FID_WEIGHTS_URL", url)


def test_a_download_is_kept_under_the_official_name(empty_hub, inception_weights, monkeypatch, capsys):
    url, folder = inception_weights.as_uri(), empty_hub / "checkpoints"
    download_from(url, monkeypatch)
    monkeypatch.setattr(inception, "OFFICIAL_SHA256", file_hash(inception_weights)[:8])
    features = InceptionFeatures(64)
    assert features.weights == folder / inception_weights.name and features.official
    assert features.weights.read_bytes() == inception_weights.read_bytes()
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [f"downloading {url} to {folder}"]
    InceptionFeatures(64)
    assert capsys.readouterr().err == ""


def test_a_download_with_another_sha256_is_not_kept(empty_hub, inception_weights, monkeypatch):
    download_from(inception_weights.as_uri(), monkeypatch)
    with pytest.raises(UserError, match=r"could not be downloaded .*invalid hash value"):
        InceptionFeatures(64)
    assert list((empty_hub / "checkpoints").iterdir()) == []


def test_a_silent_server_does_not_hold_up_a_run(empty_hub, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        download_from(f"http://127.0.0.1:{silent.getsockname()[1]}/weights.pth", monkeypatch)
        with pytest.raises(UserError, match="timed out"):
            InceptionFeatures(64)
    assert socket.getdefaulttimeout() is None
