"""Bits per dimension, beside lossless image formats."""

from collections.abc import Sequence

from torch import Tensor

from data import ImageSet
from data.splits import hold_out
from evaluation.lossless import available_formats, compressed_bits
from evaluation.protocol import evaluated_on
from evaluation.sections.images import EvaluationImages, some
from evaluation.sections.networks import Network
from evaluation.sections.report import Report
from model import PixelCNN, bits_per_dim
from utils.text import printable

TRAIN_IMAGES = 5000  # of a larger data set a random part, to save time
FORMATS = {"png": "PNG", "webp": "WebP", "jxl": "JPEG XL"}


def likelihood(networks: Sequence[Network], images: EvaluationImages, report: Report) -> None:
    """Section 2. The metrics of a network's row are bpd, bpd_error, train_bpd, ...; of a format's row bpd."""
    judged, split = images.judged, images.split
    report.heading("Likelihood")
    report.text(
        "Bits per dimension under the true class, with the standard error of the mean. The gap is that of unseen to "
        "training images: how much the network overfits. The lossless formats compress the same images, each file with "
        "its header."
    )
    header = ("", f"bits/dim ({split}, n = {len(judged)})", "train", "gap", *map(printable, judged.class_names))
    rows: list[Sequence[str]] = [header]
    for network in networks:
        if not network.generative:
            continue
        bpd = bits(network, judged, split)
        seen = training_images(network.net, images)
        train = bits(network, seen, "train")
        (mean, error), (train_mean, train_error) = mean_and_error(bpd), mean_and_error(train)
        of_classes = class_means(bpd, judged)
        report.metric(
            network.name,
            "likelihood",
            {
                "bpd": mean,
                "bpd_error": error,
                "train_bpd": train_mean,
                "train_bpd_error": train_error,
                "train_images": len(seen),
                "gap": mean - train_mean,
                **{f"bpd_{name}": value for name, value in zip(judged.class_names, of_classes, strict=True)},
            },
        )
        rows.append(
            (
                network.name,
                f"{mean:.3f} ± {error:.3f}",
                f"{train_mean:.3f} ± {train_error:.3f} (n = {len(seen)})",
                f"{mean - train_mean:.3f}",
                *(f"{value:.3f}" for value in of_classes),
            )
        )
    values = judged.images[0].numel()
    for name in available_formats():
        bpd = compressed_bits(judged.images, name) / values
        mean, error = mean_and_error(bpd)
        report.metric(name, "likelihood", {"bpd": mean, "bpd_error": error})
        cells = [f"{value:.3f}" for value in class_means(bpd, judged)]
        rows.append((FORMATS[name], f"{mean:.3f} ± {error:.3f}", "", "", *cells))
    report.table("likelihood", rows)


def bits(network: Network, split: ImageSet, name: str) -> Tensor:
    """Bits/dim of each image under its class, float64 [N]."""
    nats = network.log_likelihood(split, f"likelihood of {name} images").double()
    return -bits_per_dim(nats, tuple(split.images.shape[1:]))


def training_images(net: PixelCNN, images: EvaluationImages) -> ImageSet:
    """Those that the network was trained on, of many a random part."""
    split = images.train
    if evaluated_on(net) == "holdout":
        split = hold_out(split)[0]
    return split.part(some(len(split), TRAIN_IMAGES))


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of float [N], and its standard error (0 for one value)."""
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else 0.0
    return values.mean().item(), error


def class_means(values: Tensor, split: ImageSet) -> list[float]:
    """The mean of float [N] over the images of each class; NaN for a class without images."""
    return [values[split.labels == label].mean().item() for label in range(split.num_classes)]
