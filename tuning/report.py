"""The report of a study: table of trials, best settings as YAML, figures, and an ablation over fusions and seeds."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from evaluation.metrics import METRICS, SAMPLED
from evaluation.protocol import IMAGES, VALIDATION
from plots.sweeps import Curve, plot_ablation, plot_curves, plot_importance, plot_parallel
from training.settings import TrainSettings
from tuning.analysis import STATES, TrialRow, ablation, correlations, setting_importances, trial_rows
from utils.console import notify
from utils.errors import UserError, reason
from utils.files import atomic_write, check_folder
from utils.text import markdown_table

if TYPE_CHECKING:
    from optuna import Study


def write_report(study: "Study", folder: str | Path) -> list[Path]:
    """Write the report of the trials so far; returns the files.

    Raises UserError if no trial has completed; failures are listed first.
    """
    spec = study.user_attrs["sweep"]
    metric, names = spec["metric"], list(spec["parameters"])
    rows = trial_rows(study)
    complete = [row for row in rows if row.state == "complete"]
    if not complete:
        for line in failures(rows):
            notify(line)
        ended = [trial.state.name for trial in study.get_trials(deepcopy=False)]
        counts = Counter(STATES.get(state, state.lower()) for state in ended)
        states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"
        raise UserError(f"no trial of {study.study_name} has completed, there is nothing to report (trials: {states})")
    check_folder(folder)
    folder = Path(folder)
    table, best, curves = folder / "table.md", folder / "best.yaml", folder / "curves.png"
    write_text(table, trial_table(rows, names, metric))
    write_text(best, best_settings(study.study_name, complete[0], metric))
    titles = metric_titles(spec)
    plot_curves([learning_curve(row) for row in rows], titles, curves)
    written = [table, best, curves]
    for key in dict.fromkeys((metric, "fid")):
        goal = spec["goal"] if key == metric else METRICS[key].goal
        measured = [row for row in complete if key in row.metrics]
        written += plot_settings(study, measured, names, key, titles.get(key, key), goal, folder)
    if {"fusion", "seed"} <= set(names):
        groups = ablation(complete)
        titles = {key: titles[key] for key in METRICS if any(group[key] for group in groups.values())}
        write_text(folder / "ablation.md", ablation_table(groups, titles))
        plot_ablation(groups, titles, folder / "ablation.png")
        written += [folder / "ablation.md", folder / "ablation.png"]
    return written


def metric_titles(spec: Mapping[str, Any]) -> dict[str, str]:
    """The titles of METRICS by what the trials of a study choose their epochs on; ``spec`` is its search."""
    searched, fixed = spec["parameters"].get("select_on"), spec["fixed"].get("select_on", TrainSettings.select_on)
    images = " or ".join(sorted(IMAGES.values())) if searched else IMAGES[fixed]
    return {key: metric.of(images) for key, metric in METRICS.items()}


def failures(rows: Sequence[TrialRow]) -> list[str]:
    """A line for each reason of failure, with the trials that it is of."""
    trials: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        if row.failure:
            trials.setdefault(row.failure, []).append(str(row.number))
    return [f"trial {', '.join(numbers)} failed: {why}" for why, numbers in trials.items()]


def plot_settings(
    study: "Study", rows: Sequence[TrialRow], names: Sequence[str], key: str, title: str, goal: str, folder: Path
) -> list[Path]:
    """Plot how the metric ``key`` of the trials, with ``title``, depends on their settings; returns the files."""
    values = [row.metrics[key] for row in rows]
    written = []
    if values:
        written.append(folder / f"parallel_{key}.png")
        plot_parallel([{name: row.settings[name] for name in names} for row in rows], values, goal, title, written[-1])
    if len(set(values)) > 1:  # of a constant metric there is no variance to explain
        try:
            importances = setting_importances(study, key)
        except RuntimeError as error:  # trials of equal settings
            notify(f"the importances for {title} are not plotted: {reason(error)}")
            return written
        written.append(folder / f"importance_{key}.png")
        plot_importance(importances, correlations(rows, names, key), title, written[-1])
    return written


def learning_curve(row: TrialRow) -> Curve:
    state = "" if row.state == "complete" else f" ({row.state})"
    return Curve(f"trial {row.number}{state}", row.history, row.state == "complete")


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text)


def format_value(value: Any) -> str:
    """A table cell: floats with at most four decimals or significant digits, None as empty."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1000 or 0 < abs(value) < 1e-3 else f"{value:.4f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def trial_table(rows: Sequence[TrialRow], names: Sequence[str], metric: str) -> str:
    """All trials in the order of ``rows``, with the settings ``names``."""
    at_the_end = [f"{VALIDATION}accuracy", f"{VALIDATION}bpd"]
    keys = list(dict.fromkeys((metric, *METRICS, "epoch", *at_the_end)))
    keys = [key for key in keys if any(key in row.metrics for row in rows)]
    table = [["trial", *names, *keys, "seconds", "state"]]
    for row in rows:
        settings = [format_value(row.settings.get(name)) for name in names]
        metrics = [format_value(row.metrics.get(key)) for key in keys]
        state = f"{row.state}: {row.failure}" if row.failure else row.state
        table.append([str(row.number), *settings, *metrics, f"{row.seconds:.0f}", state])
    more = "; those of samples are the best of the run" if set(SAMPLED) & set(keys) else ""
    if at_the_end[0] in keys:
        more += f"; {' and '.join(at_the_end)} are of best.pt, evaluated once at the end"
    return f"{markdown_table(table)}\nMetrics are of the epoch with the best {metric}{more}.\n"


def best_settings(study: str, best: TrialRow, metric: str) -> str:
    """The settings of the best trial as a file for pcnn_train.py --config."""
    comment = (
        f"# Best trial of the sweep {study}: trial {best.number}, {metric} {format_value(best.metrics[metric])}.\n"
    )
    return comment + yaml.safe_dump(best.fixed | best.settings, sort_keys=False)


def ablation_table(groups: Mapping[str, Mapping[str, Sequence[float]]], titles: Mapping[str, str]) -> str:
    """Mean and, for two or more seeds, sample standard deviation of each metric."""
    table = [["fusion", *titles.values(), "seeds"]]
    for name, group in groups.items():
        seeds = max(len(values) for values in group.values())
        table.append([name, *(mean_and_deviation(group[key]) for key in titles), str(seeds)])
    return f"{markdown_table(table)}\nMean ± standard deviation over seeds.\n"


def mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"
