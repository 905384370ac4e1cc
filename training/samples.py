"""The sample grid and FID of a network in training."""

from pathlib import Path

import torch
from torch import Tensor

from data import DATASETS, ImageSet
from evaluation.fid import FID, SafeFID
from evaluation.fid_reference import split_reference
from evaluation.generation import draw_images
from evaluation.protocol import IMAGES
from model import PixelCNN
from training.settings import TrainSettings
from utils.console import notify
from utils.errors import DataError


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
        settings: of the run; FID's network and reference are loaded only if FID is to be measured.
        selection: the images of --select_on, the reference of FID where the data set has no test split.
        device: where the Inception network runs.
    """

    def __init__(self, settings: TrainSettings, selection: ImageSet, device: torch.device):
        self.seed, self.image_size = settings.seed, selection.image_size
        self.grid_per_class = max(1, settings.sample_batch_size // selection.num_classes)
        self.fid_per_class = max(1, settings.fid_samples // selection.num_classes)
        self.fid: SafeFID | None = None
        if settings.fid_samples and settings.sampling_interval:
            dims, weights = settings.fid_dims, settings.fid_weights
            self.fid = SafeFID(lambda: FID(training_reference(settings, selection), dims, weights, device))

    def draw(self, net: PixelCNN) -> Tensor:
        """The images of the grid and of FID: uint8 [num_classes, N, C, H, W]."""
        measured = self.fid is not None and self.fid.fid is not None
        count = max(self.grid_per_class, self.fid_per_class) if measured else self.grid_per_class
        return draw_per_class(net.eval(), count, self.image_size, self.seed)

    def grid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the grid, of what `draw` returned: uint8 [N, C, H, W], and their labels, int64 [N]."""
        shown = images[:, : self.grid_per_class]
        labels = torch.arange(len(shown)).repeat_interleave(shown.shape[1])
        return shown.flatten(0, 1), labels

    def measure(self, images: Tensor) -> dict[str, float | str]:
        """What a report says of FID: {"fid": ...}, {"fid_error": reason} or {}; see `SafeFID.measure`."""
        if self.fid is None:
            return {}
        return self.fid.measure(lambda: images[:, : self.fid_per_class].flatten(0, 1))


def training_reference(settings: TrainSettings, selection: ImageSet) -> Path | ImageSet:
    """The test split where the data set has one, as the published protocol has it, else ``selection``."""
    if "test" not in DATASETS[settings.dataset].splits:
        return selection
    try:
        where = (settings.image_size, settings.data_dir, settings.skip_bad_images)
        return split_reference(settings.dataset, "test", *where)
    except DataError as error:  # a user's own folder may lack one
        notify(f"FID is measured against the {IMAGES[settings.select_on]} images: {error}")
        return selection
