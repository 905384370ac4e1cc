"""Lossless image files: how many bits a general-purpose compressor needs for an image."""

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from plots.images import to_pil
from utils.errors import UserError

# of the settings tried, those of the fewest bits for photos of 32x32; WebP's method 6 and JPEG XL's effort 9 take more
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "optimize": True},
    "webp": {"format": "WEBP", "lossless": True, "method": 4, "quality": 80},
    "jxl": {"format": "JXL", "lossless": True, "effort": 7},
}


def available_formats() -> list[str]:
    """Those of FORMATS that Pillow can write here; "jxl" needs the package pillow-jxl-plugin."""
    Image.init()
    plugin = find_spec("pillow_jxl") is not None
    return [name for name, options in FORMATS.items() if options["format"] in Image.SAVE or (name == "jxl" and plugin)]


def check_format(file_format: str) -> None:
    """Raise UserError where Pillow cannot write one of FORMATS here."""
    if file_format not in available_formats():
        package = "pillow-jxl-plugin" if file_format == "jxl" else "--force-reinstall pillow"
        raise UserError(f"Pillow cannot write {FORMATS[file_format]['format']} here; pip install {package}")


def compressed_bits(images: Tensor, file_format: str) -> Tensor:
    """The bits of each image's own lossless file, header included: uint8 [N, C, H, W] -> float64 [N].

    ``file_format`` is one of FORMATS. Raises UserError where Pillow cannot write it here.
    """
    check_format(file_format)
    options = FORMATS[file_format]
    if file_format == "jxl":
        import pillow_jxl  # noqa: F401  # registers the format

    def bits(image: Tensor) -> int:
        file = BytesIO()
        to_pil(image).save(file, **options)
        return 8 * len(file.getvalue())

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # Pillow releases the GIL
        return torch.tensor(list(pool.map(bits, images)), dtype=torch.float64)
