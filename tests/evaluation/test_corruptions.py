"""Corruptions of images."""

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.corruptions import CORRUPTIONS, corrupt
from utils.errors import UserError

NAMES = list(CORRUPTIONS)


def photos(count: int = 6, channels: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    """Smooth images with some detail, in the middle of the range."""
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.rand(count, channels, side, side, generator=generator) for side in (4, 16))
    size = {"size": (height, width), "mode": "bilinear"}
    scaled = [torch.nn.functional.interpolate(noise, **size) for noise in (coarse, fine)]
    return (50 + 110 * scaled[0] + 40 * scaled[1]).to(torch.uint8)


def change(images: torch.Tensor, name: str, strength: int) -> float:
    return (corrupt(images, name, strength).double() - images.double()).abs().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_a_stronger_corruption_changes_more(name):
    changes = [change(photos(20), name, strength) for strength in range(1, 6)]
    assert len(CORRUPTIONS[name]) == 5
    assert 0 < changes[0] < changes[4] and changes[0] < changes[2] < changes[4]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 32, 32), (3, 32, 32), (1, 8, 8), (3, 20, 28), (3, 4, 4)])
def test_shapes_and_types_stay(name, channels, height, width):
    images = photos(3, channels, height, width)
    before = images.clone()
    for strength in (1, 5):
        result = corrupt(images, name, strength)
        assert result.shape == images.shape and result.dtype == torch.uint8
    assert torch.equal(images, before)
    assert corrupt(images[:0], name, 3).shape == (0, channels, height, width)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_corrupted_alike_in_any_company(name):
    images = photos()
    whole = corrupt(images, name, 3, seed=4)
    assert torch.equal(whole, corrupt(images, name, 3, seed=4))
    assert torch.equal(whole[[5, 2]], corrupt(images[[5, 2]], name, 3, seed=4))
    random = name in ("gaussian_noise", "rotation", "occlusion")
    assert torch.equal(whole, corrupt(images, name, 3, seed=5)) != random


@pytest.mark.parametrize("name", ["gaussian_blur", "brightness", "contrast", "pixelate"])
def test_gray_images_are_corrupted_like_equal_channels(name):
    gray = photos(channels=1)
    assert torch.equal(corrupt(gray.expand(-1, 3, -1, -1), name, 4), corrupt(gray, name, 4).expand(-1, 3, -1, -1))


def test_noise_has_its_deviation():
    images = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    noise = corrupt(images, "gaussian_noise", 3).double() - 128
    assert noise.std().item() == pytest.approx(0.08 * 255, rel=0.02) and abs(noise.mean().item()) < 0.4
    assert (noise[0] - noise[1]).abs().max() == 0  # equal images
    images[1, 0, 0, 0] = 129
    assert (corrupt(images, "gaussian_noise", 3)[0] != corrupt(images, "gaussian_noise", 3)[1]).double().mean() > 0.9


def test_brightness_is_added_to_the_value():
    image = torch.tensor([60, 120, 30], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 4, 4)
    hue, saturation, value = colorsys.rgb_to_hsv(60 / 255, 120 / 255, 30 / 255)
    expected = [round(255 * level) for level in colorsys.hsv_to_rgb(hue, saturation, value + 0.2)]
    assert corrupt(image, "brightness", 4)[0, :, 0, 0].tolist() == expected == [86, 171, 43]
    levels = torch.tensor([0, 100, 250], dtype=torch.uint8)[:, None, None, None]
    for channels in (1, 3):
        bright = corrupt(levels.expand(-1, channels, 4, 4), "brightness", 4)
        assert bright.amin(dim=(1, 2, 3)).tolist() == bright.amax(dim=(1, 2, 3)).tolist() == [51, 151, 255]


def test_contrast_is_around_the_mean_of_each_channel():
    constant = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(corrupt(constant, "contrast", 5), constant)
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[:, 0, :, 4:], image[:, 1] = 200, 40  # means 100, 40, 0
    result = corrupt(image, "contrast", 2)[0]
    assert result[0].unique().tolist() == [50, 150] and result[1:].unique().tolist() == [0, 40]


def test_blur_of_a_point_is_a_gaussian():
    image = torch.zeros(1, 1, 17, 17, dtype=torch.uint8)
    image[..., 8, 8] = 255
    weights = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    weights /= weights.sum()
    expected = (255 * np.outer(weights, weights)).round()
    assert np.array_equal(corrupt(image, "gaussian_blur", 5)[0, 0, 4:13, 4:13].numpy(), expected)


def test_jpeg_is_that_of_pillow():
    image = photos(1)[0]
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    decoded = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    assert torch.equal(corrupt(image[None], "jpeg", 5)[0], decoded)


def test_pixels_of_a_pixelated_image_are_larger():
    result = corrupt(photos(), "pixelate", 5)  # int(32 * 0.65) = 20 of 32 rows
    rows = (result.diff(dim=2) != 0).any(dim=3).any(dim=1).sum(dim=1) + 1
    assert rows.tolist() == [20] * 6


def test_rotation_turns_about_the_centre_and_reflects_the_border():
    flat = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
    assert torch.equal(corrupt(flat, "rotation", 5), flat)  # nothing comes in from outside
    line = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    line[..., 15:18, :] = 255
    turned = corrupt(line, "rotation", 5)[0, 0].numpy().astype(float)
    diagonals = [np.trace(turned), np.trace(turned[:, ::-1])]
    assert max(diagonals) > 0.99 * 33 * 255 and min(diagonals) < 0.3 * 33 * 255
    directions = {np.trace(image[0].numpy().astype(int)) > 4000 for image in turned_lines()}
    assert directions == {True, False}


def turned_lines() -> torch.Tensor:
    lines = torch.zeros(16, 1, 33, 33, dtype=torch.uint8)
    lines[..., 15:18, :] = 255
    lines[:, 0, 0, 0] = torch.arange(16)  # so that they differ
    return corrupt(lines, "rotation", 5)


def test_the_occluded_area():
    black = torch.zeros(1, 3, 20, 30, dtype=torch.uint8)
    for strength, side in enumerate((4, 6, 8, 10, 12), start=1):
        gray = (corrupt(black, "occlusion", strength)[0] == 128).all(dim=0)
        assert gray.sum() == side**2
        rows, columns = gray.any(dim=1).nonzero(), gray.any(dim=0).nonzero()
        assert len(rows) == len(columns) == side


def test_other_names_and_strengths_are_refused():
    with pytest.raises(UserError, match="no corruption 'fog': choose one of gaussian_noise"):
        corrupt(photos(1), "fog", 1)
    for strength in (0, 6):
        with pytest.raises(UserError, match="choose 1 to 5"):
            corrupt(photos(1), "jpeg", strength)
