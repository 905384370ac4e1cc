"""log p(image | class) of many images: weights folded once, all classes together, in batches that fit in memory."""

from typing import Protocol

import torch
from torch import Tensor

from model import PixelCNN, class_log_likelihoods, fold_weight_norm, log_likelihood
from utils.memory import FittingBatches
from utils.precision import Precision, autocast, pick_precision

# feature maps of 32x32 (images x classes) at a time: few for a CPU's caches, many for a GPU's cores
MAPS = {"cpu": 32, "cuda": 1024}
# nats between classes within which 16 bits may pick the wrong one; 16-bit log-likelihoods were 3 nats off on average
CLOSE = 8.0


def maps_at_a_time(device: torch.device, image_size: tuple[int, int]) -> int:
    """How many (image, class) pairs of images (H, W) to score together; inverse to their area, at least 1."""
    return max(1, MAPS.get(device.type, 32) * 32 * 32 // (image_size[0] * image_size[1]))


class Score(Protocol):
    """uint8 [N, C, H, W] -> a score of each class, float32 [N, num_classes]; the largest is the best."""

    @property
    def batch_size(self) -> int: ...

    def __call__(self, images: Tensor) -> Tensor: ...


class Scorer:
    """Scores images under every class of a network as it is now; later training steps have no effect.

    Args:
        net: the network, whose mode does not matter (dropout is off).
        precision: of the network; the likelihood is fp32. With "auto", where that means 16 bits, the classes within
            CLOSE nats of an image's best are scored again in fp32, so that the answer is nearly always that of fp32
            (all 519 validation images of the pretrained checkpoint).
        batch_size: images at a time, None for the device's default; halved, for good, when memory runs out.
        image_size: (H, W) of the images; the default is inverse to their area.
    """

    def __init__(
        self,
        net: PixelCNN,
        precision: Precision = "auto",
        batch_size: int | None = None,
        image_size: tuple[int, int] = (32, 32),
    ):
        self.device = next(net.parameters()).device
        self.net = fold_weight_norm(net).to(memory_format=torch.channels_last)  # faster here, slower in training
        self.precision = pick_precision(precision, self.device)
        self.rescores = precision == "auto" and self.precision != "fp32" and net.conditional
        maps = maps_at_a_time(self.device, image_size)
        self.batches = FittingBatches(batch_size or max(1, maps // net.num_classes))
        self.maps = FittingBatches(self.batch_size * net.num_classes)  # (image, class) pairs at a time

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> nats float32 [N, num_classes], on the CPU.

        Raises UserError where not even one image fits.
        """
        item = f"{images.shape[2]}x{images.shape[3]} image"
        scores = [scores for _, scores in self.batches.map(self.score_batch, images, item)]
        return torch.cat([torch.empty(0, self.net.num_classes), *scores])

    def score_batch(self, images: Tensor) -> Tensor:
        """The same, all images at once."""
        with autocast(self.precision, self.device):
            scores = class_log_likelihoods(self.net, images)
        return (self.decide(images, scores) if self.rescores else scores).cpu()

    @property
    def batch_size(self) -> int:
        """Images at a time."""
        return self.batches.batch_size

    @torch.inference_mode()
    def of_class(self, images: Tensor, labels: Tensor) -> Tensor:
        """log p(image | label), uint8 [N, C, H, W] and int64 [N] -> nats float32 [N], on the CPU."""

        def score(rows: Tensor) -> Tensor:
            with autocast(self.precision, self.device):
                return log_likelihood(self.net, images[rows].to(self.device), labels[rows].to(self.device)).cpu()

        return torch.cat([torch.empty(0), *(nats for _, nats in self.maps.map(score, torch.arange(len(labels))))])

    @torch.inference_mode()
    def decide(self, images: Tensor, scores: Tensor) -> Tensor:
        """``scores`` [B, num_classes] with the classes close to the best one scored again in fp32."""
        close = scores.amax(dim=1, keepdim=True) - scores < CLOSE
        close &= close.sum(dim=1, keepdim=True) > 1
        if not close.any():
            return scores
        image, label = close.nonzero(as_tuple=True)
        scores = scores.clone()
        maps = max(1, self.batch_size * self.net.num_classes // 2)  # fp32 takes twice the memory of 16 bits
        for i, y in zip(image.split(maps), label.split(maps), strict=True):
            scores[i, y] = log_likelihood(self.net, images[i.to(images.device)].to(self.device), y)
        return scores


class MirrorScorer:
    """The mean of log p of an image and of its mirror image, by ``scorer``: less noisy than either (--tta flip).

    Twice the time, and no longer the exact log-likelihood of an image.
    """

    def __init__(self, scorer: Scorer):
        self.scorer = scorer

    @property
    def batch_size(self) -> int:
        return self.scorer.batch_size

    def __call__(self, images: Tensor) -> Tensor:
        return (self.scorer(images) + self.scorer(images.flip(3))) / 2
