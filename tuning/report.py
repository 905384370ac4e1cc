"""The report of a study: a table of its trials, the best settings as a YAML file, pictures, and an ablation."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from evaluation.metrics import METRICS
from plots.sweeps import plot_ablation, plot_curves, plot_importance, plot_parallel
from tuning.study import database, open_storage
from utils.errors import UserError
from utils.files import atomic_write, check_writable

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["Group", "TrialRow", "ablation", "load_study", "trial_rows", "write_report"]

TITLES = {name: metric.title for name, metric in METRICS.items()}


@dataclass(frozen=True)
class TrialRow:
    """A trial that ran.

    Args:
        number: of the trial, from 0.
        state: complete, pruned or failed.
        settings: those that were searched.
        fixed: those that were not, as far as they were given.
        metrics: numbers of the best epoch, and the run's lowest fid; none where nothing was measured.
        history: the reports of all epochs.
        seconds: of the run.
        reason: of a failure.
    """

    number: int
    state: str
    settings: dict[str, Any]
    fixed: dict[str, Any]
    metrics: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Group:
    """Trials that differ in their seed alone: per metric, its values, one a seed."""

    name: str
    values: dict[str, list[float]]


def load_study(name: str, save_dir: Path, url: str | None = None) -> "Study":
    """A study by its name, in the database ``url`` or below ``save_dir``, or by its .db file. Raises UserError."""
    import optuna

    file = Path(name) if name.endswith(".db") else save_dir / f"{name}.db"
    if url is None and not file.is_file():
        found = ", ".join(sorted(path.stem for path in save_dir.glob("*.db"))) or "none"
        raise UserError(f"there is no study {name} ({file} is missing; studies of {save_dir}: {found})")
    storage = open_storage(url or database(file))
    names = sorted(optuna.get_all_study_names(storage))
    wanted = file.stem if name.endswith(".db") else name
    if wanted not in names and len(names) == 1 and url is None:
        wanted = names[0]  # a renamed file
    if wanted not in names:
        raise UserError(f"there is no study {wanted} in this database; it has {', '.join(names) or 'none'}")
    study = optuna.load_study(study_name=wanted, storage=storage)
    if "sweep" not in study.user_attrs:
        raise UserError(f"the study {wanted} was not made by sweep.py")
    return study


def trial_rows(study: "Study") -> list[TrialRow]:
    """The trials that ran to an end, the best first, then the pruned and failed ones."""
    spec = study.user_attrs["sweep"]
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    rows = []
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        if trial.state.name not in states or (trial.state.name == "FAIL" and "failure" not in attributes):
            continue  # runs, waits, or was interrupted and done again
        rows.append(
            TrialRow(
                trial.number,
                states[trial.state.name],
                attributes["settings"],
                attributes["fixed"],
                attributes.get("metrics", {}),
                attributes.get("history", []),
                attributes["seconds"],
                attributes.get("failure", ""),
            )
        )
    sign = -1 if spec["goal"] == "maximize" else 1
    order = list(states.values())
    return sorted(rows, key=lambda row: (order.index(row.state), sign * row.metrics.get(spec["metric"], 0), row.number))


def write_report(study: "Study", folder: Path) -> list[Path]:
    """Write what the trials so far tell; returns the files. Raises UserError where no trial came to its end."""
    spec = study.user_attrs["sweep"]
    rows = trial_rows(study)
    complete = [row for row in rows if row.state == "complete"]
    if not complete:
        raise UserError(f"no trial of {study.study_name} has come to its end; there is nothing to report")
    metric, names = spec["metric"], list(spec["parameters"])
    goals = {name: shown.goal for name, shown in METRICS.items()} | {metric: spec["goal"]}
    check_writable(folder / "table.md")
    written = [folder / "table.md", folder / "best.yaml", folder / "curves.png"]
    write_text(written[0], trial_table(rows, names, metric))
    write_text(written[1], best_settings(study.study_name, complete[0], metric))
    plot_curves(rows, TITLES, written[2])
    for key in dict.fromkeys((metric, "fid")):
        measured = [row for row in complete if key in row.metrics]
        if measured:
            path = folder / f"parallel_{key}.png"
            plot_parallel(measured, names, key, goals[key], TITLES.get(key, key), path)
            written.append(path)
            values = [row.metrics[key] for row in measured]
            if len(set(values)) > 1:  # else nothing can matter
                path = folder / f"importance_{key}.png"
                importances = setting_importances(study, key)
                plot_importance(importances, correlations(measured, names, key), TITLES.get(key, key), path)
                written.append(path)
    if {"fusion", "seed"} <= set(names):
        groups = ablation(complete)
        keys = [key for key in goals if any(group.values[key] for group in groups)]
        write_text(folder / "ablation.md", ablation_table(groups, keys))
        plot_ablation(groups, keys, TITLES, folder / "ablation.png")
        written += [folder / "ablation.md", folder / "ablation.png"]
    return written


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first row is its head."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]]) + "\n"


def number(value: Any) -> str:
    """A cell: at most four significant decimals, empty where there is nothing."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1000 or 0 < abs(value) < 1e-3 else f"{value:.4f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def trial_table(rows: Sequence[TrialRow], names: Sequence[str], metric: str) -> str:
    """All trials, the best first."""
    keys = [key for key in dict.fromkeys((metric, *METRICS, "epoch")) if any(key in row.metrics for row in rows)]
    table = [["trial", *names, *keys, "seconds", "state"]]
    for row in rows:
        settings = [number(row.settings.get(name)) for name in names]
        metrics = [number(row.metrics.get(key)) for key in keys]
        state = f"{row.state}: {row.reason}" if row.reason else row.state
        table.append([str(row.number), *settings, *metrics, f"{row.seconds:.0f}", state])
    fid = ", the lowest FID of the run" if "fid" in keys else ""
    return f"{markdown(table)}\nNumbers of the epoch with the best {metric}{fid}.\n"


def best_settings(study: str, best: TrialRow, metric: str) -> str:
    """The settings of the best trial as a file for pcnn_train.py --config."""
    head = f"# The best of the sweep {study}: trial {best.number}, {metric} {number(best.metrics[metric])}.\n"
    return head + yaml.safe_dump(best.fixed | best.settings, sort_keys=False)


def setting_importances(study: "Study", key: str) -> dict[str, float]:
    """How much of the variance of a metric each setting explains (fANOVA: a random forest); they sum to 1."""
    import optuna

    trials = [t for t in study.get_trials() if t.state.name == "COMPLETE" and key in t.user_attrs["metrics"]]
    measured = optuna.create_study()
    measured.add_trials(
        optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=t.user_attrs["metrics"][key])
        for t in trials
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    importances = optuna.importance.get_param_importances(measured, evaluator=evaluator)
    return {name.split(" ")[0]: value for name, value in importances.items()}  # without " quantile", " unrounded"


def correlations(rows: Sequence[TrialRow], names: Sequence[str], key: str) -> dict[str, float]:
    """Pearson's correlation of each numeric setting with the metric, where both vary."""
    result = {}
    for name in names:
        settings = [row.settings.get(name) for row in rows]
        if all(isinstance(value, int | float) for value in settings) and len(set(settings)) > 1:
            result[name] = statistics.correlation(settings, [row.metrics[key] for row in rows])
    return result


def ablation(rows: Sequence[TrialRow]) -> list[Group]:
    """The trials by their settings other than seed, in the order of the fusions' first occurrence by name."""
    groups: dict[str, Group] = {}
    for row in sorted(rows, key=lambda row: row.number):
        name = ", ".join(str(v) if k == "fusion" else f"{k} {v}" for k, v in row.settings.items() if k != "seed")
        group = groups.setdefault(name, Group(name, {key: [] for key in METRICS}))
        for key in METRICS:
            if key in row.metrics:
                group.values[key].append(row.metrics[key])
    return [groups[name] for name in sorted(groups)]


def ablation_table(groups: Sequence[Group], keys: Sequence[str]) -> str:
    """Mean and, from two seeds on, standard deviation of each metric."""
    table = [["fusion", *(TITLES[key] for key in keys), "seeds"]]
    for group in groups:
        seeds = max(len(values) for values in group.values.values())
        table.append([group.name, *(spread(group.values[key]) for key in keys), str(seeds)])
    return f"{markdown(table)}\nMean ± standard deviation over seeds.\n"


def spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"
