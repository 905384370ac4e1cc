"""The Fréchet Inception distance: pytorch-fid's network and distance, on tensors and on image files."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import ImageSet
from evaluation.fid_reference import Reference, content_hash, count_rotated, open_reference
from evaluation.fid_statistics import Statistics, gaussian, load_statistics, save_statistics
from evaluation.inception import OFFICIAL_SHA256, InceptionFeatures
from evaluation.metrics import FID_NAMES
from utils.console import notify
from utils.errors import DataError, summary
from utils.text import printable


class FID:
    """The Fréchet distance of images to a reference.

    Args:
        reference: a folder, whose image files are taken as they are, a data set split, or statistics: a .npz file that
            pytorch-fid saved, or what `open_reference` returns.
        dims: features of the Inception network, 64, 192, 768 or 2048.
        weights: a copy of pytorch-fid's weights; None is the official file in torch's cache, downloaded if missing.
        device: where the network runs.
        cache_dir: of the reference's statistics; None is fid_statistics in torch's cache, beside its checkpoints.

    Raises UserError without weights; DataError, before they are downloaded, as `open_reference` does.
    """

    def __init__(
        self,
        reference: str | Path | Reference,
        dims: int = 2048,
        weights: str | Path | None = None,
        device: torch.device | str = "cpu",
        cache_dir: str | Path | None = None,
    ):
        self.reference = open_reference(reference, dims)
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
        """Mean and covariance of the reference's features.

        They come from the cache if the same pixels went through the same network before. Raises DataError for a file
        that cannot be decoded.
        """
        reference = self.reference
        if isinstance(reference, Statistics):
            return reference
        if isinstance(reference, list) and (rotated := count_rotated(reference)):
            notify(
                f"warning: {rotated} of the {len(reference)} files of FID's reference have an orientation in their "
                "EXIF data; as in pytorch-fid it is not applied to them, unlike in training"
            )
        dims, weights = self.inception.dims, self.inception.weights_sha256
        key = hashlib.sha256(f"{dims} {weights} {content_hash(reference)}".encode())
        cached = self.cache_dir / f"{dims}_{key.hexdigest()[:32]}.npz"
        with suppress(DataError):  # missing or damaged: computed anew
            if (kept := load_statistics(cached)).dims == dims:
                return kept
        statistics = gaussian(self.inception(reference.images if isinstance(reference, ImageSet) else reference))
        save_statistics(cached, statistics)
        return statistics


class SafeFID:
    """FID that does not raise, apart from `prepare`: what fails is one line on stderr, and there is no number.

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

    def prepare(self) -> None:
        """Process the reference now, before anything is drawn, rather than with the first measurement.

        Raises DataError for a file that cannot be decoded.
        """
        if self.fid is None:
            return
        try:
            _ = self.fid.reference_statistics  # kept
        except DataError:
            raise
        except Exception as error:
            notify(f"FID is not measured: {summary(error)}")
            self.fid = None

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
        against = self.fid.reference
        them = "statistics" if isinstance(against, Statistics) else len(against)
        return (
            f"{self.fid.name} {measured[self.fid.name]:.4f} (pytorch-fid, dims {self.fid.inception.dims}, "
            f"{count} images against the {them} of {reference}, weights {printable(self.fid.inception.weights)})"
        )
