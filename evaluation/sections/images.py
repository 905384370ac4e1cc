"""The real images of an evaluation: the split that is judged, and those that it is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from data import DATASETS, ImageSet, check_readable, load_split
from data.splits import split_files
from evaluation.evaluate import check_labelled
from evaluation.splits import held_out
from utils.console import notify
from utils.distributed import main_first, rank
from utils.errors import DataError

SEED = 0  # of every choice of images: the same for all networks, so that they compare


@dataclass(frozen=True)
class EvaluationImages:
    """Splits of a data set, each read when it is first needed, and kept.

    Args:
        dataset, data_dir, image_size: as of `load_split`.
        split: train, validation, test, or holdout, the images that --select_on holdout keeps out of training.
        skip_bad_images: leave out what cannot be read.
    """

    dataset: str
    split: str
    image_size: tuple[int, int] | None
    data_dir: str | None
    skip_bad_images: bool = False

    def load(self, split: str) -> ImageSet:
        """Raises DataError."""

        def load() -> ImageSet:
            return load_split(self.dataset, split, self.image_size, self.data_dir, self.skip_bad_images)

        images = load() if self.dataset == "folder" else main_first(load)  # which downloads others once
        for line in images.lines() if rank() == 0 else ():
            notify(line)
        return images

    def labelled(self, split: str) -> ImageSet:
        """Raises DataError, and UserError where an image has no class."""
        images = self.load(split)
        check_labelled(images, f"{self.dataset} {split}")
        return images

    @cached_property
    def judged(self) -> ImageSet:
        """The split that is evaluated; all its images have a class. Raises DataError, UserError."""
        if self.split == "holdout":
            return held_out(self.train, "--split holdout")[1]
        return self.train if self.split == "train" else self.labelled(self.split)

    @cached_property
    def train(self) -> ImageSet:
        """The training images; all have a class. Raises DataError, UserError."""
        return self.labelled("train")

    @cached_property
    def reference(self) -> tuple[str, ImageSet]:
        """The split that samples are compared with, and its name: test, or validation where there is none.

        Its classes are not used and may be unknown. Raises DataError.
        """
        if "test" in DATASETS[self.dataset].splits:
            try:
                return "test", self.judged if self.split == "test" else self.load("test")
            except DataError:
                if self.dataset != "folder":  # a user's own folder may lack one
                    raise
        return "validation", self.judged if self.split == "validation" else self.load("validation")


def read_like(
    split: ImageSet, files: Sequence[Path], labels: Sequence[int] | None = None, skip_bad_images: bool = False
) -> ImageSet:
    """The images of files, with ``labels`` (-1 unknown by default), in the size and with the classes of ``split``.

    Raises DataError for files that cannot be read, unless they are left out, which is said.
    """
    known = [-1] * len(files) if labels is None else labels
    paths, channels = [str(file) for file in files], split.images.shape[1]
    found = split_files(files, known, split.class_names, paths, channels, split.image_size, "reading images")
    if not skip_bad_images:
        check_readable(found)
    for line in found.lines() if rank() == 0 else ():
        notify(line)
    return found


def shuffled(count: int) -> Tensor:
    """The numbers 0 .. count - 1 in a fixed order, int64 [count]."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SEED))


def some(count: int, most: int) -> Tensor:
    """The numbers of at most ``most`` of ``count`` images: of more a random part, always the same, in order."""
    return shuffled(count)[:most].sort().values


def balanced_order(labels: Tensor) -> Tensor:
    """An order in which the classes take turns, as far as they have images: int64 [N] -> int64 [N]."""
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0))
    turn = (one_hot.cumsum(0) - 1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return (turn * one_hot.shape[1] + labels.clamp(min=0)).argsort(stable=True)
