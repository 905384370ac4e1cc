"""Learning curves of a run, and the trade-off between bits/dim and accuracy of several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from plots.figure import save_figure


def plot_learning_curves(
    reports: Sequence[Mapping[str, Any]], panels: Mapping[str, Mapping[str, str]], path: str | Path
) -> None:
    """Metrics against epochs.

    Args:
        reports: one an epoch, as in metrics.jsonl.
        panels: the title of each panel, and of each of its curves the key of the reports and the label.
        path: of the PNG.

    Raises UserError where ``path`` cannot be written.
    """
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for key, label in curves.items():
            points = [(report["epoch"], report[key]) for report in reports if key in report]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=label)
        axes.set(xlabel="epoch", ylabel=title, ylim=(0, 1) if "accuracy" in curves else None)
        axes.grid(alpha=0.3)
        if len(curves) > 1 and axes.lines:
            axes.legend()
    save_figure(figure, path)


def plot_tradeoff(runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], images: str, path: str | Path) -> None:
    """Accuracy against bits/dim of labelled runs, one point per evaluation, the last one marked.

    ``images`` are those that are evaluated, as in "validation". Raises UserError where ``path`` cannot be written.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for label, reports in runs:
        bpd, accuracy = [report["val_bpd"] for report in reports], [report["accuracy"] for report in reports]
        (line,) = axes.plot(bpd, accuracy, marker=".", alpha=0.6, label=label)
        axes.plot(bpd[-1:], accuracy[-1:], marker="o", color=line.get_color())
    axes.set(xlabel=f"{images} bits per dimension (lower is better)", ylabel=f"{images} accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)
