"""Files that are no images, or too large, and how many large ones are in memory at once."""

import io
import struct
import time
import warnings

import pytest
from PIL import Image, ImageFile

from data import images as images_module
from data import read_image
from data.images import MAX_BYTES, MAX_PIXELS, ONE_LARGE, read_images
from tests.data.image_files import png, saved
from utils.errors import DataError

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
