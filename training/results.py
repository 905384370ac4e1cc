"""The rows of a table of results: python -m training.results RUN_DIR..."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.metrics import best_report
from plots.curves import plot_tradeoff
from training.resume import run_settings
from training.run_folder import read_reports
from training.settings import TrainSettings
from utils.arguments import parse_settings, run_script
from utils.errors import UserError
from utils.text import printable

__all__ = []

COLUMNS = ("run", "network", "objective", "seed", "epochs", "accuracy", "bits/dim", "FID", "minutes of training")


@dataclass
class ResultsSettings:
    """Settings of training.results.

    Args:
        runs: folders of runs.
        figure: a PNG of accuracy against bits/dim over the epochs of all runs.
    """

    runs: list[str] = field(default_factory=list)
    figure: str | None = None


def evaluated_reports(folder: Path) -> list[dict[str, Any]]:
    """The reports of a run. Raises UserError unless one of them has an evaluation."""
    try:
        reports = read_reports(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{printable(folder)} has no readable metrics.jsonl ({error})") from None
    if not any("accuracy" in report for report in reports):
        raise UserError(f"{printable(folder)} has no evaluation yet")
    return reports


def objective(settings: TrainSettings) -> str:
    weight = settings.discriminative_weight
    return f"w = {weight:g}, T = {settings.posterior_temperature:g}" if weight else "likelihood"


def row(folder: Path) -> tuple[str, ...]:
    """The best epoch of a run as cells. Raises UserError for a folder without a run or an evaluation."""
    settings, reports = run_settings(folder), evaluated_reports(folder)
    best = best_report(reports)
    assert best is not None  # evaluated_reports found an evaluation
    fids = [report["fid"] for report in reports if "fid" in report]
    return (
        printable(folder.name),
        f"{settings.nr_resnet}/{settings.nr_filters}/{settings.nr_logistic_mix}, {settings.fusion}",
        objective(settings),
        str(settings.seed),
        f"{best['epoch']} of {reports[-1]['epoch']}",
        f"{best['accuracy']:.4f}",
        f"{best['val_bpd']:.3f}",
        f"{min(fids):.2f}" if fids else "not available",
        f"{sum(report['seconds'] for report in reports) / 60:.0f}",
    )


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(ResultsSettings, __doc__, argv, positional="runs")
    if not settings.runs:
        raise UserError("give one or more folders of runs")
    rows = [row(Path(run)) for run in settings.runs]
    for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    if settings.figure:
        runs = [Path(run) for run in settings.runs]
        evaluations = [[report for report in evaluated_reports(run) if "accuracy" in report] for run in runs]
        labels = [objective(run_settings(run)) for run in runs]
        plot_tradeoff(list(zip(labels, evaluations, strict=True)), settings.figure)
    return 0


if __name__ == "__main__":
    run_script(main)
