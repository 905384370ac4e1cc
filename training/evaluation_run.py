"""The report of evaluate.py at Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from evaluation.sections.report import Report
from training.wandb_run import open_run, say
from utils.errors import summary


def log_report(report: Report, config: Mapping[str, Any], named: Mapping[str, str | None]) -> None:
    """Log tables, figures and metrics to a run of their own; a failure is one line, as the files are there anyway.

    Args:
        report: as it was written.
        config: of the run.
        named: project, entity and name of the run, or None for W&B's own.
    """
    try:
        import wandb

        options = {"dir": str(report.folder), "config": dict(config), "job_type": "evaluation"}
        run = open_run(options | {key: value for key, value in named.items() if value is not None})
        tables = {
            name: wandb.Table(columns=[column or "row" for column in rows[0]], data=[list(row) for row in rows[1:]])
            for name, rows in report.tables.items()
        }
        figures = {name: wandb.Image(str(file)) for name, file in report.figures.items()}
        run.log({**tables, **figures})
        run.summary.update({name: value for name, value in report.metrics.items() if value is not None})
        run.finish()
    except Exception as error:
        say(f"the report was not logged ({summary(error)}); it is in {report.folder}")
