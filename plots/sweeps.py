"""Figures of a hyperparameter search: parallel coordinates, importances, learning curves, ablation."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from plots.figure import save_figure

LEGEND_CURVES = 12  # curves with an entry in the legend
DPI = 110


@dataclass(frozen=True)
class Curve:
    """The learning curves of a trial.

    Args:
        label: for the legend.
        reports: one an epoch, as in metrics.jsonl.
        complete: whether the trial ran to its last epoch.
    """

    label: str
    reports: Sequence[Mapping[str, Any]]
    complete: bool


# Not optuna.visualization: it needs pyplot, sorts settings by name, and draws poor trials over good ones and labels.
def plot_parallel(
    settings: Sequence[Mapping[str, Any]], values: Sequence[float], goal: str, title: str, path: Path
) -> None:
    """Parallel coordinates: a line per trial through its settings to its metric; the better, the darker.

    Args:
        settings: of each trial, all with the same keys in the same order; at least one trial.
        values: the metric of each trial.
        goal: maximize or minimize.
        title: of the metric.
        path: of the PNG.

    Raises UserError where ``path`` cannot be written.
    """
    columns = [(name, *axis_positions([trial[name] for trial in settings])) for name in settings[0]]
    columns.append((title, axis_positions(values)[0], {}))  # the colour bar beside it has the ticks
    figure = Figure(figsize=(2.5 + 1.7 * len(settings[0]), 4.5), layout="constrained")
    axes = figure.add_subplot()
    colours = ScalarMappable(Normalize(min(values), max(values)), "viridis_r" if goal == "maximize" else "viridis")
    worst_first = sorted(range(len(values)), key=values.__getitem__, reverse=goal == "minimize")
    for i in worst_first:
        heights = [positions[i] for _, positions, _ in columns]
        axes.plot(range(len(columns)), heights, color=colours.to_rgba(np.asarray(values[i])), alpha=0.85, linewidth=1.8)
    for x, (_, _, ticks) in enumerate(columns):
        axes.axvline(x, color="0.5", linewidth=0.8, zorder=0)
        for label, y in ticks.items():
            axes.annotate(
                label, (x, y), (-4, 0), textcoords="offset points", ha="right", va="center", fontsize=8,
                parse_math=False,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            )  # fmt: skip
    axes.set_xticks(range(len(columns)), [name for name, _, _ in columns], parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set(yticks=[], xlim=(-0.45, len(columns) - 0.9), ylim=(-0.06, 1.06))
    axes.spines[:].set_visible(False)
    figure.colorbar(colours, ax=axes, label=title, pad=0.02)
    save_figure(figure, path, DPI)


def axis_positions(values: Sequence[Any]) -> tuple[list[float], dict[str, float]]:
    """Positions of values on an axis from 0 to 1, and its ticks as label -> position.

    Numbers that span two decades or more are on a logarithmic scale; other values than numbers are in sorted order.
    """
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        logarithmic = low > 0 and high / low >= 100
        scale: Callable[[Any], float] = (LogNorm if logarithmic else Normalize)(low, high)
        ticks = sorted(set(values))
        if len(ticks) > 8:
            locator = LogLocator() if logarithmic else MaxNLocator(6)
            ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
    else:
        values = [str(value) for value in values]
        ticks = sorted(set(values))
        low, high = 0, len(ticks) - 1
        scale = {tick: index / max(high, 1) for index, tick in enumerate(ticks)}.__getitem__
    position = {value: float(scale(value)) if low < high else 0.5 for value in {*values, *ticks}}
    labels = {tick if isinstance(tick, str) else f"{tick:.4g}": position[tick] for tick in ticks}
    return [position[value] for value in values], labels


# Not optuna.visualization: it has no correlations, which W&B shows beside the importances.
def plot_importance(
    importances: Mapping[str, float], correlations: Mapping[str, float], title: str, path: Path
) -> None:
    """Bars of the importance (0 to 1) and the correlation (-1 to 1) of each setting, the most important at the top.

    A setting without a correlation is labelled as categorical. Raises UserError where ``path`` cannot be written.
    """
    names = sorted(importances, key=importances.__getitem__)
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(names, [importances[name] for name in names], color="tab:blue")
    left.set(xlabel="importance (fANOVA)", xlim=(0, 1))
    for y, name in enumerate(names):
        if name in correlations:
            value = correlations[name]
            right.barh(y, value, color="tab:green" if value > 0 else "tab:red")
            right.annotate(f"{value:+.2f}", (0, y), (-4 if value > 0 else 4, 0), textcoords="offset points",
                           ha="right" if value > 0 else "left", va="center", fontsize=8)  # fmt: skip
        else:
            right.annotate("categorical", (0, y), ha="center", va="center", fontsize=8, color="0.5")
    right.axvline(0, color="black", linewidth=0.8)
    right.set(xlabel="correlation", xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1))
    figure.suptitle(f"Influence of the settings on {title}", fontsize=11)
    save_figure(figure, path, DPI)


def plot_curves(curves: Sequence[Curve], titles: Mapping[str, str], path: Path) -> None:
    """Learning curves of all trials, a panel per metric that was measured.

    Args:
        curves: best trial first; dotted where a trial is not complete.
        titles: key of the reports -> title of the panel.
        path: of the PNG.

    Raises UserError where ``path`` cannot be written.
    """
    keys = [key for key in titles if any(key in report for curve in curves for report in curve.reports)]
    figure = Figure(figsize=(1 + 4.2 * max(1, len(keys)) + 2.5, 4), layout="constrained")
    panels = figure.subplots(1, max(1, len(keys)), squeeze=False)[0]
    entries = {}  # of the legend
    for i, curve in enumerate(curves):
        style = {"color": colormaps["turbo"](0.05 + 0.9 * i / max(1, len(curves) - 1)), "marker": ".", "markersize": 4}
        style |= {"linewidth": 2.2 if i == 0 else 1.1, "zorder": 3 if i == 0 else 2}
        style |= {"linestyle": "-" if curve.complete else ":"}
        for axes, key in zip(panels, keys, strict=False):  # one empty panel if nothing was measured
            points = [(report["epoch"], report[key]) for report in curve.reports if key in report]
            if points:
                entries[curve.label] = axes.plot(*zip(*points, strict=True), **style)[0]
    for axes, key in zip(panels, keys, strict=False):
        axes.set(xlabel="epoch", ylabel=titles[key])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if entries:
        labels = list(entries)[:LEGEND_CURVES]
        handles = [entries[label] for label in labels]
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, title="best first")
    save_figure(figure, path, DPI)


def plot_ablation(groups: Mapping[str, Mapping[str, Sequence[float]]], titles: Mapping[str, str], path: Path) -> None:
    """Mean and standard deviation of each metric by group, with a dot per seed.

    Args:
        groups: name of the group -> key of the metric -> one value per seed.
        titles: key of the metric -> title of its panel.
        path: of the PNG.

    Raises UserError where ``path`` cannot be written.
    """
    figure = Figure(figsize=(1 + 3.6 * len(titles), 1.6 + 0.5 * len(groups)), layout="constrained")
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for y, group in enumerate(groups.values()):
            values = group[key]
            if values:
                deviation = statistics.stdev(values) if len(values) > 1 else 0
                axes.errorbar(statistics.mean(values), y, xerr=deviation, fmt="o", color="tab:blue", capsize=4)
                axes.plot(values, [y] * len(values), ".", color="tab:orange")
        axes.set(xlabel=title)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(groups)), list(groups), parse_math=False)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    save_figure(figure, path, DPI)
