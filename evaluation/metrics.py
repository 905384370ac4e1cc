"""The metrics that reports, tables, figures and sweeps name, and the best of several reports."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Goal = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and whether more of it is better ("maximize") or less ("minimize")."""

    title: str
    goal: Goal


METRICS = {  # keys of metrics.jsonl
    "accuracy": Metric("validation accuracy", "maximize"),
    "val_bpd": Metric("validation bits/dim", "minimize"),
    "fid": Metric("FID", "minimize"),
}
FID_NAMES = ("fid", "frechet_distance_unofficial_weights")  # a number from other weights is never called FID


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a number, neither NaN nor infinite."""
    return isinstance(value, int | float) and math.isfinite(value)


def ranking(report: Mapping[str, Any], metric: str = "accuracy", goal: str = "maximize") -> tuple[float, float]:
    """A key by which the best report is the largest; bits/dim decide between reports of the same ``metric``."""
    value, bpd = report[metric], report.get("val_bpd", math.nan)
    return (value if goal == "maximize" else -value), (-bpd if is_finite(bpd) else -math.inf)


def best_report(
    reports: Iterable[Mapping[str, Any]], metric: str = "accuracy", goal: str = "maximize"
) -> Mapping[str, Any] | None:
    """The first of the best reports that have a finite ``metric``; None where there is none."""
    measured = [report for report in reports if is_finite(report.get(metric))]
    return max(measured, key=lambda report: ranking(report, metric, goal), default=None)


def classification_scores(truth: Sequence[int], predicted: Sequence[int]) -> tuple[float, float, dict[int, float]]:
    """Accuracy, macro F1 and the F1 of each class that occurs, all 0..1, of the labels of the same N images."""
    from sklearn.metrics import accuracy_score, f1_score

    classes = sorted({*truth, *predicted})
    f1 = f1_score(truth, predicted, labels=classes, average=None)
    return float(accuracy_score(truth, predicted)), float(f1.mean()), dict(zip(classes, f1.tolist(), strict=True))
