"""The reference of FID: the files of a folder, a split of a data set, or statistics from a file."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image

from data import DATASETS, ImageSet, find_images, load_split
from data.cpen455 import split_folder
from data.find import describe_skipped, is_photo
from evaluation.cache import pixel_hash
from evaluation.fid_statistics import Statistics, load_statistics
from utils.console import notify
from utils.errors import DataError, UserError
from utils.files import file_hash
from utils.text import printable

Reference = ImageSet | list[Path] | Statistics


def open_reference(reference: str | Path | Reference, dims: int, name: str = "the reference of FID") -> Reference:
    """The images of a folder, or the statistics of a file; what is opened already is checked.

    Args:
        reference: a folder, a .npz file of statistics, or what this function returns.
        dims: that FID will have, and statistics must have.
        name: of the reference, in messages.

    Raises DataError for fewer than two images, statistics of other dims, or a file without statistics.
    """
    if isinstance(reference, str | Path):
        reference = load_statistics(reference) if os.path.isfile(reference) else image_files(reference)
    if isinstance(reference, Statistics):
        if reference.dims != dims:
            raise DataError(
                f"{name} has statistics of {reference.dims} dimensions, and --fid_dims is {dims}; they must be the same"
            )
    elif len(reference) < 2:
        raise DataError(f"{name} has {len(reference)} images; FID needs a reference of two or more")
    return reference


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
        return split_folder(split, None if data_dir is None else Path(data_dir))
    reference = load_split(dataset, split, image_size, data_dir, skip_bad_images)
    for line in reference.lines():
        notify(line)
    return reference


def parse_reference(reference: str, image_size: tuple[int, int], data_dir: str | None, dims: int) -> Reference:
    """--fid REFERENCE: a folder, a .npz file of statistics, or DATASET:SPLIT. Raises UserError, DataError."""
    dataset, colon, split = reference.partition(":")
    found: str | Path | ImageSet = reference
    if not os.path.isdir(reference) and not os.path.isfile(reference):
        if not colon or dataset not in DATASETS:
            raise UserError(
                f"--fid {printable(reference)} is no folder, no file and no split of a data set; give a folder of "
                "images, a .npz file that pytorch-fid saved, or DATASET:SPLIT as in cpen455:test "
                f"(data sets: {', '.join(DATASETS)})"
            )
        found = split_reference(dataset, split, image_size, data_dir)
    return open_reference(found, dims, f"--fid {printable(reference)}")


def image_files(folder: str | Path) -> list[Path]:
    """The images in a folder and below that pytorch-fid reads, sorted. Raises DataError."""
    from pytorch_fid.fid_score import IMAGE_EXTENSIONS

    if not os.path.isdir(folder):
        raise DataError(f"{printable(folder)}: no such folder")
    skipped: list[Path] = []
    files = [file for file in find_images(folder, skipped=skipped) if file.suffix[1:].lower() in IMAGE_EXTENSIONS]
    if photos := [file for file in skipped if is_photo(file)]:
        notify(f"{printable(folder)}: FID leaves out {describe_skipped(photos)}")
    return [file for file in files if file.is_file()]  # opening a pipe would block


def content_hash(reference: ImageSet | Sequence[Path]) -> str:
    """sha256 of a split's pixels, or of the bytes of files: their names and order do not matter."""
    if isinstance(reference, ImageSet):
        return pixel_hash(reference.images)
    return hashlib.sha256("".join(sorted(map(file_hash, reference))).encode()).hexdigest()


def count_rotated(files: Sequence[Path]) -> int:
    """How many image files FID reads in another orientation than training, which applies that of EXIF."""
    return sum(map(is_rotated, files))


def is_rotated(file: Path) -> bool:
    try:
        with Image.open(file) as image:
            # the base class's, as that of PNG would decode the pixels; TIFF files are turned as they are decoded
            exif = Image.Image.getexif(image)
            return image.format != "TIFF" and exif.get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:  # broken EXIF rotates nothing, and a damaged image is told where its pixels are read
        return False
