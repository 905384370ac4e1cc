"""The sample grid, FID and other metrics of the samples of a network in training."""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from data import DATASETS, ImageSet, load_split
from evaluation.fid import FID, SafeFID
from evaluation.fid_reference import split_reference
from evaluation.generation import draw_images
from evaluation.protocol import IMAGES
from evaluation.samples.metrics import SampleMetrics
from model import PixelCNN
from training.settings import TrainSettings
from utils.console import notify
from utils.errors import DataError, summary


def draw_per_class(net: PixelCNN, per_class: int, image_size: tuple[int, int], seed: int) -> Tensor:
    """Images of all classes by this process alone: uint8 [num_classes, per_class, C, H, W] on the CPU.

    ``generate.py --seed`` draws the same ones, up to rounding.
    """
    classes = range(net.num_classes)
    images = [image for *_, image in draw_images(net, classes, per_class, image_size, seed=seed, shared=False)]
    return torch.stack(images).unflatten(0, (net.num_classes, per_class))


class TrainingSamples:
    """Samples of a run's network, the same randomness each time, so that grids compare.

    Args:
        settings: of the run; networks and references are loaded only for what is to be measured.
        selection: the images of --select_on, the reference where the data set has no test split.
        device: where the networks run that measure samples.
    """

    def __init__(self, settings: TrainSettings, selection: ImageSet, device: torch.device):
        self.settings, self.selection, self.device = settings, selection, device
        self.seed, self.image_size = settings.seed, selection.image_size
        self.grid_per_class = max(1, settings.sample_batch_size // selection.num_classes)
        self.fid_per_class = max(1, settings.fid_samples // selection.num_classes)
        self.metrics_per_class = max(1, settings.metric_samples // selection.num_classes)
        self.fid: SafeFID | None = None
        if settings.fid_samples and settings.sampling_interval:
            dims, weights = settings.fid_dims, settings.fid_weights
            self.fid = SafeFID(lambda: FID(self.reference, dims, weights, device))
        self.metrics = self.load_metrics() if settings.metric_samples and settings.sampling_interval else None

    @cached_property
    def reference(self) -> Path | ImageSet:
        """That of FID; see `training_reference`."""
        return training_reference(self.settings, self.selection)

    def load_metrics(self) -> SampleMetrics | None:
        """The metrics without a download; None, after one line, where they cannot be measured."""
        settings = self.settings
        try:
            reference = self.reference
            if isinstance(reference, Path):  # files of another size than the network's
                where = (self.image_size, settings.data_dir, settings.skip_bad_images)
                reference = load_split(settings.dataset, "test", *where)
                for line in reference.lines():
                    notify(line)
            return SampleMetrics(reference.images, DATASETS[settings.dataset].imagenet_classes, self.device)
        except Exception as error:
            notify(f"metrics of samples are not measured: {summary(error)}")
            return None

    def draw(self, net: PixelCNN) -> Tensor:
        """The images of the grid and of what is measured: uint8 [num_classes, N, C, H, W]."""
        counts = [self.grid_per_class]
        if self.fid is not None and self.fid.fid is not None:
            counts.append(self.fid_per_class)
        if self.metrics is not None:
            counts.append(self.metrics_per_class)
        return draw_per_class(net.eval(), max(counts), self.image_size, self.seed)

    def grid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the grid, of what `draw` returned: uint8 [N, C, H, W], and their labels, int64 [N]."""
        return first_of_each(images, self.grid_per_class)

    def measure(self, images: Tensor) -> dict[str, float | str]:
        """What a report says of samples: what `SafeFID.measure` and `SampleMetrics.measure` return.

        Where the latter fails, that is one line, and sample_metrics_error gives the reason.
        """
        report: dict[str, float | str] = {}
        if self.fid is not None:
            report |= self.fid.measure(lambda: first_of_each(images, self.fid_per_class)[0])
        if self.metrics is not None:
            try:
                report |= self.metrics.measure(*first_of_each(images, self.metrics_per_class))
            except Exception as error:
                report["sample_metrics_error"] = summary(error)
                notify(f"metrics of samples failed: {summary(error)}")
        return report


def first_of_each(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` images of each class of uint8 [num_classes, N, C, H, W], with their labels, int64."""
    chosen = images[:, :count]
    labels = torch.arange(len(chosen)).repeat_interleave(chosen.shape[1])
    return chosen.flatten(0, 1), labels


def training_reference(settings: TrainSettings, selection: ImageSet) -> Path | ImageSet:
    """The test split where the data set has one, as the published protocol has it, else ``selection``."""
    if "test" not in DATASETS[settings.dataset].splits:
        return selection
    try:
        where = (settings.image_size, settings.data_dir, settings.skip_bad_images)
        return split_reference(settings.dataset, "test", *where)
    except DataError as error:  # a user's own folder may lack one
        notify(f"samples are measured against the {IMAGES[settings.select_on]} images: {error}")
        return selection
