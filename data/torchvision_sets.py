"""The standard data sets that torchvision downloads and decodes: CIFAR, MNIST, Fashion-MNIST, SVHN."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.splits import split_arrays
from data.types import ImageSet, Source
from utils.errors import DataError, reason

SPLITS = ("train", "validation", "test")
MNIST_FILES = "the four files {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"


def load(
    name: str, class_name: str, files: str, split: str, image_size: tuple[int, int], data_dir: Path | None
) -> ImageSet:
    """Read one split, uint8 [N, C, H, W]; validation is a fixed 10 % of the official training set.

    Raises:
        DataError: the files are missing and cannot be downloaded.
    """
    raw = _open(name, class_name, files, split, data_dir or Path("datasets", name))
    images = np.asarray(raw.data)  # CIFAR [N, H, W, 3], SVHN [N, 3, H, W], MNIST [N, H, W]
    labels = np.asarray(raw.labels if name == "svhn" else raw.targets, dtype=np.int64)
    if images.ndim == 3:
        images = images[:, None]
    elif name != "svhn":
        images = images.transpose(0, 3, 1, 2)
    class_names = "0123456789" if name == "svhn" else raw.classes
    return split_arrays(name, split, images, labels, class_names, image_size, 0.1)


def _open(name: str, class_name: str, files: str, split: str, root: Path) -> Any:
    from torchvision import datasets

    official = "test" if split == "test" else "train"
    part = {"split": official} if name == "svhn" else {"train": official == "train"}
    try:
        return getattr(datasets, class_name)(root, download=True, **part)
    except Exception as error:  # torchvision does not wrap network, archive and pickle errors
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({reason(error)}): put {files} there"
        ) from error


def _source(name: str, class_name: str, channels: int, image_size: int, files: str) -> Source:
    return Source(channels, image_size, SPLITS, partial(load, name, class_name, files))


SOURCES = {
    "cifar10": _source("cifar10", "CIFAR10", 3, 32, "cifar-10-python.tar.gz"),
    "cifar100": _source("cifar100", "CIFAR100", 3, 32, "cifar-100-python.tar.gz"),
    "mnist": _source("mnist", "MNIST", 1, 28, f"MNIST/raw with {MNIST_FILES}"),
    "fashion_mnist": _source("fashion_mnist", "FashionMNIST", 1, 28, f"FashionMNIST/raw with {MNIST_FILES}"),
    "svhn": _source("svhn", "SVHN", 3, 32, "train_32x32.mat and test_32x32.mat"),
}
