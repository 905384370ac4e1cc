"""scikit-learn's handwritten digits: 1797 gray images of 8x8, bundled with the library."""

from pathlib import Path

import torch

from data.images import resize_images
from data.splits import stratified_split
from data.types import ImageSet, Source


def load(split: str, image_size: tuple[int, int], data_dir: Path | None) -> ImageSet:
    """Return 80 % of the digits as train or 20 % as validation, uint8 [N, 1, H, W]; `data_dir` is not used."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)  # 0..16 -> 0..255
    train, validation = stratified_split(digits.target, 0.2)
    chosen = {"train": train, "validation": validation}[split]
    return ImageSet(
        images=resize_images(levels[chosen].unsqueeze(1), image_size, f"resizing digits {split}"),
        labels=torch.from_numpy(digits.target[chosen]).long(),
        class_names=tuple("0123456789"),
        paths=tuple(f"digits/{split}/{i:05d}" for i in range(len(chosen))),
    )


SOURCE = Source(channels=1, image_size=8, splits=("train", "validation"), load=load)
