"""The rows of a table of results: python -m training.results RUN_DIR..."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.cli import UserError, parse_settings, run_script
from training.pictures import printable, replacing
from training.resume import run_settings
from training.settings import TrainSettings

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


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """The reports of a run, those without an evaluation too. Raises UserError where there is none with one."""
    try:
        reports = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{printable(folder)} has no metrics.jsonl that can be read ({error})") from None
    if not any("accuracy" in report for report in reports):
        raise UserError(f"{printable(folder)} has no evaluation yet")
    return reports


def objective(settings: TrainSettings) -> str:
    weight = settings.discriminative_weight
    return f"w = {weight:g}, T = {settings.posterior_temperature:g}" if weight else "likelihood"


def row(folder: Path) -> tuple[str, ...]:
    """The best epoch of a run as cells. Raises UserError for a folder without a run or an evaluation."""
    settings, reports = run_settings(folder), evaluations(folder)
    judged = [report for report in reports if "accuracy" in report]
    best = max(judged, key=lambda report: (report["accuracy"], -report["val_bpd"]))
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


def draw(folders: Sequence[Path], path: str) -> None:
    """Accuracy against bits/dim, an epoch a point, the last one marked. Raises UserError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for folder in folders:
        judged = [report for report in evaluations(folder) if "accuracy" in report]
        x, y = [report["val_bpd"] for report in judged], [report["accuracy"] for report in judged]
        (line,) = axes.plot(x, y, marker=".", alpha=0.6, label=objective(run_settings(folder)))
        axes.plot(x[-1:], y[-1:], marker="o", color=line.get_color())
    axes.set(xlabel="validation bits per dimension (less is better)", ylabel="validation accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100, format="png")


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(ResultsSettings, __doc__, argv, positional="runs")
    if not settings.runs:
        raise UserError("give the folders of runs")
    rows = [row(Path(run)) for run in settings.runs]
    for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    if settings.figure:
        draw([Path(run) for run in settings.runs], settings.figure)
    return 0


if __name__ == "__main__":
    run_script(main)
