"""Data sets: files on disk -> uint8 images, int64 labels, class names. One module per source, one registry."""

from data.find import find_images
from data.images import read_image
from data.registry import DATASETS, DatasetName, check_readable, load_split
from data.types import ImageSet
from utils.errors import DataError

__all__ = [
    "DATASETS",
    "DataError",
    "DatasetName",
    "ImageSet",
    "check_readable",
    "find_images",
    "load_split",
    "read_image",
]
