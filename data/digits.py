"""scikit-learn's handwritten digits: 1797 gray images of 8x8, bundled with the library."""

from pathlib import Path

import numpy as np

from data.splits import split_arrays
from data.types import ImageSet, Source


def load(split: str, image_size: tuple[int, int], data_dir: Path | None) -> ImageSet:
    """Return 80 % of the digits as train or 20 % as validation, uint8 [N, 1, H, W]; `data_dir` is not used."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = (digits.images * 255 / 16).round().astype(np.uint8)[:, None]  # 0..16 -> 0..255
    return split_arrays("digits", split, levels, digits.target, "0123456789", image_size, 0.2)


SOURCE = Source(channels=1, image_size=8, splits=("train", "validation"), load=load)
