"""What the trials of a study show: a ranking, importances and correlations of the settings, an ablation."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna import Study

from evaluation.metrics import METRICS
from tuning.study import is_interrupted

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class TrialRow:
    """A finished trial.

    Args:
        number: of the trial, from 0.
        state: complete, pruned or failed.
        settings: the settings that were searched over.
        fixed: the other settings that were given.
        metrics: of the best epoch, with the lowest FID of the run; empty if nothing was measured.
        history: the reports of all epochs.
        seconds: duration of the run.
        failure: why the trial failed.
    """

    number: int
    state: str
    settings: dict[str, Any]
    fixed: dict[str, Any]
    metrics: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    failure: str = ""


def trial_rows(study: Study) -> list[TrialRow]:
    """The finished trials: complete ones from best to worst, then pruned, then failed ones."""
    spec = study.user_attrs["sweep"]
    rows = []
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        if trial.state.name not in STATES or is_interrupted(trial):
            continue  # running, waiting, or interrupted and run again
        row = TrialRow(
            number=trial.number,
            state=STATES[trial.state.name],
            settings=attributes["settings"],
            fixed=attributes["fixed"],
            metrics=attributes.get("metrics", {}),
            history=attributes.get("history", []),
            seconds=attributes["seconds"],
            failure=attributes.get("failure", ""),
        )
        rows.append(row)
    sign = -1 if spec["goal"] == "maximize" else 1
    order = list(STATES.values())
    return sorted(rows, key=lambda row: (order.index(row.state), sign * row.metrics.get(spec["metric"], 0), row.number))


def setting_importances(study: Study, key: str) -> dict[str, float]:
    """The fraction of a metric's variance that each setting explains (fANOVA with a random forest); the sum is 1."""
    importances = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        target=lambda trial: trial.user_attrs["metrics"].get(key, math.nan),  # Optuna leaves these out
    )
    return {name.split(" ")[0]: value for name, value in importances.items()}  # without " quantile", " unrounded"


def correlations(rows: Sequence[TrialRow], names: Sequence[str], key: str) -> dict[str, float]:
    """Pearson correlation of each numeric setting that varies with a metric; the metric must vary."""
    result = {}
    for name in names:
        settings = [value for row in rows if isinstance(value := row.settings.get(name), int | float)]
        if len(settings) == len(rows) and len(set(settings)) > 1:
            result[name] = statistics.correlation(settings, [row.metrics[key] for row in rows])
    return result


def ablation(rows: Sequence[TrialRow]) -> dict[str, dict[str, list[float]]]:
    """Group trials that differ only in their seed: name of the group -> metric -> one value per seed."""
    groups: dict[str, dict[str, list[float]]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        name = ", ".join(str(v) if k == "fusion" else f"{k} {v}" for k, v in row.settings.items() if k != "seed")
        group = groups.setdefault(name, {key: [] for key in METRICS})
        for key, values in group.items():
            if key in row.metrics:
                values.append(row.metrics[key])
    return dict(sorted(groups.items()))
