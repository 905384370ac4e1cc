"""The reference of FID: a folder, or a split of a data set."""

import os
from pathlib import Path

from data import DATASETS, ImageSet, load_split
from data.cpen455 import split_folder
from evaluation.fid import image_files
from utils.errors import UserError
from utils.text import printable


def split_reference(
    dataset: str,
    split: str,
    image_size: int | tuple[int, int] | None,
    data_dir: str | None,
    skip_bad_images: bool = False,
) -> Path | ImageSet:
    """The reference that a split is: pixels at ``image_size``, or for cpen455 its folder of 64x64 files, as published.

    Raises DataError.
    """
    if dataset == "cpen455" and split in DATASETS[dataset].splits:
        return split_folder(split, None if data_dir is None else Path(os.path.expanduser(data_dir)))
    return load_split(dataset, split, image_size, data_dir, skip_bad_images)


def parse_reference(reference: str, image_size: tuple[int, int], data_dir: str | None) -> Path | ImageSet:
    """--fid REFERENCE: a folder, or DATASET:SPLIT. Raises UserError, DataError."""
    if os.path.isdir(reference):
        if not image_files(reference):
            raise UserError(f"--fid {printable(reference)} has no images; give a folder with images")
        return Path(reference)
    dataset, colon, split = reference.partition(":")
    if not colon or dataset not in DATASETS:
        raise UserError(
            f"--fid {printable(reference)} is neither a folder nor a split of a data set; "
            f"give a folder of images, or DATASET:SPLIT as in cpen455:test (data sets: {', '.join(DATASETS)})"
        )
    return split_reference(dataset, split, image_size, data_dir)
