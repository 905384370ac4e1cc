"""Training of the discriminative baseline: its settings, flags of evaluation.baseline, and the loop."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from data import DatasetName, ImageSet
from data.augmentation import augment, draw_shifts
from evaluation.baseline_network import MOST_BLOCKS, MOST_STAGES
from evaluation.splits import Side
from model import to_unit
from utils.device import cudnn_benchmark
from utils.errors import UserError
from utils.precision import autocast, pick_precision
from utils.values import Fraction, NonNegativeFloat, PathName, PositiveFloat, PositiveInt, Seed

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

LARGEST_SHIFT = 1 / 8  # of a side: 4 pixels of 32, as is usual for CIFAR

Blocks = Annotated[list[Annotated[int, Field(ge=1, le=MOST_BLOCKS)]], Field(min_length=1, max_length=MOST_STAGES)]
BatchSize = Annotated[int, Field(ge=2)]  # batch normalization needs two


@dataclass
class BaselineSettings:
    """Settings of evaluation.baseline.

    Args:
        dataset: digits (part of scikit-learn), cpen455, cifar10, cifar100, mnist, fashion_mnist, svhn, or folder: class
            sub-folders below --data_dir.
        data_dir: folder of the data set, and where it is downloaded to; datasets/NAME by default.
        image_size: side in pixels, a multiple of 4 from 4 to 512; the data set's own by default.
        skip_bad_images: train and validate without the images that cannot be read; by default they are named and the
            program ends.
        hold_out: train without the tenth of the training images that pcnn_train.py --select_on holdout holds out, as a
            teacher of such a run should.
        blocks: residual blocks of each stage, as in --blocks 2 3, which is the default: 1 to 4 stages; the first has 64
            channels at the images' resolution, each further one twice as many at half the resolution.
        epochs: passes over the training images, at least 1.
        batch_size: images per step, at least 2.
        lr: learning rate of SGD at the peak of its one cycle, above 0.
        momentum: of SGD, 0 to below 1.
        weight_decay: of SGD, at least 0.
        augment: none, flip (mirror half of the images), or flip+shift (and move them by up to 1/8 of a side, with
            reflected borders).
        precision: of the network in training: fp32, bf16, or auto: bf16 where the device has it natively, else fp32.
            The evaluation is in fp32.
        seed: of the weights, the order of the images and their augmentation, 0 to 2^32 - 1.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
        out: the file to write; - is standard output.
    """

    dataset: DatasetName = "cpen455"
    data_dir: PathName | None = None
    image_size: Side | None = None
    skip_bad_images: bool = False
    hold_out: bool = False
    blocks: Blocks = field(default_factory=lambda: [2, 3])
    epochs: PositiveInt = 40
    batch_size: BatchSize = 64
    lr: PositiveFloat = 0.1
    momentum: Fraction = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    augment: Literal["none", "flip", "flip+shift"] = "flip+shift"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: Seed = 1
    device: str = "auto"
    out: PathName = "baseline.pt"


def train_baseline(net: "ResNet", split: ImageSet, settings: BaselineSettings, device: torch.device) -> None:
    """Train ``net``, a ResNet on ``device``, for all epochs; prints a line after each.

    One cycle of the learning rate (Smith and Topin 2019), stepped per step. Raises UserError where the loss becomes
    non-finite.
    """
    batch_size = min(settings.batch_size, len(split))
    steps = len(split) // batch_size
    optimizer = torch.optim.SGD(net.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    # its default would replace the momentum
    schedule = OneCycleLR(optimizer, settings.lr, settings.epochs * steps, cycle_momentum=False)
    precision = "bf16" if pick_precision(settings.precision, device) == "bf16" else "fp32"
    images, labels = split.images.to(device), split.labels.to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    net.train()
    for epoch in range(1, settings.epochs + 1):
        start, total = time.monotonic(), torch.zeros((), device=device)
        batches = epoch_batches(images, labels, batch_size, settings.augment, generator)
        bar = tqdm(batches, f"epoch {epoch}/{settings.epochs}", steps, unit="step", leave=False, disable=None)
        with cudnn_benchmark(device.type == "cuda"):
            for batch, truth in bar:
                x = to_unit(batch).contiguous(memory_format=torch.channels_last)
                with autocast(precision, device):
                    loss = F.cross_entropy(net(x), truth)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.detach()
        mean = total.item() / steps
        if not math.isfinite(mean):
            raise UserError(f"epoch {epoch}: the loss is non-finite; lower --lr")
        seconds = time.monotonic() - start
        tqdm.write(f"epoch {epoch}/{settings.epochs}  train cross-entropy {mean:.4f} nats  {seconds:.1f} s")


def epoch_batches(
    images: Tensor, labels: Tensor, batch_size: int, kind: str, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """The full batches of an epoch in random order, augmented: uint8 [B, C, H, W], int64 [B].

    Images that do not fill a batch are left out; which ones changes from epoch to epoch. ``kind`` is that of --augment.
    """
    count, height, width = len(labels), images.shape[2], images.shape[3]
    order = torch.randperm(count, generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    shifts = draw_shifts(count, (height, width), generator, LARGEST_SHIFT)
    if kind != "flip+shift":
        shifts.zero_()
    order, mirrored, shifts = (drawn.to(images.device) for drawn in (order, mirrored, shifts))
    for index in order[: count - count % batch_size].split(batch_size):
        batch = images[index]
        yield (batch if kind == "none" else augment(batch, mirrored[index], shifts[index])), labels[index]
