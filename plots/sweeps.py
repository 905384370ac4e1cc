"""Pictures of a study's trials: parallel coordinates, importance and correlation, curves, the ablation. PNG files."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plots.figure import save_figure

if TYPE_CHECKING:
    from tuning.report import Group, TrialRow

__all__ = ["plot_ablation", "plot_curves", "plot_importance", "plot_parallel"]

NAMED = 12  # runs that get a line in the legend of the curves


def axis_places(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Where values lie on an axis from 0 to 1, and its ticks: logarithmic over two decades or more."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        scale = math.log if low > 0 and high / low >= 100 else float
        inverse = math.exp if scale is math.log else float
        span = scale(high) - scale(low)
        places = [(scale(value) - scale(low)) / span if span else 0.5 for value in values]
        ticks = dict(zip(values, places, strict=True))
        if len(ticks) > 8:
            ticks = {inverse(scale(low) + place * span): place for place in (0, 0.25, 0.5, 0.75, 1)}
        return places, [(place, f"{value:.4g}") for value, place in ticks.items()]
    words = sorted({str(value) for value in values})
    place = {word: index / (len(words) - 1) if len(words) > 1 else 0.5 for index, word in enumerate(words)}
    return [place[str(value)] for value in values], [(at, word) for word, at in place.items()]


def plot_parallel(
    rows: Sequence["TrialRow"], names: Sequence[str], metric: str, goal: str, title: str, path: Path
) -> None:
    """One line a trial through its settings to its metric at the right; the better, the darker."""
    scores = [row.metrics[metric] for row in rows]
    columns = [(name, *axis_places([row.settings[name] for row in rows])) for name in names]
    columns.append((title, axis_places(scores)[0], []))  # the colour bar beside it has the numbers
    figure = Figure(figsize=(2.5 + 1.7 * len(names), 4.5), layout="constrained")
    axes = figure.add_subplot()
    colours = ScalarMappable(Normalize(min(scores), max(scores)), "viridis_r" if goal == "maximize" else "viridis")
    worst_first = sorted(range(len(rows)), key=lambda i: scores[i], reverse=goal == "minimize")
    for i in worst_first:
        heights = [places[i] for _, places, _ in columns]
        axes.plot(range(len(columns)), heights, color=colours.to_rgba(scores[i]), alpha=0.85, linewidth=1.8)
    for x, (_, _, ticks) in enumerate(columns):
        axes.axvline(x, color="0.5", linewidth=0.8, zorder=0)
        for y, label in ticks:
            axes.annotate(
                label, (x, y), (-4, 0), textcoords="offset points", ha="right", va="center", fontsize=8,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            )  # fmt: skip
    axes.set_xticks(range(len(columns)), [name for name, _, _ in columns], parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set(yticks=[], xlim=(-0.45, len(columns) - 0.9), ylim=(-0.06, 1.06))
    axes.spines[:].set_visible(False)
    figure.colorbar(colours, ax=axes, label=title, pad=0.02)
    save_figure(figure, path, dpi=110)


def plot_importance(
    importances: Mapping[str, float], correlations: Mapping[str, float], title: str, path: Path
) -> None:
    """Bars of each setting's importance, the largest above, and of its correlation: green up, red down."""
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
            right.annotate("not a number", (0, y), ha="center", va="center", fontsize=8, color="0.5")
    right.axvline(0, color="black", linewidth=0.8)
    right.set(xlabel="correlation", xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1))
    figure.suptitle(f"What {title} depends on", fontsize=11)
    save_figure(figure, path, dpi=110)


def plot_curves(rows: Sequence["TrialRow"], titles: Mapping[str, str], path: Path) -> None:
    """Every run on the same axes: bits/dim, accuracy and, where measured, FID; ``rows`` come best first."""
    keys = [key for key in ("val_bpd", "accuracy", "fid") if any(key in report for r in rows for report in r.history)]
    figure = Figure(figsize=(1 + 4.2 * max(1, len(keys)) + 2.5, 4), layout="constrained")
    panels = figure.subplots(1, max(1, len(keys)), squeeze=False)[0]
    colours = colormaps["turbo"]
    for i, row in enumerate(rows):
        style = {"color": colours(0.05 + 0.9 * i / max(1, len(rows) - 1)), "marker": ".", "markersize": 4}
        style |= {"linewidth": 2.2 if i == 0 else 1.1, "zorder": 3 if i == 0 else 2}
        style |= {"linestyle": "-" if row.state == "complete" else ":"}
        label = f"trial {row.number}" + ("" if row.state == "complete" else f" ({row.state})")
        for axes, key in zip(panels, keys, strict=False):
            points = [(report["epoch"], report[key]) for report in row.history if key in report]
            if points:
                axes.plot(*zip(*points, strict=True), label=label if i < NAMED else None, **style)
    for axes, key in zip(panels, keys, strict=False):
        axes.set(xlabel="epoch", ylabel=titles[key])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    handles, labels = legend_entries(panels)
    if handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, title="best first")
    save_figure(figure, path, dpi=110)


def legend_entries(panels: Sequence[Axes]) -> tuple[list, list[str]]:
    entries = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)


def plot_ablation(groups: Sequence["Group"], keys: Sequence[str], titles: Mapping[str, str], path: Path) -> None:
    """Mean and standard deviation of each metric by fusion, with the seeds as dots."""
    figure = Figure(figsize=(1 + 3.6 * len(keys), 1.6 + 0.5 * len(groups)), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        for y, group in enumerate(groups):
            values = group.values[key]
            if values:
                deviation = statistics.stdev(values) if len(values) > 1 else 0
                axes.errorbar(statistics.mean(values), y, xerr=deviation, fmt="o", color="tab:blue", capsize=4)
                axes.plot(values, [y] * len(values), ".", color="tab:orange")
        axes.set(xlabel=titles[key])
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(groups)), [group.name for group in groups], parse_math=False)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    save_figure(figure, path, dpi=110)
