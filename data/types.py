"""Types of a decoded split and of a registry entry."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.text import listed, printable

SHOWN = 20  # unreadable files that a line names


@dataclass(frozen=True)
class BadImage:
    """An image file of a split that could not be read."""

    position: int  # among all files of the split, from 0
    path: str  # as in ImageSet.paths
    label: int
    error: str


@dataclass(frozen=True, eq=False)  # eq=False: == on tensors has no single truth value
class ImageSet:
    """One split of a data set, decoded."""

    images: torch.Tensor  # uint8 [N, C, H, W]
    labels: torch.Tensor  # int64 [N], 0 .. num_classes-1, or -1 where unknown
    class_names: tuple[str, ...]
    paths: tuple[str, ...]  # one name per image: its path in the data folder, or e.g. digits/validation/00012
    bad: tuple[BadImage, ...] = ()  # files that could not be read, which are not among the images
    notes: tuple[str, ...] = ()  # lines for the user about files that were left out on other grounds

    def __len__(self) -> int:
        return len(self.labels)

    def lines(self) -> list[str]:
        """What the user must know about files that are not among the images."""
        return [*self.notes, *([f"left out: {self.describe_bad()}"] if self.bad else [])]

    def describe_bad(self) -> str:
        """How many files could not be read, which (the first 20), and the reason of the first; there is one or more."""
        first, *others = self.bad
        line = f"{len(self.bad)} of {len(self) + len(self.bad)} images cannot be read: {printable(first.error)}"
        return line + (f"; also {listed([bad.path for bad in others], SHOWN - 1)}" if others else "")

    def part(self, rows: torch.Tensor) -> "ImageSet":
        """The images with the numbers ``rows``, int64 [M]; ``bad`` and ``notes`` are of all."""
        paths = tuple(self.paths[i] for i in rows.tolist())
        return dataclasses.replace(self, images=self.images[rows], labels=self.labels[rows], paths=paths)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.images.shape[2:]
        return height, width

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Source:
    """One entry of the registry."""

    channels: int  # 1 or 3
    image_size: int  # default side, pixels
    splits: tuple[str, ...]
    load: Callable[[str, tuple[int, int], Path | None], ImageSet]  # (split, (H, W), data_dir)
    imagenet_classes: tuple[int, ...] | None = None  # the ImageNet class that stands for each class, 0 .. 999
