"""The rows of a table of results: python -m training.results RUN_DIR..."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from training.cli import UserError, parse_settings, run_script
from training.pictures import printable
from training.resume import run_settings

COLUMNS = ("run", "network", "objective", "seed", "epochs", "accuracy", "bits/dim", "FID", "minutes of training")


@dataclass
class ResultsSettings:
    """Settings of training.results.

    Args:
        runs: folders of runs.
    """

    runs: list[str] = field(default_factory=list)


def row(folder: Path) -> tuple[str, ...]:
    """The best epoch of a run as cells. Raises UserError for a folder without a run or a report."""
    settings = run_settings(folder)
    try:
        reports = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{printable(folder)} has no metrics.jsonl that can be read ({error})") from None
    judged = [report for report in reports if "accuracy" in report]
    if not judged:
        raise UserError(f"{printable(folder)} has no evaluation yet")
    best = max(judged, key=lambda report: (report["accuracy"], -report["val_bpd"]))
    fids = [report["fid"] for report in reports if "fid" in report]
    weight = settings.discriminative_weight
    return (
        printable(folder.name),
        f"{settings.nr_resnet}/{settings.nr_filters}/{settings.nr_logistic_mix}, {settings.fusion}",
        f"w = {weight:g}, T = {settings.posterior_temperature:g}" if weight else "likelihood",
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
        raise UserError("give the folders of runs")
    rows = [row(Path(run)) for run in settings.runs]
    for cells in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    run_script(main)
