"""Types of a decoded split and of a registry entry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, eq=False)  # eq=False: == on tensors has no single truth value
class ImageSet:
    """One split of a data set, decoded."""

    images: torch.Tensor  # uint8 [N, C, H, W]
    labels: torch.Tensor  # int64 [N], 0 .. num_classes-1, or -1 where unknown
    class_names: tuple[str, ...]
    paths: tuple[str, ...]  # one name per image: its path in the data folder, or e.g. digits/validation/00012

    def __len__(self) -> int:
        return len(self.labels)

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
