"""read_image on files made here, against pixel values worked out by hand."""

import io

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from data import read_image
from data.images import read_images, resize_images
from tests.data.image_files import png, saved
from utils.errors import DataError


def row(*levels, mode="L", dtype=np.uint8):
    """One row of pixels as an image."""
    return Image.frombytes(mode, (len(levels), 1), np.array(levels, dtype).tobytes())


def pixels(file, channels, width=None, height=1):
    """The image as a list of levels (gray) or of (R, G, B), read at its own size."""
    width = width or Image.open(file).width
    image = read_image(file, channels, (height, width))
    assert image.dtype == torch.uint8 and image.shape == (channels, height, width)
    values = image.flatten(1).T.tolist()
    return [value[0] for value in values] if channels == 1 else [tuple(value) for value in values]


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_gray_and_rgb_come_through_unchanged(file_format):
    gray = row(0, 1, 127, 254, 255)
    assert pixels(saved(gray, file_format), 1) == [0, 1, 127, 254, 255]
    assert pixels(saved(gray, file_format), 3) == [(v, v, v) for v in (0, 1, 127, 254, 255)]
    colors = [(255, 0, 0), (0, 255, 0), (1, 2, 3)]
    assert pixels(saved(row(*colors, mode="RGB"), file_format), 3) == colors
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    assert pixels(saved(row(*colors, mode="RGB"), file_format), 1) == [76, 150, 2]


def test_channels_height_and_width_are_not_mixed_up():
    levels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    image = read_image(saved(Image.fromarray(levels), "PNG"), 3, (8, 12))
    assert image.is_contiguous()
    assert np.array_equal(image.numpy(), levels.transpose(2, 0, 1))


