"""The metrics of samples that are cheap enough for every sample grid of a training run."""

from functools import cached_property

import torch
from torch import Tensor

from evaluation.samples.agreement import class_agreement
from evaluation.samples.derailed import roughness
from evaluation.samples.distances import Distances, Reference
from evaluation.samples.features import EfficientNetFeatures


class SampleMetrics:
    """The metrics of samples against real images, whose features are computed once, with the first measurement.

    Args:
        real: uint8 [M, C, H, W], of the size of the samples.
        imagenet_classes: the ImageNet class that stands for each class; None where there is none.
        device: where EfficientNet-Lite0 runs.

    Raises UserError without EfficientNet-Lite0.
    """

    def __init__(self, real: Tensor, imagenet_classes: tuple[int, ...] | None, device: torch.device | str = "cpu"):
        self.real, self.imagenet_classes = real, imagenet_classes
        self.network = EfficientNetFeatures(device)

    @cached_property
    def reference(self) -> Reference:
        """The features of the real images."""
        return Reference(self.network(self.real).pooled.numpy())

    @cached_property
    def roughest(self) -> float:
        """The roughness of the roughest real image."""
        return roughness(self.real).max().item()

    def measure(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Keys of METRICS -> values: both distances, the share of derailed samples and, if known, class agreement.

        Args:
            images: uint8 [N, C, H, W], N at least 2.
            labels: the classes asked for, int64 [N].

        Raises ValueError for fewer than two samples or real images.
        """
        features = self.network(images)
        distances = Distances(features.pooled.numpy(), self.reference)
        report = {"frechet_distance": distances.frechet(), "kernel_distance": distances.kernel()}
        if self.imagenet_classes is not None:
            agreement = class_agreement(features.logits, labels, self.imagenet_classes)
            report["class_agreement"] = agreement.double().mean().item()
        return report | {"derailed": (roughness(images) > self.roughest).double().mean().item()}
