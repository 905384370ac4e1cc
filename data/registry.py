"""Registry of the data sets by name."""

import os
from pathlib import Path
from typing import Literal

from data import cpen455, digits, folder, torchvision_sets
from data.types import ImageSet, Source
from utils.errors import DataError

DatasetName = Literal["cpen455", "digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "svhn", "folder"]
DATASETS: dict[str, Source] = {
    "digits": digits.SOURCE,
    "cpen455": cpen455.SOURCE,
    **torchvision_sets.SOURCES,
    "folder": folder.SOURCE,
}


def load_split(
    name: str,
    split: str,
    image_size: int | tuple[int, int] | None = None,
    data_dir: str | Path | None = None,
    skip_bad_images: bool = False,
) -> ImageSet:
    """Read one split of a data set.

    Args:
        name: a key of DATASETS.
        split: train, validation or, if the source has it, test.
        image_size: side or (H, W), each at least 4 and a multiple of 4; None for the source's default.
        data_dir: folder with the files; None for `datasets/<name>` under the current directory.
        skip_bad_images: leave out the files that cannot be read, which are then in the set's ``bad``.

    Returns:
        ImageSet with images uint8 [N, C, H, W] and labels int64 [N].

    Raises:
        DataError: an invalid argument, missing data, or files that cannot be read, which it names.
    """
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}: choose one of {', '.join(DATASETS)}")
    source = DATASETS[name]
    if split not in source.splits:
        raise DataError(f"{name} has no split {split!r}: choose one of {', '.join(source.splits)}")
    size = _height_width(source.image_size if image_size is None else image_size)
    images = source.load(split, size, None if data_dir is None else Path(os.path.expanduser(data_dir)))
    if not (skip_bad_images and len(images)):  # without any there is nothing to train on
        check_readable(images)
    return images


def check_readable(*splits: ImageSet) -> None:
    """Raise DataError that names the files of ``splits`` that could not be read, if any."""
    bad = [split.describe_bad() for split in splits if split.bad]
    if bad:
        advice = (
            "repair or remove them (training, evaluate.py and data.export go on without them by --skip_bad_images true)"
        )
        raise DataError(f"{'; '.join(bad)}; {advice}")


def _height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    match sides:
        case (int(height), int(width)) if min(sides) >= 4 and height % 4 == width % 4 == 0:
            return height, width
    raise DataError(f"image_size {image_size!r} is not a multiple of 4 from 4 on")