def test_palette():
    image = row(0, 1, 1, mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert pixels(saved(image, "PNG"), 3) == [(10, 20, 30), (200, 100, 50), (200, 100, 50)]
    # entry 0 transparent, so white; entry 1 half transparent: 255 + (colour - 255) * 128 / 255
    assert pixels(saved(image, "PNG", transparency=bytes([0, 128])), 3)[:2] == [
        (255, 255, 255),
        (227, 177, 152),
    ]
    assert pixels(saved(image, "GIF", transparency=1), 3) == [(10, 20, 30), (255, 255, 255), (255, 255, 255)]


def test_alpha_is_laid_over_white():
    image = row((10, 20, 30, 255), (10, 20, 30, 0), (0, 100, 255, 51), mode="RGBA")
    expected = [(10, 20, 30), (255, 255, 255), (204, 224, 255)]  # 51 is a fifth of 255
    assert pixels(saved(image, "PNG"), 3) == expected
    assert pixels(saved(image, "TIFF"), 3) == expected
    gray = row((10, 255), (10, 0), (100, 51), mode="LA")
    assert pixels(saved(gray, "PNG"), 1) == [10, 255, 224]
    assert pixels(saved(gray, "PNG"), 3) == [(10, 10, 10), (255, 255, 255), (224, 224, 224)]


def test_one_colour_declared_transparent():
    assert pixels(saved(row(7, 8), "PNG", transparency=7), 1) == [255, 8]
    assert pixels(saved(row((1, 2, 3), (4, 5, 6), mode="RGB"), "PNG", transparency=(1, 2, 3)), 3) == [
        (255, 255, 255),
        (4, 5, 6),
    ]


def test_one_bit():
    image = row(0, 255, 255, 0).convert("1")
    for file_format in ("PNG", "TIFF", "BMP", "PPM"):
        assert pixels(saved(image, file_format), 1) == [0, 255, 255, 0]
        assert pixels(saved(image, file_format), 3)[1] == (255, 255, 255)


def test_cmyk():
    image = row((0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255), (0, 51, 0, 0), mode="CMYK")
    expected = [(255, 255, 255), (0, 255, 255), (0, 0, 0), (255, 204, 255)]
    assert pixels(saved(image, "TIFF"), 3) == expected
    flat = Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # one colour survives JPEG's compression
    assert pixels(saved(flat, "JPEG", quality=100), 3, 8, 8) == [(0, 255, 255)] * 64


def test_ycbcr():
    image = row((255, 128, 128), (76, 85, 255), (0, 128, 128), mode="YCbCr")  # 76, 85, 255 is red in JFIF
    expected = [(255, 255, 255), (254, 0, 0), (0, 0, 0)]
    assert pixels(saved(image, "TIFF", compression="tiff_lzw"), 3) == expected
    if int(PIL.__version__.split(".")[0]) < 13:  # which Gradio 6 needs: it does not read such a file, and says so
        with pytest.raises(DataError, match="not a readable image"):
            pixels(saved(image, "TIFF"), 3)
    else:
        assert pixels(saved(image, "TIFF"), 3) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_lab(channels):
    levels = read_image(saved(row((255, 0, 0), (0, 0, 0), mode="LAB"), "TIFF"), channels, (1, 2))
    assert levels[:, 0, 0].min() >= 254  # L = 100 %, a = b = 0: white, give or take the colour management
    assert levels[:, 0, 1].max() <= 1


def test_sixteen_bit_gray_is_scaled_not_clipped():
    # level / 257 rounded: 128 -> 0.498, 129 -> 0.502, 384 -> 1.494, 65406 -> 254.498, 65407 -> 254.502
    levels = (0, 128, 129, 257, 384, 32768, 65406, 65407, 65535)
    expected = [0, 0, 1, 1, 1, 128, 254, 255, 255]
    little = row(*levels, mode="I;16", dtype="<u2")
    big = row(*levels, mode="I;16B", dtype=">u2")
    pgm = io.BytesIO(b"P5 9 1 65535\n" + np.array(levels, ">u2").tobytes())
    assert pixels(saved(little, "PNG"), 1) == expected
    assert pixels(saved(little, "TIFF"), 1) == expected
    assert pixels(saved(big, "TIFF"), 1) == expected
    assert pixels(pgm, 1) == expected
    assert pixels(saved(little, "PNG"), 3) == [(v, v, v) for v in expected]


def test_sixteen_bit_gray_stays_dark_when_it_is_dark():
    dark = (0, 100, 200, 255)
    pgm = io.BytesIO(b"P5 4 1 65535\n" + np.array(dark, ">u2").tobytes())
    for file in (saved(row(*dark, mode="I;16", dtype="<u2"), "PNG"), pgm):
        assert pixels(file, 1) == [0, 0, 1, 1]


def test_wide_integers():
    def tiff(*levels):
        return saved(row(*levels, mode="I", dtype=np.int32), "TIFF")

    assert pixels(tiff(0, 1, 200, 255), 1) == [0, 1, 200, 255]  # small values are 8-bit levels
    assert pixels(tiff(0, 257, 25700, 65535), 1) == [0, 1, 100, 255]
    assert pixels(tiff(-5, 0, 1, 255), 1) == [0, 0, 1, 255]
    with pytest.raises(DataError, match="65536"):
        pixels(tiff(0, 65536), 1)


def test_floats():
    def tiff(*levels):
        return saved(row(*levels, mode="F", dtype=np.float32), "TIFF")

    assert pixels(tiff(0, 0.5, 0.2, 1), 1) == [0, 128, 51, 255]
    assert pixels(tiff(-3, 1.4, 99.6, 300), 1) == [0, 1, 100, 255]
    assert pixels(tiff(-1, 0.7, 1), 1) == [0, 1, 1]  # not within 0..1, so levels
    with pytest.raises(DataError, match="finite"):
        pixels(tiff(0, float("nan")), 1)


def test_sixteen_bit_rgb():
    scanline = b"\0" + np.array([0, 257, 65535, 25700, 0, 514], ">u2").tobytes()
    assert pixels(png(2, 1, 16, 2, scanline), 3) == [(0, 1, 255), (100, 0, 2)]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[0, 1, 2], [3, 4, 5]]),
        (2, [[2, 1, 0], [5, 4, 3]]),
        (3, [[5, 4, 3], [2, 1, 0]]),
        (4, [[3, 4, 5], [0, 1, 2]]),
        (5, [[0, 3], [1, 4], [2, 5]]),
        (6, [[3, 0], [4, 1], [5, 2]]),
        (7, [[5, 2], [4, 1], [3, 0]]),
        (8, [[2, 5], [1, 4], [0, 3]]),
    ],
)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_exif_rotation(orientation, expected, file_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    image = read_image(saved(stored, file_format, exif=exif), 1, np.shape(expected))
    assert image[0].tolist() == expected


def test_broken_exif_does_not_lose_the_image():
    assert pixels(png(2, 1, 8, 0, b"\0\5\6", (b"eXIf", b"garbage")), 1) == [5, 6]


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(file_format):
    frames = [Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if file_format == "WEBP" else {}
    file = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(file).n_frames == 3
    assert pixels(file, 3, 4, 4) == [(255, 0, 0)] * 16


def test_shrinking_averages():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255  # finer than the target grid: without antialiasing all 0 or all 255
    image = read_image(saved(Image.fromarray(stripes), "PNG"), 1, 8)
    assert image.shape == (1, 8, 8)
    assert image.min() >= 120 and image.max() <= 135


def test_the_whole_image_is_squeezed_in():
    halves = np.zeros((20, 100), np.uint8)
    halves[:, 50:] = 255
    image = read_image(saved(Image.fromarray(halves), "PNG"), 1, (8, 4))
    assert image[0, :, 0].max() <= 5 and image[0, :, 3].min() >= 250


def test_transparent_colours_do_not_bleed_when_resizing():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))  # red, all transparent
    image.paste((255, 255, 255, 255), (0, 0, 8, 16))
    assert read_image(saved(image, "PNG"), 3, 4).min() == 255


