"""Accuracy and calibration under corruptions of growing strength (Hendrycks & Dietterich 2019)."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from data import ImageSet
from evaluation.calibration import fit_temperature
from evaluation.corruptions import CORRUPTIONS, corrupt
from evaluation.sections.classification import accuracy_and_calibration
from evaluation.sections.images import SEED, balanced_order
from evaluation.sections.networks import Network
from evaluation.sections.report import Report
from plots.evaluation import plot_robustness
from utils.distributed import rank

STRENGTHS = range(1, 6)

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # corruption -> accuracy and calibration error at strength 0, 1, ...


def robustness(networks: Sequence[Network], judged: ImageSet, count: int, report: Report) -> None:
    """Section 4, on ``count`` of the images, as many of each class. The metrics of a network's row are accuracy,
    calibration_error, accuracy_CORRUPTION, accuracy_CORRUPTION_STRENGTH, ...
    """
    order = balanced_order(judged.labels)
    chosen, others = order[:count], order[count:]
    report.heading("Robustness")
    report.text(
        f"Accuracy, and in brackets the expected calibration error, of {len(chosen)} images, corrupted at strengths 1 "
        "to 5: the mean over the strengths. The temperature was fitted on the clean images that are not among these"
        f"{'' if len(others) else ' (here there are none: on these)'}."
    )
    images, truth = judged.images[chosen], judged.labels[chosen]
    curves: dict[str, Curves] = {}
    for network in networks:
        clean = network.scores(judged.images)
        fitted_on = others if len(others) else chosen
        temperature = fit_temperature(clean[fitted_on], judged.labels[fitted_on])
        start = accuracy_and_calibration(clean[chosen], truth, temperature)
        curves[network.name] = {}
        bar = tqdm(CORRUPTIONS, f"corruptions, {network.name}", leave=False, disable=None if rank() == 0 else True)
        for name in bar:
            at = [start]
            for strength in STRENGTHS:
                scores = network.scores(corrupt(images, name, strength, SEED), f"{name} {strength}")
                at.append(accuracy_and_calibration(scores, truth, temperature))
            accuracy, error = np.array(at).T
            curves[network.name][name] = accuracy, error
        report.metric(network.name, "robustness", dict(metrics(curves[network.name])))
    report.table("robustness", table(curves))
    report.figure("robustness", lambda file: plot_robustness(curves, file))


def metrics(curves: Curves) -> dict[str, float]:
    """Means over the strengths; without a name of a corruption over all of them."""
    values = {
        "clean_accuracy": next(iter(curves.values()))[0][0],
        "accuracy": np.mean([accuracy[1:] for accuracy, _ in curves.values()]),
        "calibration_error": np.mean([error[1:] for _, error in curves.values()]),
    }
    for name, (accuracy, error) in curves.items():
        values[f"accuracy_{name}"], values[f"calibration_error_{name}"] = accuracy[1:].mean(), error[1:].mean()
        values |= {f"accuracy_{name}_{strength}": accuracy[strength] for strength in STRENGTHS}
    return {name: float(value) for name, value in values.items()}


def table(curves: dict[str, Curves]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("corruption", *curves)]
    rows.append(("none", *(pair(*(line[:1] for line in next(iter(of.values())))) for of in curves.values())))
    for name in CORRUPTIONS:
        rows.append((name.replace("_", " "), *(pair(*(line[1:] for line in of[name])) for of in curves.values())))
    means = [np.mean([(a[1:], e[1:]) for a, e in of.values()], axis=0) for of in curves.values()]
    return [*rows, ("mean", *(pair(accuracy, error) for accuracy, error in means))]


def pair(accuracy: np.ndarray, error: np.ndarray) -> str:
    return f"{accuracy.mean():.3f} ({error.mean():.3f})"
