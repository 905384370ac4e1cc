"""The Fréchet Inception distance: pytorch-fid's network and distance, on tensors and on image files."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import ImageSet, find_images
from evaluation.inception import OFFICIAL_SHA256, InceptionFeatures
from evaluation.metrics import FID_NAMES
from utils.console import notify
from utils.errors import DataError, summary
from utils.files import file_hash
from utils.text import printable

Statistics = tuple[np.ndarray, np.ndarray]  # mu [dims], sigma [dims, dims], float64


class FID:
    """The Fréchet distance of images to a reference.

    Args:
        reference: a folder, whose image files are taken as they are, or a data set split.
        dims: features of the Inception network, 64, 192, 768 or 2048.
        weights: a copy of pytorch-fid's weights; None is the official file in torch's cache, downloaded if missing.
        device: where the network runs.
        cache_dir: of the reference's statistics; None is fid_statistics in torch's cache, beside its checkpoints.

    Raises UserError without weights, DataError for a reference with fewer than two images.
    """

    def __init__(
        self,
        reference: str | Path | ImageSet,
        dims: int = 2048,
        weights: str | Path | None = None,
        device: torch.device | str = "cpu",
        cache_dir: str | Path | None = None,
    ):
        self.reference = reference if isinstance(reference, ImageSet) else image_files(reference)
        if len(self.reference) < 2:
            where = "the split" if isinstance(reference, ImageSet) else printable(reference)
            raise DataError(f"{where} has {len(self.reference)} images; a reference of FID needs two or more")
        self.inception = InceptionFeatures(dims, weights, device)
        self.cache_dir = Path(cache_dir or Path(torch.hub.get_dir(), "fid_statistics"))
        self._warned = False

    @property
    def name(self) -> str:
        """What the number may be called: fid, or with other weights frechet_distance_unofficial_weights."""
        return FID_NAMES[0] if self.inception.official else FID_NAMES[1]

    def score(self, images: Tensor | Sequence[Path]) -> float:
        """The distance of uint8 [N, C, H, W], C = 1 or 3, or of N image files, to the reference; N at least 2.

        Raises ValueError where it is not a finite number, DataError for a file that cannot be decoded, and what
        pytorch-fid raises.
        """
        from pytorch_fid.fid_score import calculate_frechet_distance

        dims = self.inception.dims
        if len(images) < 2:
            raise ValueError(f"{len(images)} images; FID needs two or more")
        if len(images) < dims and not self._warned:
            self._warned = True
            notify(
                f"warning: {len(images)} images are fewer than the {dims} dimensions of FID, which biases it upwards; "
                "compare it only with numbers from as many images"
            )
        reference = self.reference_statistics
        statistics = gaussian(self.inception(images))
        with redirect_stdout(sys.stderr):  # pytorch-fid prints a warning where a covariance is singular
            distance = float(calculate_frechet_distance(*statistics, *reference))
        if not np.isfinite(distance):
            raise ValueError(f"the distance is {distance}")
        return distance

    @cached_property
    def reference_statistics(self) -> Statistics:
        """Mean [dims] and covariance [dims, dims] of the reference's features, float64.

        They come from the cache if the same pixels went through the same network before. Raises DataError for a file
        that cannot be decoded.
        """
        dims, weights = self.inception.dims, self.inception.weights_sha256
        key = hashlib.sha256(f"{dims} {weights} {content_hash(self.reference)}".encode())
        cached = self.cache_dir / f"{dims}_{key.hexdigest()[:32]}.npz"
        statistics = read_statistics(cached, dims)
        if statistics is None:
            reference = self.reference
            statistics = gaussian(self.inception(reference.images if isinstance(reference, ImageSet) else reference))
            write_statistics(cached, statistics)
        return statistics


class SafeFID:
    """FID that never raises: what fails is one line on stderr, and there is no number.

    Args:
        make: builds the FID. If it fails, this is said once, here, and nothing is measured.
    """

    def __init__(self, make: Callable[[], FID]):
        self.fid: FID | None = None
        try:
            self.fid = make()
        except Exception as error:
            notify(f"FID is not measured: {summary(error)}")
            return
        inception = self.fid.inception
        if not inception.official:
            notify(
                f"{printable(inception.weights)} is not the official weights file of FID (its sha256 starts with "
                f"{inception.weights_sha256[:8]}, not {OFFICIAL_SHA256}); the number is called {self.fid.name}"
            )

    def measure(self, draw: Callable[[], Tensor | Sequence[Path]]) -> dict[str, float | str]:
        """{"fid": distance of what ``draw`` returns}, or {"fid_error": reason}, or {} where FID is unavailable.

        ``draw`` returns uint8 [N, C, H, W] or N image files; where FID is unavailable, it is not called. Other weights
        than the official ones give the key frechet_distance_unofficial_weights.
        """
        if self.fid is None:
            return {}
        try:
            return {self.fid.name: self.fid.score(draw())}
        except Exception as error:
            reason = summary(error)
            notify(f"FID failed: {reason}")
            return {"fid_error": reason}

    def describe(self, measured: dict[str, float | str], count: int, reference: str) -> str:
        """One line with the number and how it was computed; empty where there is none.

        Args:
            measured: what `measure` returned.
            count: how many images it measured.
            reference: what the reference is called.
        """
        if self.fid is None or self.fid.name not in measured:
            return ""
        return (
            f"{self.fid.name} {measured[self.fid.name]:.4f} (pytorch-fid, dims {self.fid.inception.dims}, "
            f"{count} images against the {len(self.fid.reference)} of {reference}, "
            f"weights {printable(self.fid.inception.weights)})"
        )


def gaussian(features: np.ndarray) -> Statistics:
    """The mean [dims] and covariance [dims, dims] of features, float64 [N, dims], as pytorch-fid computes them."""
    return features.mean(axis=0), np.cov(features, rowvar=False)


def image_files(folder: str | Path) -> list[Path]:
    """The images in a folder and below that pytorch-fid reads, sorted. Raises DataError."""
    from pytorch_fid.fid_score import IMAGE_EXTENSIONS

    if not os.path.isdir(folder):
        raise DataError(f"{printable(folder)}: no such folder")
    files = [file for file in find_images(folder) if file.suffix[1:].lower() in IMAGE_EXTENSIONS]
    return [file for file in files if file.is_file()]  # opening a pipe would block


def content_hash(reference: ImageSet | Sequence[Path]) -> str:
    """sha256 of a split's pixels, or of the bytes of files: their names and order do not matter."""
    if isinstance(reference, ImageSet):
        pixels = reference.images.contiguous()
        return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).hexdigest()
    return hashlib.sha256("".join(sorted(map(file_hash, reference))).encode()).hexdigest()


def read_statistics(cached: Path, dims: int) -> Statistics | None:
    """mu and sigma from a file of pytorch-fid's format; None where it is missing or damaged."""
    if not cached.is_file():
        return None
    try:
        with np.load(cached) as arrays:
            mu, sigma = arrays["mu"], arrays["sigma"]
    except Exception:  # of half a zip file, numpy and zipfile raise nearly anything
        return None
    whole = mu.shape == (dims,) and sigma.shape == (dims, dims) and np.isfinite(mu).all() and np.isfinite(sigma).all()
    return (mu, sigma) if whole else None


def write_statistics(cached: Path, statistics: Statistics) -> None:
    """Keep mu and sigma as ``pytorch_fid --save-stats`` writes them; where that fails they only take time again."""
    mu, sigma = statistics
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=cached.parent) as folder:
            partial_file = Path(folder, cached.name)
            np.savez_compressed(partial_file, mu=mu, sigma=sigma)
            os.replace(partial_file, cached)  # never half a file
    except OSError as error:
        notify(f"warning: the statistics of FID's reference were not kept in {printable(cached.parent)} ({error})")
