"""Finding, decoding and resizing image files."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from .types import DataError, reason

MAX_PIXELS = Image.MAX_IMAGE_PIXELS  # Pillow itself only warns here, and refuses at twice this
UNUSED_FORMATS = {
    *("BUFR", "GRIB", "HDF5", "MPEG"),  # Pillow names these but cannot decode them
    "EPS",  # a PostScript program, which Pillow would have Ghostscript run
}
LARGE = 2**24  # pixels; decoding more takes hundreds of megabytes, so that one thread at a time does it
_one_large_at_a_time = threading.Lock()
DRAFT_FACTOR = 4  # large JPEGs are decoded small, to save memory, but never below 4 x the target


def find_images(path: str | Path, unlisted: Callable[[OSError], None] | None = None) -> list[Path]:
    """List the image files below a folder.

    Goes down recursively, sorted by path, without hidden files and folders. Follows links to folders, but
    reads each folder once, so a loop of links ends. A single file is returned as it is.

    Args:
        path: a folder, or a file.
        unlisted: called for a folder that cannot be listed, instead of an error; the others go on.

    Raises:
        DataError: `path` does not exist, or a folder below it cannot be listed.
    """
    path = Path(path)
    if os.path.isfile(path):  # unlike path.is_file(), False rather than an exception for an impossible name
        return [path]
    if not os.path.isdir(path):
        raise DataError(
            f"{path}: {'neither a file nor a folder' if os.path.exists(path) else 'no such file or folder'}"
        )
    extensions = _image_extensions()
    found: list[Path] = []
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(path, onerror=unlisted or _refuse_folder, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in extensions
        ]
    return sorted(found)


def _image_extensions() -> set[str]:
    formats = _formats()
    return {ext for ext, name in Image.registered_extensions().items() if name in formats}


@cache
def _formats() -> list[str]:
    Image.init()  # loads every plugin, which fills Image.OPEN
    return [name for name in Image.OPEN if name not in UNUSED_FORMATS]


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"{error.filename}: this folder cannot be listed ({error.strerror})") from error


def read_image(file: str | Path | BinaryIO, channels: int, image_size: int | tuple[int, int]) -> torch.Tensor:
    """Decode one image file to 8-bit levels.

    Any mode Pillow can decode becomes gray or RGB: transparency over white, 16 bits rounded to 8, EXIF
    rotation applied, the first frame of an animation. The whole image is squeezed into the target size
    (bicubic with antialiasing, no crop); at the target size already, its pixels come through unchanged.

    Args:
        file: path, or a binary file object.
        channels: 1 (gray) or 3 (RGB).
        image_size: target side, or (H, W).

    Returns:
        uint8 [C, H, W].

    Raises:
        DataError: the file is missing or is no readable image.
    """
    mode = {1: "L", 3: "RGB"}[channels]
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    try:
        if not hasattr(file, "read") and os.path.exists(file) and not (os.path.isfile(file) or os.path.isdir(file)):
            raise ValueError("not a regular file")  # to open a pipe is to wait for ever
        with Image.open(file, formats=_formats()) as opened:
            pixels = opened.width * opened.height
            if pixels > MAX_PIXELS:
                raise ValueError(f"{opened.width}x{opened.height} pixels, over the limit of {MAX_PIXELS}")
            side = DRAFT_FACTOR * max(height, width)  # max: EXIF may yet swap the sides
            opened.draft(None, (side, side))
            with _one_large_at_a_time if pixels > LARGE else nullcontext():
                image = _to_rgb(_upright(opened), opened.format).convert(mode)
                return _to_tensor(image.resize((width, height), Image.Resampling.BICUBIC))
    except Exception as error:  # on garbage, Pillow's decoders raise nearly every built-in exception
        name = getattr(file, "name", "image") if hasattr(file, "read") else file
        raise DataError(f"{name}: not a readable image ({reason(error)})") from error


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
    return image.convert("RGB")  # even for a gray result: Pillow converts LAB to nothing else


def _to_gray(image: Image.Image, file_format: str | None) -> Image.Image:
    """Scale 16-bit, 32-bit and float gray to 8 bits; Pillow's own conversion clips them."""
    levels = np.asarray(image).astype(np.float64)
    if not np.isfinite(levels).all():
        raise ValueError("some pixels are not finite numbers")
    if image.mode == "F":
        white = 1 if levels.min() >= 0 and levels.max() <= 1 else 255
    elif image.mode == "I" and file_format not in ("PNG", "PPM") and levels.max() <= 255:
        white = 255  # 8-bit levels in a 32-bit file; PNG and PPM in mode I are always 16-bit
    elif levels.max() <= 65535:
        white = 65535
    else:
        raise ValueError(f"integer pixels up to {levels.max():.0f}, only 8 and 16 bits have a known white")
    return Image.fromarray(np.rint(levels * 255 / white).clip(0, 255).astype(np.uint8))


def _to_tensor(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image))  # [H, W] or [H, W, 3]
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def read_images(
    files: Sequence[Path],
    channels: int,
    image_size: tuple[int, int],
    description: str,
) -> torch.Tensor:
    """Decode many files, each once, with a progress bar: uint8 [N, C, H, W].

    Raises:
        DataError: a file is missing or is no readable image.
    """
    read = partial(read_image, channels=channels, image_size=image_size)
    return _fill(read, files, (channels, *image_size), description)


def resize_images(images: torch.Tensor, image_size: tuple[int, int], description: str) -> torch.Tensor:
    """Resize uint8 [N, C, h, w] to [N, C, H, W] just as `read_image` does; unchanged at that size already."""
    height, width = image_size
    if images.shape[2:] == image_size:
        return images

    def resize(pixels: torch.Tensor) -> torch.Tensor:
        image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())  # squeeze(2) drops C = 1 only
        return _to_tensor(image.resize((width, height), Image.Resampling.BICUBIC))

    return _fill(resize, images, (images.shape[1], height, width), description)


def _fill(
    make: Callable[..., torch.Tensor],
    items: Sequence[Path] | torch.Tensor,
    shape: tuple[int, int, int],
    description: str,
) -> torch.Tensor:
    images = torch.empty(len(items), *shape, dtype=torch.uint8)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # Pillow releases the GIL
        made = tqdm(pool.map(make, items), description, len(items), leave=False, disable=None)
        for image, slot in zip(made, images, strict=True):
            slot.copy_(image)
    return images
