"""Calibration of the posterior: expected calibration error, coverage, temperature scaling (Guo et al. 2017)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import posterior
from plots.classification import plot_reliability

TEMPERATURES = (1e-2, 1e5)  # nats; likelihoods of thousands of values need tens


def fit_temperature(log_likelihoods: Tensor, labels: Tensor) -> float:
    """The temperature T under which softmax(log p / T) gives the true classes the largest likelihood.

    log_likelihoods in nats [N, num_classes], labels int64 [N], a uniform prior.
    """
    from scipy.optimize import minimize_scalar

    log_p = log_likelihoods.double()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(log_p / np.exp(log_temperature), labels).item()

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def cross_fitted_temperatures(log_likelihoods: Tensor, labels: Tensor, folds: int = 5) -> Tensor:
    """A temperature for each image that was fitted on other images: float64 [N].

    The images are shuffled, always alike, and divided into ``folds`` parts of nearly equal size (one an image where
    there are fewer images); the temperature of a part is that of `fit_temperature` on the other parts. An image alone
    has temperature 1. Log-likelihoods in nats [N, num_classes], labels int64 [N], a uniform prior.
    """
    from sklearn.model_selection import KFold

    temperatures = torch.ones(len(labels), dtype=torch.float64)
    if len(labels) > 1:
        for fit, judge in KFold(min(folds, len(labels)), shuffle=True, random_state=0).split(labels):
            temperatures[judge] = fit_temperature(log_likelihoods[fit], labels[fit])
    return temperatures


def cross_fitted_confidence(log_likelihoods: Tensor, labels: Tensor, folds: int = 5) -> Tensor:
    """The posterior of the most probable class of each image at `cross_fitted_temperatures`: float64 [N]."""
    temperatures = cross_fitted_temperatures(log_likelihoods, labels, folds)
    return posterior(log_likelihoods.double() / temperatures[:, None]).amax(dim=1)


def reliability_bins(
    confidence: Sequence[float], correct: Sequence[bool], bins: int
) -> list[tuple[float, float, float]]:
    """(fraction of the images, mean confidence, accuracy) of each bin of confidence that has images."""
    posterior, right = np.asarray(confidence), np.asarray(correct, dtype=float)
    place = np.minimum((posterior * bins).astype(int), bins - 1)
    rows = [place == i for i in range(bins)]
    return [(row.mean(), posterior[row].mean(), right[row].mean()) for row in rows if row.any()]


def expected_calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 15) -> float:
    """Mean distance, 0..1, of confidence and accuracy over bins of equal width (Guo et al. 2017, eq. 3)."""
    rows = reliability_bins(confidence, correct, bins)
    return float(sum(share * abs(mean - accuracy) for share, mean, accuracy in rows))


def accuracy_by_coverage(confidence: Sequence[float], correct: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """(coverage, accuracy) of the 1, 2, ... N most confident of N images, float [N] each, 0..1."""
    order = np.argsort(-np.asarray(confidence), kind="stable")
    kept = np.arange(1, len(order) + 1)
    return kept / len(order), np.asarray(correct, dtype=float)[order].cumsum() / kept


def reliability_diagram(confidence: Sequence[float], correct: Sequence[bool], path: str | Path) -> float:
    """Write a PNG of the reliability diagram, in 10 bins, and of accuracy against coverage; returns the expected
    calibration error. Raises UserError.
    """
    error = expected_calibration_error(confidence, correct)
    plot_reliability(reliability_bins(confidence, correct, 10), error, *accuracy_by_coverage(confidence, correct), path)
    return error
