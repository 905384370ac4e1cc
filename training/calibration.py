"""How far a confidence can be trusted: accuracy and F1, calibration error, temperature scaling (Guo et al. 2017)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from training.pictures import replacing

__all__ = ["accuracy_by_coverage", "expected_calibration_error", "fit_temperature", "reliability_picture", "scores"]

TEMPERATURES = (1e-2, 1e5)  # nats; likelihoods of thousands of values want tens


def scores(truth: Sequence[int], predicted: Sequence[int]) -> tuple[float, float, dict[int, float]]:
    """Accuracy, macro F1 and the F1 of each class, all 0..1, of labels of the same N images.

    Of the classes that occur in either.
    """
    from sklearn.metrics import accuracy_score, f1_score

    classes = sorted({*truth, *predicted})
    f1 = f1_score(truth, predicted, labels=classes, average=None)
    return float(accuracy_score(truth, predicted)), float(f1.mean()), dict(zip(classes, f1.tolist(), strict=True))


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


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int) -> list[tuple[float, float, float]]:
    """(share of the images, mean confidence, accuracy) of each bin of confidence that has images."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [place == i for i in range(bins)]
    return [(row.mean(), confidence[row].mean(), correct[row].mean()) for row in rows if row.any()]


def expected_calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 15) -> float:
    """Mean distance, 0..1, of confidence and accuracy over bins of equal width (Guo et al. 2017, eq. 3)."""
    rows = reliability(np.asarray(confidence), np.asarray(correct, dtype=float), bins)
    return float(sum(share * abs(mean - accuracy) for share, mean, accuracy in rows))


def accuracy_by_coverage(confidence: Sequence[float], correct: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """(share of the images kept, accuracy on them), the most confident first, for 1, 2, ... N of N images."""
    order = np.argsort(-np.asarray(confidence), kind="stable")
    kept = np.arange(1, len(order) + 1)
    return kept / len(order), np.asarray(correct, dtype=float)[order].cumsum() / kept


def reliability_picture(confidence: Sequence[float], correct: Sequence[bool], path: str | Path, bins: int = 10) -> None:
    """A PNG of accuracy against confidence, and of accuracy against the share of images kept. Raises UserError."""
    from matplotlib.figure import Figure

    rows = reliability(np.asarray(confidence), np.asarray(correct, dtype=float), bins)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="gray", linestyle="--", label="as sure as right")
    left.scatter(
        [mean for _, mean, _ in rows],
        [accuracy for *_, accuracy in rows],
        s=[20 + 600 * share for share, *_ in rows],
        alpha=0.7,
        label="images (area: how many)",
    )
    error = expected_calibration_error(confidence, correct)
    left.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.03))
    left.set_title(f"expected calibration error {error:.3f}")
    left.legend(loc="upper left", markerscale=0.5)
    kept, accuracy = accuracy_by_coverage(confidence, correct)
    right.plot(kept, accuracy)
    right.set(xlabel="share of the images kept, the most confident first", ylabel="accuracy on them", xlim=(0, 1.01))
    right.set_ylim(min(0.5, float(accuracy.min())), 1.01)
    right.set_title(f"accuracy {accuracy[-1]:.3f} on all, {accuracy[max(0, len(kept) // 2 - 1)]:.3f} on the surer half")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100, format="png")
