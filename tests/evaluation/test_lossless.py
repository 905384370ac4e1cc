"""Bits of lossless files."""

from importlib.util import find_spec
from io import BytesIO

import pytest
import torch
from PIL import Image

from data.images import readable_formats
from evaluation.lossless import FORMATS, available_formats, compressed_bits
from utils.errors import UserError


def noise(count: int, channels: int, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator).to(torch.uint8)


def test_each_image_has_the_bits_of_its_own_file_in_order():
    images = noise(20, 3)
    images[::2] = images[::2, :, :1, :1]  # of one colour
    sizes = []
    for image in images:
        file = BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG", optimize=True)
        sizes.append(8.0 * len(file.getvalue()))
    bits = compressed_bits(images, "png")
    assert bits.dtype == torch.float64 and bits.tolist() == sizes and max(sizes[::2]) < min(sizes[1::2])
    assert compressed_bits(images[:0], "png").shape == (0,)


@pytest.mark.parametrize("file_format", FORMATS)
def test_noise_cannot_be_compressed_and_one_colour_can(file_format):
    if file_format not in available_formats():
        pytest.skip("Pillow cannot write it here")
    for channels in (1, 3):
        values = channels * 64 * 64
        of_noise = compressed_bits(noise(1, channels, 64), file_format) / values
        assert 7.9 < of_noise.item() < 9.1  # it is lossless
        assert compressed_bits(torch.full((1, channels, 64, 64), 77, dtype=torch.uint8), file_format) < 0.3 * values


def test_a_format_that_pillow_cannot_write_is_one_line(monkeypatch):
    assert "png" in available_formats() and ("jxl" in available_formats()) == (find_spec("pillow_jxl") is not None)
    monkeypatch.setattr(Image, "SAVE", {name: save for name, save in Image.SAVE.items() if name != "WEBP"})
    assert "webp" not in available_formats()
    with pytest.raises(UserError, match="Pillow cannot write WEBP here; pip install"):
        compressed_bits(noise(1, 3), "webp")


def test_the_plugin_does_not_change_what_can_be_read():
    pytest.importorskip("pillow_jxl")
    compressed_bits(noise(1, 3), "jxl")
    assert "JXL" in Image.OPEN
    readable_formats.cache_clear()
    assert "JXL" not in readable_formats()
