"""Mean and covariance of Inception features, and files of them in pytorch-fid's format."""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.console import notify
from utils.errors import DataError, reason
from utils.text import printable


class Statistics(NamedTuple):
    """What FID needs of a set of images: mu [dims] and sigma [dims, dims], float64."""

    mu: np.ndarray
    sigma: np.ndarray

    @property
    def dims(self) -> int:
        return self.mu.size


def gaussian(features: np.ndarray) -> Statistics:
    """The mean and covariance of features, float64 [N, dims], as pytorch-fid computes them."""
    return Statistics(features.mean(axis=0), np.cov(features, rowvar=False))


def load_statistics(file: str | Path) -> Statistics:
    """mu and sigma of a .npz file, as ``python -m pytorch_fid --save-stats`` writes it. Raises DataError."""
    try:
        if not zipfile.is_zipfile(file):  # numpy would take it for a pickle, and say so
            raise ValueError("not a .npz file")
        with np.load(file) as arrays:
            mu, sigma = (arrays[key].astype(np.float64, casting="same_kind") for key in ("mu", "sigma"))
        if mu.ndim != 1 or sigma.shape != 2 * mu.shape:
            raise ValueError(f"mu has shape {mu.shape} and sigma {sigma.shape}")
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise ValueError("some numbers are not finite")
    except Exception as error:  # of half a zip file, numpy and zipfile raise nearly anything
        raise DataError(
            f"{printable(file)} holds no statistics of FID ({reason(error)}); "
            "write them with python -m pytorch_fid --save-stats FOLDER FILE.npz"
        ) from error
    return Statistics(mu, sigma)


def save_statistics(file: Path, statistics: Statistics) -> None:
    """Write such a file into a cache; where that fails, a warning says so."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=file.parent) as folder:
            partial_file = Path(folder, file.name)
            np.savez_compressed(partial_file, mu=statistics.mu, sigma=statistics.sigma)
            os.replace(partial_file, file)  # never half a file
    except OSError as error:
        notify(f"warning: the statistics of FID's reference were not kept in {printable(file.parent)} ({error})")
