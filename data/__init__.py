"""Files on disk -> uint8 images, int64 labels, class names. One small module per source, one registry."""

from .images import find_images, read_image
from .registry import DATASETS, load_split
from .types import DataError, ImageSet

__all__ = ["DATASETS", "DataError", "ImageSet", "find_images", "load_split", "read_image"]
