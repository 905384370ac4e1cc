"""The rows of a table of results: python -m training.results RUN_DIR..."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.metrics import best_key, best_report
from evaluation.protocol import IMAGES
from plots.curves import plot_tradeoff
from training.final_evaluation import validation_scores
from training.resume import run_settings
from training.run_folder import read_reports
from training.settings import TrainSettings
from utils.arguments import parse_settings
from utils.errors import UserError
from utils.files import check_writable
from utils.outputs import check_inputs, only_output
from utils.script import run_script
from utils.text import markdown_table, printable
from utils.values import PathName, PathNames

COLUMNS = (
    *("run", "network", "objective", "seed", "epochs", "evaluated on"),
    *("accuracy", "balanced accuracy", "macro F1", "bits/dim"),  # of the images that it is evaluated on
    *("on the validation images", "FID", "minutes of training"),
)


@dataclass
class ResultsSettings:
    """Settings of training.results.

    Args:
        runs: folders of runs.
        figure: a PNG of accuracy against bits/dim over the epochs of all runs; - is standard output.
    """

    runs: PathNames = field(default_factory=list)
    figure: PathName | None = None


@dataclass(frozen=True)
class Run:
    """A run of which at least one epoch was evaluated."""

    name: str
    settings: TrainSettings
    reports: list[dict[str, Any]]
    best: Mapping[str, Any]


def read_run(folder: Path) -> Run:
    """Raises UserError for a folder without a run or an evaluation."""
    settings = run_settings(folder)
    try:
        reports = read_reports(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{printable(folder)} has no readable metrics.jsonl ({error})") from None
    evaluated = [report for report in reports if {"accuracy", "val_bpd"} & report.keys()]
    best = best_report(evaluated, *best_key(settings.best_metric))
    if best is None:
        raise UserError(f"{printable(folder)} has no evaluation yet in its metrics.jsonl")
    if not {"accuracy", "val_bpd"} <= best.keys() or not all("seconds" in report for report in reports):
        raise UserError(f"{printable(folder)} has no complete metrics.jsonl")
    return Run(printable(folder.name), settings, reports, best)


def objective(settings: TrainSettings) -> str:
    if not settings.discriminative_weight:
        return "likelihood"
    text = f"w = {settings.discriminative_weight:g}, T = {settings.posterior_temperature:g}"
    return text + ", teacher" * bool(settings.teacher) + ", CutMix" * bool(settings.cutmix_prob)


def label(run: Run, with_images: bool) -> str:
    """The label of a run's curve, on request with the images that it is of."""
    return objective(run.settings) + (f", {IMAGES[run.settings.select_on]}" if with_images else "")


def row(run: Run) -> tuple[str, ...]:
    """The best epoch of a run, by its --best_metric, as cells."""
    settings, best, by = run.settings, run.best, run.settings.best_metric
    epochs = f"{best['epoch']} of {run.reports[-1]['epoch']}"
    fids = [report["fid"] for report in run.reports if "fid" in report]
    return (
        run.name,
        f"{settings.nr_resnet}/{settings.nr_filters}/{settings.nr_logistic_mix}, {settings.fusion}",
        objective(settings) + (", Muon" if settings.optimizer == "muon" else ""),
        str(settings.seed),
        epochs + {"accuracy": "", "last": ", the last"}.get(by, f" by {by}"),
        IMAGES[settings.select_on],
        f"{best['accuracy']:.4f}",
        *(f"{best[name]:.4f}" if name in best else "not measured" for name in ("balanced_accuracy", "f1")),
        f"{best['val_bpd']:.3f}",
        on_validation(run),
        f"{min(fids):.2f}" if fids else "not available",
        f"{sum(report['seconds'] for report in run.reports) / 60:.0f}",
    )


def on_validation(run: Run) -> str:
    """The cell of the validation images, where the epoch was chosen on others."""
    if run.settings.select_on == "validation":
        return "the same figures"
    report = run.reports[-1]
    return validation_scores(report) if "validation_accuracy" in report else "not measured"


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(ResultsSettings, __doc__, argv, positional=["runs"])
    if not settings.runs:
        raise UserError("give one or more folders of runs")
    if settings.figure:
        read = [Path(run, name) for run in settings.runs for name in ("config.yaml", "metrics.jsonl")]
        check_inputs([settings.figure], read, "--figure", settings.figure)
        check_writable(settings.figure)
    runs = [read_run(Path(run)) for run in settings.runs]
    with only_output(settings.figure):
        print(markdown_table([COLUMNS, *map(row, runs)]), end="")
    if settings.figure:
        chosen = sorted({IMAGES[run.settings.select_on] for run in runs})
        curves = [(label(run, len(chosen) > 1), [r for r in run.reports if "accuracy" in r]) for run in runs]
        plot_tradeoff(curves, " or ".join(chosen), settings.figure)
    return 0


if __name__ == "__main__":
    run_script(main)
