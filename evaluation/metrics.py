"""The metrics that reports, tables, figures and sweeps name, and the best of several reports."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Goal = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and whether more of it is better ("maximize") or less ("minimize").

    Args:
        title: with {images} where the name of the images goes that it is measured on, as in `of`.
        goal: minimize or maximize.
    """

    title: str
    goal: Goal

    def of(self, images: str) -> str:
        """The title where it is measured on ``images``, as in "validation accuracy"."""
        return self.title.format(images=images)


METRICS = {  # keys of metrics.jsonl
    "accuracy": Metric("{images} accuracy", "maximize"),
    "balanced_accuracy": Metric("{images} balanced accuracy", "maximize"),
    "f1": Metric("{images} macro F1", "maximize"),
    "val_bpd": Metric("{images} bits/dim", "minimize"),
    "fid": Metric("FID", "minimize"),
    "frechet_distance": Metric("Fréchet distance (EfficientNet)", "minimize"),
    "kernel_distance": Metric("kernel distance (EfficientNet)", "minimize"),
    "class_agreement": Metric("class agreement of samples", "maximize"),
    "derailed": Metric("share of derailed samples", "minimize"),
}
SAMPLE_METRICS = ("frechet_distance", "kernel_distance", "class_agreement", "derailed")  # of --metric_samples
SAMPLED = ("fid", *SAMPLE_METRICS)  # measured with sample grids alone
BestMetric = Literal["accuracy", "balanced_accuracy", "f1", "bpd", "last"]  # which epoch of a run is the best
FID_NAMES = ("fid", "frechet_distance_unofficial_weights")  # a number from other weights is never called FID


@dataclass(frozen=True)
class Scores:
    """How well labels are predicted, all 0..1, over the classes that occur.

    Args:
        accuracy: fraction of the images.
        balanced_accuracy: mean of the classes' recall, over those that have images; each counts alike.
        f1: macro F1, the mean of ``f1_per_class``.
        f1_per_class: of each class that has images or is predicted.
    """

    accuracy: float
    balanced_accuracy: float
    f1: float
    f1_per_class: dict[int, float]


def best_key(best_metric: BestMetric) -> tuple[str, Goal]:
    """The key of a report that --best_metric means, and whether more of it is better."""
    if best_metric == "last":
        return "epoch", "maximize"
    key = "val_bpd" if best_metric == "bpd" else best_metric
    return key, METRICS[key].goal


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a number, neither NaN nor infinite."""
    return isinstance(value, int | float) and math.isfinite(value)


def ranking(report: Mapping[str, Any], metric: str, goal: str) -> tuple[float, float]:
    """A key by which the best report is the largest; bits/dim decide between reports of the same ``metric``."""

    def worth(value: Any, goal: str) -> float:
        return -math.inf if not is_finite(value) else value if goal == "maximize" else -value

    return worth(report[metric], goal), worth(report.get("val_bpd"), "minimize")


def best_report(reports: Iterable[Mapping[str, Any]], metric: str, goal: str) -> Mapping[str, Any] | None:
    """The first of the best reports that have a finite ``metric``; None where there is none."""
    measured = [report for report in reports if is_finite(report.get(metric))]
    return max(measured, key=lambda report: ranking(report, metric, goal), default=None)


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % confidence interval (Wilson 1927) of a probability that ``count`` trials estimate, at least 1."""
    from scipy.stats import binomtest

    low, high = binomtest(successes, count).proportion_ci(method="wilson")
    return float(low), float(high)


def classification_scores(truth: Sequence[int], predicted: Sequence[int]) -> Scores:
    """The scores of the labels of the same N images, N at least 1."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    classes = sorted({*truth, *predicted})
    _, recall, f1, images = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=0)
    return Scores(
        accuracy=float(accuracy_score(truth, predicted)),
        balanced_accuracy=float(recall[images > 0].mean()),
        f1=float(f1.mean()),
        f1_per_class=dict(zip(classes, f1.tolist(), strict=True)),
    )


def mcnemar_test(only_first: int, only_second: int) -> float:
    """The p-value of the exact test that two classifiers are equally often right (McNemar 1947), two-sided.

    Of the same images, ``only_first`` are labelled correctly by the first alone, ``only_second`` by the second alone.
    """
    from scipy.stats import binomtest

    differing = only_first + only_second
    return float(binomtest(only_first, differing).pvalue) if differing else 1.0
