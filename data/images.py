"""Decoding and resizing image files."""

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from threading import RLock
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from utils.errors import DataError, reason

# Pillow itself only warns here, and raises at twice this
MAX_PIXELS: int = Image.MAX_IMAGE_PIXELS  # type: ignore[assignment]
MAX_BYTES = 8 * MAX_PIXELS  # 16-bit RGBA; some decoders read the whole file into memory
LARGE_PIXELS = 2**24
ONE_LARGE = RLock()  # converting an image at the limit takes gigabytes, so threads take turns
UNUSED_FORMATS = {
    *("BUFR", "GRIB", "HDF5", "MPEG"),  # Pillow registers these but cannot decode them
    "JXL",  # a plugin may register it at any moment, and what can be read must not depend on that
    "EPS",  # a PostScript program, which Pillow would run in Ghostscript
}
DRAFT_FACTOR = 4  # large JPEGs are decoded at reduced size to save memory, at least 4 x the target


@cache
def readable_formats() -> list[str]:
    Image.init()  # loads every plugin, which fills Image.OPEN
    return [name for name in Image.OPEN if name not in UNUSED_FORMATS]


def read_image(file: str | Path | BinaryIO, channels: int, image_size: int | tuple[int, int]) -> torch.Tensor:
    """Decode one image file to 8-bit levels.

    Any mode Pillow can decode becomes gray or RGB: transparency over white, 16 bits rounded to 8, EXIF
    rotation applied, the first frame of an animation. The whole image is resized to the target size
    (bicubic with antialiasing, no crop); an image of that size is unchanged.

    Args:
        file: path, or a binary file object.
        channels: 1 (gray) or 3 (RGB).
        image_size: target side, or (H, W).

    Returns:
        uint8 [C, H, W].

    Raises:
        DataError: the file is missing, not a regular file (a pipe is not opened) or not a readable image.
    """
    mode = {1: "L", 3: "RGB"}[channels]
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    try:
        return _decode(file, mode, height, width)
    except Exception as error:  # on garbage, Pillow's decoders raise nearly every built-in exception
        problem = reason(error)
    name = getattr(file, "name", "image") if hasattr(file, "read") else file
    raise DataError(f"{name}: not a readable image ({problem})")  # outside `except`: a cause keeps the decoded image


def _decode(file: str | Path | BinaryIO, mode: str, height: int, width: int) -> torch.Tensor:
    if not hasattr(file, "read"):
        _check_file(file)
    with ExitStack() as turn:
        if _is_icon(file):
            turn.enter_context(ONE_LARGE)
        opened = turn.enter_context(Image.open(file, formats=readable_formats()))
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width}x{opened.height} pixels, over the limit of {MAX_PIXELS}")
        side = DRAFT_FACTOR * max(height, width)  # max: EXIF may still swap the sides
        opened.draft(None, (side, side))
        if opened.width * opened.height > LARGE_PIXELS:
            turn.enter_context(ONE_LARGE)
        image = _to_rgb(_upright(opened), opened.format)
        return _to_tensor(image.convert(mode).resize((width, height), Image.Resampling.BICUBIC))


def _is_icon(file: str | Path | BinaryIO) -> bool:
    """Whether Pillow will open it as ICO, which is decoded on opening, before its size can be checked."""
    if not hasattr(file, "read"):
        with open(file, "rb") as opened:
            return _is_icon(opened)
    start = file.read(4)
    file.seek(-len(start), os.SEEK_CUR)  # type: ignore[union-attr]
    return start == b"\0\0\1\0"


def _check_file(path: str | Path) -> None:
    """Reject what must not be opened: opening a pipe blocks, and a device has no end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size} bytes, over the limit of {MAX_BYTES}")


def _upright(opened: Image.Image) -> Image.Image:
    opened.load()
    try:
        return ImageOps.exif_transpose(opened)
    except SyntaxError:  # the EXIF block is broken, the pixels are not
        return opened.copy()


def _to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _to_gray(image, file_format)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")  # even for a gray result: Pillow converts LAB only to RGB


def _to_gray(image: Image.Image, file_format: str | None) -> Image.Image:
    """Scale 16-bit, 32-bit and float gray to 8 bits; Pillow's own conversion clips them."""
    levels = np.asarray(image).astype(np.float64)
    if not np.isfinite(levels).all():
        raise ValueError("some pixels are non-finite")
    if image.mode == "F":
        white = 1 if levels.min() >= 0 and levels.max() <= 1 else 255
    elif image.mode == "I" and file_format not in ("PNG", "PPM") and levels.max() <= 255:
        white = 255  # 8-bit levels in a 32-bit file; PNG and PPM in mode I are always 16-bit
    elif levels.max() <= 65535:
        white = 65535
    else:
        raise ValueError(f"integer pixels up to {levels.max():.0f}, only 8 and 16 bits have a known white level")
    return Image.fromarray(np.rint(levels * 255 / white).clip(0, 255).astype(np.uint8))


def _to_tensor(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image))  # [H, W] or [H, W, 3]
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def read_images(
    files: Sequence[Path],
    channels: int,
    image_size: tuple[int, int],
    description: str,
) -> tuple[torch.Tensor, dict[int, str]]:
    """Decode many files, each once, with a progress bar.

    Returns:
        The images that can be read, in order, uint8 [N, C, H, W], and the errors of the others by their index in
        ``files``.
    """

    def read(file: Path) -> torch.Tensor | str:
        try:
            return read_image(file, channels, image_size)
        except DataError as error:
            return str(error)

    return _fill(read, files, (channels, *image_size), description)


def resize_images(images: torch.Tensor, image_size: tuple[int, int], description: str) -> torch.Tensor:
    """Resize uint8 [N, C, h, w] to [N, C, H, W] as `read_image` does; images of that size are unchanged."""
    height, width = image_size
    if images.shape[2:] == image_size:
        return images

    def resize(pixels: torch.Tensor) -> torch.Tensor:
        image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())  # squeeze(2) drops C = 1 only
        return _to_tensor(image.resize((width, height), Image.Resampling.BICUBIC))

    return _fill(resize, images, (images.shape[1], height, width), description)[0]


def _fill(
    make: Callable[..., torch.Tensor | str],
    items: Sequence[Path] | torch.Tensor,
    shape: tuple[int, int, int],
    description: str,
) -> tuple[torch.Tensor, dict[int, str]]:
    images = torch.empty(len(items), *shape, dtype=torch.uint8)
    errors: dict[int, str] = {}
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # Pillow releases the GIL
        made = tqdm(pool.map(make, items), description, len(items), leave=False, disable=None)
        for number, image in enumerate(made):
            if isinstance(image, str):
                errors[number] = image
            else:
                images[number - len(errors)].copy_(image)
    return images[: len(items) - len(errors)], errors
