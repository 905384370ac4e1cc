"""How typical an image is of the images that a network learned: from its log-likelihood and its lossless file."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.lossless import FORMATS, available_formats, check_format, compressed_bits
from model import PixelCNN, bits_per_dim, posterior
from utils.errors import CheckpointError, UserError, reason

SCORE = "input_complexity"  # of the scores tried, the one that tells other images best
MAX_VALUES = 1000  # of a reference
UNUSUAL, UNLIKE = 0.05, 0.01  # typicality below which an image is said to be unusual, or like nothing known
EXPORT = "python -m training.export_checkpoint --checkpoint IT.pt --out NEW.pt makes one from validation images"


def log_evidence(log_likelihoods: Tensor) -> Tensor:
    """log p(image) under a uniform prior: nats [N, num_classes] -> nats float64 [N]."""
    return log_likelihoods.double().logsumexp(dim=1) - math.log(log_likelihoods.shape[1])


def input_complexity(bits: Tensor, log_likelihoods: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    """log2 p(image) plus the bits of its lossless file, per dimension: float64 [N], higher is more typical.

    The likelihood alone is high for every simple image; the file says how simple an image is (Serra et al. 2020, "Input
    complexity and out-of-distribution detection with likelihood-based generative models", whose score has the other
    sign). bits [N] of `compressed_bits`, log_likelihoods in nats [N, num_classes], image_shape (C, H, W).
    """
    return bits_per_dim(log_evidence(log_likelihoods), image_shape) + bits / math.prod(image_shape)


def scores(
    bits: Tensor, log_likelihoods: Tensor, image_shape: tuple[int, ...], temperature: float = 1.0
) -> dict[str, Tensor]:
    """Three scores of each image, higher is more typical, float64 [N]; arguments as of `input_complexity`.

    "log_likelihood" is log2 p(image) per dimension, "confidence" the largest posterior probability, 0..1.
    """
    return {
        "log_likelihood": bits_per_dim(log_evidence(log_likelihoods), image_shape),
        "confidence": posterior(log_likelihoods.double(), None, temperature).amax(dim=1),
        "input_complexity": input_complexity(bits, log_likelihoods, image_shape),
    }


def auroc(inside: Sequence[float] | Tensor, outside: Sequence[float] | Tensor) -> float:
    """The probability that an inside image scores higher than an outside one (area under the ROC curve), 0..1."""
    from sklearn.metrics import roc_auc_score

    truth = [1] * len(inside) + [0] * len(outside)
    return float(roc_auc_score(truth, np.concatenate([np.asarray(inside), np.asarray(outside)])))


class Files(NamedTuple):
    """The lossless files of N images: their format, and their bits, float64 [N]."""

    file_format: str
    bits: Tensor


def lossless_files(images: Tensor) -> Files:
    """Those of uint8 [N, C, H, W] in the format of references that are made here."""
    file_format = next(name for name in ("webp", "png") if name in available_formats())
    return Files(file_format, compressed_bits(images, file_format))


def typicality_reference(images: Tensor, log_likelihoods: Tensor, files: Files | None = None) -> dict[str, Any] | None:
    """What a checkpoint keeps of the scores of N images, with which `typicality` compares; plain values and a tensor.

    images uint8 [N, C, H, W], log_likelihoods in nats [N, num_classes], files those of `lossless_files` where they are
    there already. "values" are the sorted scores, float32, of more than 1000 images 1000 quantiles. None without
    images, or where a score is non-finite.
    """
    file_format, bits = files or lossless_files(images)
    values = input_complexity(bits, log_likelihoods, tuple(images.shape[1:])).sort().values
    if not len(values) or not values.isfinite().all():
        return None
    if len(values) > MAX_VALUES:
        values = values.quantile(torch.linspace(0, 1, MAX_VALUES, dtype=torch.float64))
    return {"score": SCORE, "format": file_format, "images": len(images), "values": values.float()}


def stored_reference(net: PixelCNN, reject: float | None = None) -> dict[str, Any] | None:
    """The `typicality_reference` in a network's checkpoint; None where it has none.

    Raises CheckpointError for what is none, UserError where Pillow cannot write the format of its files here, or where
    there is none to ``reject`` images by.
    """
    reference = net.metadata.get("typicality")
    if reference is None:
        if reject is not None:
            raise UserError(f"--reject: the checkpoint has no reference of typicality; {EXPORT}")
        return None
    try:
        check_reference(reference)
    except (TypeError, ValueError, LookupError) as error:
        raise CheckpointError(
            f"the checkpoint's reference of typicality is damaged, or of another program ({reason(error)}); {EXPORT}"
        ) from None
    check_format(reference["format"])
    return reference


def check_reference(reference: Any) -> None:
    """Raise TypeError, ValueError or LookupError for what is no `typicality_reference`."""
    values = reference["values"]
    if reference["score"] != SCORE or reference["format"] not in FORMATS:
        raise ValueError(f"score {reference['score']!r} of {reference['format']!r} files")
    if not isinstance(values, Tensor) or values.layout != torch.strided or values.device.type != "cpu":
        raise TypeError("values is not a tensor")
    if values.dtype != torch.float32 or values.dim() != 1 or not 0 < len(values) <= MAX_VALUES:
        raise ValueError(f"values is {values.dtype} {list(values.shape)}")
    if not values.isfinite().all() or (values.diff() < 0).any():
        raise ValueError("values are not finite and sorted")


def typicality(reference: dict[str, Any], images: Tensor, log_likelihoods: Tensor) -> Tensor:
    """The fraction of the reference images that are odder (have a lower score), 0..1, float64 [N].

    images uint8 [N, C, H, W], log_likelihoods in nats [N, num_classes]; NaN where they are.
    """
    bits, values = compressed_bits(images, reference["format"]), reference["values"]
    score = input_complexity(bits, log_likelihoods, tuple(images.shape[1:]))
    fraction = torch.searchsorted(values, score.float()).double() / len(values)  # float: as the values were rounded
    return fraction.where(~score.isnan(), math.nan)


def typicality_warning(typicality: float) -> str:
    """A sentence about an image of low typicality (0..1); empty for others, and for NaN."""
    if typicality < UNLIKE:
        return (
            "This photo is like nothing the network has seen, in its colours, sharpness or noise: "
            "the classes mean little."
        )
    if typicality < UNUSUAL:
        return (
            f"This photo is unusual: only {typicality:.1%} of the images that the network is compared with are odder, "
            "so trust the classes less."
        )
    return ""
