"""The Fréchet distance of pixels."""

import pytest
import torch

from evaluation import pixel_distance as distance
from evaluation.pixel_distance import pixel_distance
from model import PixelCNN, save_checkpoint
from utils.errors import DataError, UserError


def test_the_distance_is_0_to_itself_and_grows_with_noise():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(300, 3, 4, 4, generator=generator)
    images = (torch.nn.functional.interpolate(coarse, 32) * 255).to(torch.uint8)
    distances = [0.0]
    assert pixel_distance(images, images) == pytest.approx(0, abs=1e-3)
    for deviation in (20, 60, 200):
        noisy = images + deviation * torch.randn(images.shape, generator=generator)
        distances.append(pixel_distance(noisy.clamp(0, 255).to(torch.uint8), images))
    assert distances == sorted(distances) and distances[1] > 1e-3
    # a constant shift moves the mean of each of the 192 numbers by 51 / 255
    dark = (images * 0.5).to(torch.uint8)
    assert pixel_distance(dark + 51, dark) == pytest.approx(192 * 0.2**2, rel=1e-3)


def test_side_by_side_on_the_digits(tmp_path, capsys):
    checkpoint = str(tmp_path / "net.pt")
    names = tuple("0123456789")
    save_checkpoint(checkpoint, PixelCNN(1, 8, 2, 1, 10), image_size=(8, 8), class_names=names, dataset="digits")
    flags = ["--checkpoint", checkpoint, "--reference", "digits:train"]
    assert distance.main(flags) == 0
    rows = dict(line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    values = {name: float(value) for name, value in rows.items()}
    noisy = [values[f"real with noise of {level} levels"] for level in (8, 32, 64)]
    assert values["real (validation)"] < noisy[1] < noisy[2] < values["uniform noise"] and "samples" in values
    with pytest.raises(UserError, match="--reference"):
        distance.main(["--checkpoint", checkpoint, "--reference", "nothing"])
    with pytest.raises(UserError, match="a checkpoint of another data set"):
        distance.main(["--reference", "digits:train"])
    with pytest.raises(UserError, match="seed"):
        distance.main(["--checkpoint", checkpoint, "--seed", "-1"])


def test_a_reference_of_one_image_is_refused_before_anything_is_drawn(digits, tmp_path, write_folder, monkeypatch):
    monkeypatch.setattr(distance, "draw_images", lambda *_, **__: pytest.fail("drawn"))
    checkpoint = str(tmp_path / "net.pt")
    save_checkpoint(checkpoint, PixelCNN(1, 4, 1, 3, 2), image_size=(8, 8), class_names=("a", "b"), dataset="folder")
    for split, name in (("train", "a"), ("train", "b"), ("validation", "a"), ("validation", "b"), ("test", "a")):
        write_folder(digits.images[:1], tmp_path / "own" / split / name)
    flags = ["--checkpoint", checkpoint, "--reference", "folder:test", "--data_dir", str(tmp_path / "own")]
    with pytest.raises(DataError, match="folder:test has 1 images"):
        distance.main(flags)
