"""Figures of evaluate.py that compare networks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from plots.figure import save_figure

COLUMNS = 4


def plot_coverage(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | Path) -> None:
    """A PNG of accuracy against coverage.

    Args:
        curves: of each network coverage and accuracy, float [N], 0..1.
        path: of the PNG.

    Raises UserError where ``path`` cannot be written.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, (coverage, accuracy) in curves.items():
        axes.plot(coverage, accuracy, label=name)
    lowest = min(float(accuracy.min()) for _, accuracy in curves.values())
    axes.set(xlabel="coverage (most confident images first)", ylabel="accuracy", xlim=(0, 1.01))
    axes.set_ylim(min(0.5, lowest), 1.01)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def plot_robustness(curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], path: str | Path) -> None:
    """A PNG with a panel per corruption: accuracy (solid) and calibration error (dashed) against strength.

    Args:
        curves: of each network and corruption, accuracy and expected calibration error at strength 0, 1, ...
        path: of the PNG.

    Raises UserError where ``path`` cannot be written.
    """
    corruptions = list(next(iter(curves.values())))
    rows = -(-len(corruptions) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 2.6 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, corruption in zip(panels, corruptions, strict=False):
        for number, (network, lines) in enumerate(curves.items()):
            accuracy, error = lines[corruption]
            axes.plot(accuracy, color=f"C{number}", marker=".", label=network)
            axes.plot(error, color=f"C{number}", linestyle="--")
        axes.set(title=corruption.replace("_", " "), ylim=(0, 1))
        axes.grid(alpha=0.3)
    for axes in panels[len(corruptions) :]:
        axes.set_axis_off()
    figure.supxlabel("strength (0: clean)")
    figure.supylabel("accuracy (solid), calibration error (dashed)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    save_figure(figure, path)


def plot_scores(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], other: str, path: str | Path) -> None:
    """A PNG with a panel per score: its histogram over the images of the data set and over others.

    Args:
        panels: of each score, its values for both, float [N] and [M].
        other: what the others are called.
        path: of the PNG.

    Raises UserError where ``path`` cannot be written.
    """
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    for axes, (score, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        edges = np.histogram_bin_edges(np.concatenate(values), bins=40)
        for images, label in zip(values, ("data set", other), strict=True):
            axes.hist(images, edges, density=True, alpha=0.6, label=label)
        axes.set(xlabel=score, ylabel="density")
        axes.legend()
    save_figure(figure, path)
