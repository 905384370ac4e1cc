"""Samples and FID of a network in training."""

from pathlib import Path

import torch
from torch import Tensor

from data import DATASETS, ImageSet
from evaluation.fid import FID, SafeFID
from evaluation.fid_reference import split_reference
from model import PixelCNN, Sampler, image_generators
from training.settings import TrainSettings
from utils.console import notify
from utils.errors import DataError

__all__ = ["TrainingFID"]

DRAW_BATCH = 100  # images drawn together


class TrainingFID:
    """FID of a network in training; made once, at the start of a run, which it never stops.

    Args:
        settings: of the run; without samples (fid_samples or sampling_interval 0) nothing is loaded or measured.
        validation: the reference where the data set has no test split.
        device: where the Inception network runs.
    """

    def __init__(self, settings: TrainSettings, validation: ImageSet, device: torch.device):
        self.settings = settings
        self.image_size = tuple(validation.images.shape[2:])
        self.safe: SafeFID | None = None
        if settings.fid_samples and settings.sampling_interval:
            self.safe = SafeFID(
                lambda: FID(
                    training_reference(settings, validation), settings.fid_dims, settings.fid_weights, device=device
                )
            )

    def measure(self, net: PixelCNN) -> dict[str, float | str]:
        """What a report gets: {"fid": ...}, {"fid_error": reason} or {}; see `SafeFID.measure`."""
        return {} if self.safe is None else self.safe.measure(lambda: self.draw(net))

    def draw(self, net: PixelCNN) -> Tensor:
        """fid_samples images, equal per class, the same randomness every time: uint8 [N, C, H, W] on the CPU."""
        settings, training = self.settings, net.training
        per_class = max(1, settings.fid_samples // net.num_classes)
        labels = torch.arange(net.num_classes).repeat_interleave(per_class)
        net.eval()
        sampler, images = Sampler(net, self.image_size), []
        for start in range(0, len(labels), DRAW_BATCH):
            batch = labels[start : start + DRAW_BATCH]
            generators = image_generators(settings.seed, start, len(batch))
            images.append(sampler(batch, generators, progress=True).cpu())
        net.train(training)
        return torch.cat(images)


def training_reference(settings: TrainSettings, validation: ImageSet) -> Path | ImageSet:
    """The test split where the data set has one, as the published protocol wants it, else the validation images."""
    if "test" not in DATASETS[settings.dataset].splits:
        return validation
    try:
        return split_reference(settings.dataset, "test", settings.image_size, settings.data_dir)
    except DataError as error:  # a folder of one's own need not have one
        notify(f"FID is measured against the validation images: {error}")
        return validation
