"""The images of a run, and the order in which training visits them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data import ImageSet
from data.augmentation import augment, draw_shifts
from evaluation.splits import held_out, load_labelled
from training.objective import likelihood_images
from training.settings import TrainSettings
from utils.distributed import rank, world_size
from utils.errors import UserError


def mixed_seed(*numbers: int) -> int:
    """A seed for torch from several numbers; the seeds of nearby numbers are unrelated."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Splits(NamedTuple):
    """The images of a run."""

    train: ImageSet
    selection: ImageSet  # those that epochs are chosen on: the validation images, or the held-out ones
    validation: ImageSet


def load_splits(settings: TrainSettings) -> Splits:
    """The images of a run by --select_on; says what was left out. Raises UserError, DataError."""
    where = (settings.dataset, settings.image_size, settings.data_dir, settings.skip_bad_images)
    alternative = ", or train a model of images without classes by --fusion none"
    train, validation = load_labelled(*where, None if settings.fusion == "none" else alternative)
    wrong = train.num_classes - 1
    if (settings.negatives or 0) > wrong:
        raise UserError(f"--negatives {settings.negatives}: an image has only {wrong} wrong classes here")
    if settings.select_on == "validation":
        return Splits(train, validation, validation)
    return Splits(*held_out(train, "--select_on holdout", "use validation"), validation)


class Batches:
    """Batches of the training images in an order that depends on the seed and the epoch alone.

    Each process has its share of every joint batch. Images that do not fill a joint batch are left out of an epoch;
    which ones changes from epoch to epoch.

    Args:
        split: the training images; they are kept on ``device`` as uint8.
        settings: of the run.
        device: of the batches.

    Raises UserError where there are fewer images than processes, or --discriminative_share is no image of a batch.

    Attributes:
        batch_size: images per step and process.
        joint_batch: images per step of all processes.
        per_epoch: steps per epoch.
    """

    def __init__(self, split: ImageSet, settings: TrainSettings, device: torch.device):
        self.images, self.labels = split.images.to(device), split.labels.to(device)
        self.image_size = split.image_size
        self.settings, self.device = settings, device
        if len(split) < world_size():
            raise UserError(f"{len(split)} training images are fewer than the {world_size()} processes; use fewer")
        self.batch_size = min(settings.batch_size, len(split) // world_size())
        self.in_likelihood = likelihood_images(settings, self.batch_size)
        share = settings.discriminative_share
        if settings.discriminative_weight and share and self.in_likelihood == self.batch_size:
            raise UserError(
                f"--discriminative_share {share:g} of {self.batch_size} images per step and process is none; "
                "raise it or --batch_size"
            )
        self.joint_batch = self.batch_size * world_size()
        self.per_epoch = len(self.labels) // self.joint_batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's batches of an epoch from its image number ``start`` on: uint8 [B, C, H, W], int64 [B]."""
        order, mirrored, shifts = self._draw(epoch)
        for first in range(start, len(order) - self.joint_batch + 1, self.joint_batch):
            index = order[first:][rank() * self.batch_size :][: self.batch_size]
            images = self.images[index]
            if self.settings.augment != "none":
                moved = shifts[index]
                if self.in_likelihood < len(index):
                    moved[: self.in_likelihood] = 0
                images = augment(images, mirrored[index], moved)
            yield images, self.labels[index]

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` images in an order of their own, without augmentation, the same in all processes."""
        order, *_ = self._draw(0)
        return self.images[order[:count]], self.labels[order[:count]]

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The random numbers of an epoch, the same in all processes: the order of the images, int64 [N], and by image
        number which are mirrored, bool [N], and how far each is moved, int64 [N, 2]."""
        count = len(self.labels)
        generator = torch.Generator().manual_seed(mixed_seed(self.settings.seed, epoch))
        order = torch.randperm(count, generator=generator)
        # alternating flips (airbench): each image is mirrored in every other epoch, half of them in each
        first = torch.Generator().manual_seed(mixed_seed(self.settings.seed, 0, 1))  # no epoch's
        mirrored = (torch.rand(count, generator=first) < 0.5) ^ (epoch % 2 == 1)
        shifts = draw_shifts(count, self.image_size, generator, self.settings.largest_shift)
        if self.settings.augment != "flip+shift":
            shifts.zero_()
        return order.to(self.device), mirrored.to(self.device), shifts.to(self.device)