@pytest.mark.parametrize("size", [(640, 480), (1000, 3000)])
def test_large_jpegs_are_read_like_others(size):
    ramp = np.add.outer(np.linspace(0, 127, size[1]), np.linspace(0, 127, size[0])).astype(np.uint8)
    image = Image.fromarray(ramp)
    exact = read_image(saved(image, "PNG"), 1, 16).int()
    assert (read_image(saved(image, "JPEG", quality=95), 1, 16).int() - exact).abs().max() <= 2


def test_large_jpegs_are_decoded_small(monkeypatch):
    decoded = []
    convert = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda im, mode: decoded.append(im.size) or convert(im, mode))
    read_image(saved(Image.new("RGB", (512, 512)), "JPEG"), 3, 32)
    assert decoded[0] == (128, 128)


def test_read_images_keeps_the_order(tmp_path):
    files = []
    for level in range(50):
        files.append(tmp_path / f"{level}.png")
        Image.new("L", (4, 4), level).save(files[-1])
    images, errors = read_images(files, 3, (4, 8), "reading")
    assert images.shape == (50, 3, 4, 8) and images.dtype == torch.uint8
    assert images[:, 2, 3, 7].tolist() == list(range(50)) and not errors
    files[7].write_bytes(b"")
    files[49].unlink()
    images, errors = read_images(files, 3, (4, 8), "reading")
    assert images[:, 2, 3, 7].tolist() == [*range(7), *range(8, 49)]
    assert list(errors) == [7, 49] and "7.png: not a readable image" in errors[7] and "No such file" in errors[49]


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_images_is_what_read_image_does(channels):
    levels = np.random.default_rng(1).integers(0, 256, (3, 12, 20, 3), dtype=np.uint8)
    images = [Image.fromarray(one).convert("L" if channels == 1 else "RGB") for one in levels]
    tensor = torch.stack([read_image(saved(image, "PNG"), channels, (12, 20)) for image in images])
    resized = resize_images(tensor, (8, 4), "resizing")
    expected = torch.stack([read_image(saved(image, "PNG"), channels, (8, 4)) for image in images])
    assert torch.equal(resized, expected)
    assert torch.equal(resize_images(tensor, (12, 20), "resizing"), tensor)
