"""How well networks label images: accuracy with its interval, F1, calibration, coverage, and which of two is better."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data import ImageSet
from evaluation.calibration import (
    accuracy_by_coverage,
    cross_fitted_temperatures,
    expected_calibration_error,
    fit_temperature,
    reliability_diagram,
)
from evaluation.metrics import classification_scores, mcnemar_test, wilson_interval
from evaluation.sections.networks import Network
from evaluation.sections.report import Report, Value, cell, interval
from plots.classification import plot_confusion_matrix
from plots.evaluation import plot_coverage
from utils.text import printable

COVERAGES = (0.5, 0.8)  # of which the accuracy is a metric
HEADER = (
    *("network", "n", "accuracy (95 % interval)", "balanced accuracy", "macro F1"),
    *("negative log posterior, T = 1", "with T", "calibration error, T = 1", "with T", "T"),
    *(f"accuracy at coverage {coverage:g}" for coverage in COVERAGES),
)


def classification(networks: Sequence[Network], judged: ImageSet, report: Report) -> None:
    """Section 1. The metrics of a network's row are accuracy, balanced_accuracy, f1, f1_CLASS, ..."""
    report.heading("Classification")
    report.text(
        f"{len(judged)} images, each with the class of the largest log p(image | class), prior uniform. The interval "
        "is Wilson's (95 %). The negative log posterior is in nats; the calibration error has 15 bins. The temperature "
        "T of an image was fitted on four fifths of the images that do not include it; the column T is the mean."
    )
    truth = judged.labels
    correct: dict[str, np.ndarray] = {}
    rows: list[Sequence[str]] = [HEADER]
    of_classes: list[Sequence[str]] = [("F1", *map(printable, judged.class_names))]
    curves = {}
    for network in networks:
        scores = network.scores(judged.images).double()
        metrics, confidence = classification_metrics(scores, truth, judged.class_names)
        report.metric(network.name, "classification", metrics)
        correct[network.name] = (scores.argmax(1) == truth).numpy()
        curves[network.name] = accuracy_by_coverage(confidence, correct[network.name].tolist())
        rows.append(row(network.name, metrics))
        of_classes.append((network.name, *(cell(metrics[f"f1_{name}"]) for name in judged.class_names)))
    report.table("classification", rows)
    report.table("f1_of_classes", of_classes)
    if len(networks) > 1:
        compare(correct, report)
    report.figure("coverage", lambda file: plot_coverage(curves, file))
    for network in networks:
        figures(network, judged, report)


def classification_metrics(
    scores: Tensor, truth: Tensor, class_names: Sequence[str]
) -> tuple[dict[str, Value], list[float]]:
    """The metrics of scores float64 [N, num_classes] in nats, and the confidence at the fitted temperatures, [N]."""
    predicted = scores.argmax(1)
    right = (predicted == truth).tolist()
    of_labels = classification_scores(truth.tolist(), predicted.tolist())
    low, high = wilson_interval(sum(right), len(right))
    temperatures = cross_fitted_temperatures(scores, truth)
    cooled = scores / temperatures[:, None]
    confidence = cooled.softmax(1).amax(1).tolist()
    coverage, accuracy = accuracy_by_coverage(confidence, right)
    at = {f"accuracy_at_coverage_{c:g}": float(accuracy[np.searchsorted(coverage, c)]) for c in COVERAGES}
    metrics: dict[str, Value] = {
        "images": len(right),
        "accuracy": of_labels.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": of_labels.balanced_accuracy,
        "f1": of_labels.f1,
        **{f"f1_{name}": of_labels.f1_per_class.get(label) for label, name in enumerate(class_names)},
        "negative_log_posterior": F.cross_entropy(scores, truth).item(),
        "negative_log_posterior_scaled": F.cross_entropy(cooled, truth).item(),
        "calibration_error": expected_calibration_error(scores.softmax(1).amax(1).tolist(), right),
        "calibration_error_scaled": expected_calibration_error(confidence, right),
        "temperature": float(temperatures.mean()),
        **at,
    }
    return metrics, confidence


def row(name: str, m: dict[str, Value]) -> Sequence[str]:
    estimate, low, high = (float(m[key] or 0) for key in ("accuracy", "accuracy_low", "accuracy_high"))
    accuracy = interval(estimate, low, high, 4)
    keys = ("balanced_accuracy", "f1", "negative_log_posterior", "negative_log_posterior_scaled")
    more = ("calibration_error", "calibration_error_scaled")
    at = [cell(m[f"accuracy_at_coverage_{c:g}"]) for c in COVERAGES]
    scores = [cell(m[key]) for key in (*keys, *more)]
    return (name, str(m["images"]), accuracy, *scores, cell(m["temperature"], 1), *at)


def compare(correct: dict[str, np.ndarray], report: Report) -> None:
    """McNemar's test of each two networks on the same images."""
    rows: list[Sequence[str]] = [("network A", "network B", "only A is right", "only B is right", "p (McNemar, exact)")]
    for (a, of_a), (b, of_b) in combinations(correct.items(), 2):
        only_a, only_b = int((of_a & ~of_b).sum()), int((of_b & ~of_a).sum())
        p = mcnemar_test(only_a, only_b)
        report.metric(a, "classification", {f"mcnemar_p_{b}": p})
        rows.append((a, b, str(only_a), str(only_b), f"{p:.3g}"))
    report.table("mcnemar", rows)


def figures(network: Network, judged: ImageSet, report: Report) -> None:
    """Confusion matrix and reliability diagram, the latter at one temperature, fitted on all images."""
    scores = network.scores(judged.images).double()
    truth, predicted = judged.labels, scores.argmax(1)
    report.figure(
        f"confusion_{network.name}",
        lambda file: plot_confusion_matrix(truth.tolist(), predicted.tolist(), judged.class_names, file),
    )

    def reliability(file: Path) -> None:
        confidence = (scores / fit_temperature(scores, truth)).softmax(1).amax(1)
        reliability_diagram(confidence.tolist(), (predicted == truth).tolist(), file)

    report.figure(f"reliability_{network.name}", reliability)


def accuracy_and_calibration(scores: Tensor, truth: Tensor, temperature: float) -> tuple[float, float]:
    """Accuracy, and the expected calibration error at a temperature, of scores [N, num_classes] in nats."""
    right = scores.argmax(1) == truth
    confidence = torch.softmax(scores.double() / temperature, 1).amax(1)
    return right.double().mean().item(), expected_calibration_error(confidence.tolist(), right.tolist())
