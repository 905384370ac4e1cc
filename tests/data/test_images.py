"""read_image and find_images on files made here, against pixel values worked out by hand."""

import io
import os
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from data import find_images, read_image
from data import images as images_module
from data.images import MAX_BYTES, MAX_PIXELS, ONE_LARGE, read_images, resize_images
from utils.errors import DataError


def saved(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    file.seek(0)
    return file


def row(*levels, mode="L", dtype=np.uint8):
    """One row of pixels as an image."""
    return Image.frombytes(mode, (len(levels), 1), np.array(levels, dtype).tobytes())


def png(width, height, bits, color, scanlines, *chunks):
    """A PNG written by hand: for headers and depths Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n"
    for kind, content in [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(scanlines)), (b"IEND", b"")]:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        body += struct.pack(">I", len(content)) + kind + content + checksum
    return io.BytesIO(body)


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
    assert pixels(saved(image, "TIFF"), 3) == [(255, 255, 255), (254, 0, 0), (0, 0, 0)]


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


JPEG = saved(Image.effect_noise((64, 64), 50), "JPEG").getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is text",
        JPEG[: len(JPEG) // 2],
        JPEG[:20],
        b"\x89PNG\r\n\x1a\n",
        png(0, 4, 8, 0, b"").getvalue(),
        b"P5 4 4 255\n\1\2",
        b"P5 -4 4 255\n\1\2",
        b"GIF89a",
    ],
    ids=["empty", "text", "half", "start", "signature", "no-width", "pgm", "negative", "gif"],
)
def test_what_is_no_image(tmp_path, content):
    file = tmp_path / "broken.jpg"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.jpg: not a readable image \(.+\)$"):
        read_image(file, 3, 8)


def icon(side: int) -> bytes:
    """A PNG of ``side`` in an ICO, which Pillow decodes while it opens it."""
    stream = io.BytesIO()
    Image.new("RGBA", (side, side)).save(stream, "PNG")
    header = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, stream.tell(), 22)
    return header + stream.getvalue()


def test_icons_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    """They may be large before anyone can tell; what could not be read does not stay in memory with its error."""
    at_once = []
    load = ImageFile.ImageFile.load

    def watched(self):
        at_once.append(ONE_LARGE._is_owned())
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    (tmp_path / "a.ico").write_bytes(icon(64))
    assert read_image(tmp_path / "a.ico", 3, 8).shape == (3, 8, 8)
    assert at_once and all(at_once)
    assert not ONE_LARGE._is_owned()
    monkeypatch.setattr(images_module, "MAX_PIXELS", 64)
    with pytest.raises(DataError, match="64x64 pixels, over the limit") as raised:
        read_image(tmp_path / "a.ico", 3, 8)
    error: BaseException | None = raised.value
    assert error.__cause__ is None and error.__context__ is None
    locals_of = [frame.tb_frame.f_locals for frame in _frames(error.__traceback__)]
    assert not any(isinstance(value, Image.Image) for names in locals_of for value in names.values())


def _frames(trace):
    while trace is not None:
        yield trace
        trace = trace.tb_next


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "JPEG2000"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated(file_format, part):
    content = saved(Image.effect_noise((64, 64), 50), file_format).getvalue()
    assert read_image(io.BytesIO(content), 1, 8).shape == (1, 8, 8)
    with pytest.raises(DataError, match="not a readable image"):
        read_image(io.BytesIO(content[: int(len(content) * part)]), 1, 8)


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of the first, refuses the second
def test_decompression_bomb(side):
    assert side * side > MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(DataError, match="pixels"):
            read_image(png(side, side, 8, 0, b"\0"), 1, 8)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png.*No such file"):
        read_image(tmp_path / "gone.png", 3, 8)
    with pytest.raises(DataError, match="not a regular file"):
        read_image(tmp_path, 3, 8)
    with pytest.raises(DataError, match=r"x\.png"):
        read_image(str(tmp_path / "a\0x.png"), 3, 8)


def test_read_images_keeps_the_order(tmp_path):
    files = []
    for level in range(50):
        files.append(tmp_path / f"{level}.png")
        Image.new("L", (4, 4), level).save(files[-1])
    images = read_images(files, 3, (4, 8), "reading")
    assert images.shape == (50, 3, 4, 8) and images.dtype == torch.uint8
    assert images[:, 2, 3, 7].tolist() == list(range(50))
    files[7].write_bytes(b"")
    with pytest.raises(DataError, match=r"7\.png"):
        read_images(files, 3, (4, 8), "reading")


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_images_is_what_read_image_does(channels):
    levels = np.random.default_rng(1).integers(0, 256, (3, 12, 20, 3), dtype=np.uint8)
    images = [Image.fromarray(one).convert("L" if channels == 1 else "RGB") for one in levels]
    tensor = torch.stack([read_image(saved(image, "PNG"), channels, (12, 20)) for image in images])
    resized = resize_images(tensor, (8, 4), "resizing")
    expected = torch.stack([read_image(saved(image, "PNG"), channels, (8, 4)) for image in images])
    assert torch.equal(resized, expected)
    assert torch.equal(resize_images(tensor, (12, 20), "resizing"), tensor)


def test_find_images(tmp_path):
    wanted = ["a/b/1.JPG", "a/2.png", "b.gif", "c.webp", "c.tiff", "z.d/x.jpeg"]
    others = [
        "notes.txt",
        "a/.hidden.png",
        ".cache/3.png",
        "noextension",
        "x.png.txt",
        "d.h5",
        "e.pdf",
        "png",
    ]
    for name in wanted + others:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert find_images(tmp_path) == sorted(tmp_path / name for name in wanted)
    assert find_images(str(tmp_path / "a")) == [tmp_path / "a/2.png", tmp_path / "a/b/1.JPG"]
    assert find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


def test_find_images_below_a_hidden_folder(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/1.png").touch()
    assert find_images(tmp_path / ".cache") == [tmp_path / ".cache/1.png"]
    assert find_images(tmp_path) == []


def test_find_images_with_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.png").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/2.png").touch()
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    assert find_images(tmp_path / "set") == [tmp_path / "set/2.png", tmp_path / "set/linked/1.png"]


def test_special_files_are_found_and_refused_without_being_opened(tmp_path, special_files):
    words = special_files(tmp_path)
    assert find_images(tmp_path) == sorted(tmp_path / name for name in words)
    for name, word in words.items():
        assert find_images(tmp_path / name) == [tmp_path / name]
        with pytest.raises(DataError, match=rf"{name}: not a readable image \(.*{word}"):
            read_image(tmp_path / name, 3, 8)  # were the pipe opened, this would wait for ever


def test_a_file_too_large_to_hold(tmp_path):
    with open(tmp_path / "sparse.webp", "wb") as file:
        file.write(b"RIFF\xf0\xff\xff\xffWEBPVP8 ")
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match="bytes, over the limit"):
        read_image(tmp_path / "sparse.webp", 3, 8)


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(images_module, "LARGE_PIXELS", 15)
    inside, most = [], []
    upright = images_module._upright

    def counted(opened):
        inside.append(opened)
        most.append(len(inside))
        time.sleep(0.01)
        inside.remove(opened)
        return upright(opened)

    monkeypatch.setattr(images_module, "_upright", counted)
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    read_images([tmp_path / "x.png"] * 8, 1, (4, 4), "reading")
    assert most == [1] * 8


def test_folders_nested_deeper_than_python_recurses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    Path("deep.png").touch()
    try:
        assert [file.name for file in find_images(tmp_path)] == ["deep.png"]
    finally:  # pytest's own cleaning recurses
        Path("deep.png").unlink()
        for _ in range(1500):
            os.chdir("..")
            os.rmdir("d")


@pytest.mark.parametrize("name", ["gone", "x" * 5000, "a\0b"])
def test_find_images_in_no_folder(tmp_path, name):
    with pytest.raises(DataError, match="no such file or folder"):
        find_images(tmp_path / name)


def test_find_images_in_a_closed_folder(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=r"closed: .*Permission denied"):
        find_images(tmp_path)
    for name in ("a.png", "z.png"):
        (tmp_path / name).touch()
    unreadable = {}
    assert find_images(tmp_path, unreadable) == [tmp_path / name for name in ("a.png", "closed", "z.png")]
    assert list(unreadable) == [tmp_path / "closed"] and "Permission denied" in str(unreadable[tmp_path / "closed"])
