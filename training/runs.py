"""What is in the folders of runs, also of those that are still training: for tables and figures of several."""

import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.metrics import METRICS
from evaluation.protocol import IMAGES
from training.run_folder import read_reports
from training.settings import TrainSettings
from utils.arguments import read_yaml
from utils.errors import UserError, reason
from utils.text import printable

MAX_DEPTH = 4  # folders below the one that is searched: sweeps/NAME/trial_0000 are two
MAX_FOLDERS = 5000  # that are looked into
LARGEST = 1e300  # number that is drawn
MAX_BYTES = 50_000_000  # of a file with settings or metrics
GRID = re.compile(r"epoch_(\d{4,9})\.png")


@dataclass(frozen=True)
class RunContent:
    """What is in the folder of a run.

    Args:
        name: as `find_runs` calls it.
        settings: of its config.yaml.
        reports: of its metrics.jsonl, one for each epoch so far.
        grids: the sample grid of each epoch that has one.
        confusion: the confusion matrix of best.pt; None before the first.
        problem: one line about what cannot be read; empty otherwise.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    reports: Sequence[Mapping[str, Any]] = ()
    grids: Mapping[int, Path] = field(default_factory=dict)
    confusion: Path | None = None
    problem: str = ""


def find_runs(folders: Sequence[str | Path]) -> dict[str, Path]:
    """The folders of runs below ``folders``, the one that changed last first, by their names: paths as they are
    printed. Folders that are missing or cannot be listed hold none."""
    found: dict[Path, float] = {}
    level = [Path(folder) for folder in folders]
    looked = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            looked += 1
            if looked > MAX_FOLDERS:
                break
            try:
                with os.scandir(folder) as scan:
                    entries = {entry.name: entry for entry in scan}
                changed = [
                    entries[name].stat().st_mtime for name in ("config.yaml", "metrics.jsonl") if name in entries
                ]
                inside = [
                    folder / n for n, entry in entries.items() if entry.is_dir(follow_symlinks=False) and n[0] != "."
                ]
            except OSError:
                continue
            if "config.yaml" in entries:
                found[folder] = max(changed)
            else:  # a run holds no runs
                below += sorted(inside)
        level = below
    newest = sorted(found, key=lambda folder: (-found[folder], str(folder)))
    return {printable(folder): folder for folder in newest}


def read_folder(name: str, folder: Path) -> RunContent:
    """The content of a run's folder; what cannot be read is left out and said."""
    problems = []
    for file in (folder / "config.yaml", folder / "metrics.jsonl"):
        if os.path.lexists(file) and not (file.is_file() and file.stat().st_size <= MAX_BYTES):
            return RunContent(name, problem=f"{name}: {file.name} is no file of a run")
    settings: Any = {}
    reports: Sequence[Mapping[str, Any]] = ()
    try:
        settings = read_yaml(folder / "config.yaml")
        if not isinstance(settings, dict):
            settings = {}
            problems.append("config.yaml holds no settings")
    except UserError as error:
        problems.append(str(error))
    try:
        reports = read_reports(folder)
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"metrics.jsonl cannot be read ({reason(error)})")
    own = settings.get("sample_dir")
    try:
        samples = Path(own) if isinstance(own, str) else folder / "samples"
        matches = [(GRID.fullmatch(file.name), file) for file in samples.iterdir()]
    except (OSError, ValueError):
        matches = []
    grids = {int(match[1]): file for match, file in matches if match}
    confusion = folder / "confusion.png"
    return RunContent(
        name,
        {str(key): value for key, value in settings.items()},
        reports,
        dict(sorted(grids.items())),
        confusion if confusion.is_file() else None,
        f"{name}: {'; '.join(problems)}" if problems else "",
    )


def metric_names(runs: Sequence[RunContent]) -> list[str]:
    """The numbers that the reports of the runs have, those of METRICS first."""
    keys = {key for run in runs for report in run.reports for key, value in report.items() if is_number(value)}
    keys -= {"epoch"}
    return [*(key for key in METRICS if key in keys), *sorted(keys - set(METRICS))]


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def metric_title(key: str, runs: Sequence[RunContent]) -> str:
    """What a figure of ``key`` is called, with the images that the runs are evaluated on."""
    chosen = {str(run.settings.get("select_on", TrainSettings.select_on)) for run in runs}
    images = " or ".join(sorted(IMAGES[name] for name in chosen if name in IMAGES)) or "validation"
    return METRICS[key].of(images) if key in METRICS else key.replace("_", " ")


def points(run: RunContent, key: str) -> list[tuple[int, float]]:
    """Epoch and value of each report that has a number for ``key``."""
    return [(report["epoch"], report[key]) for report in run.reports if is_number(report.get(key))]


def settings_table(runs: Sequence[RunContent], differing: bool = False) -> list[list[str]]:
    """A row for each setting: its name, and its value in each run; with ``differing`` only those that differ."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    rows = [[name, *(value_cell(run.settings.get(name, "")) for run in runs)] for name in names]
    return [row for row in rows if not differing or len(set(row[1:])) > 1]


def value_cell(value: Any) -> str:
    if isinstance(value, dict | list):  # aliases of YAML make a few bytes a text without end
        return printable(reprlib.repr(value))[:200]
    return "none" if value is None else printable(str(value))[:200]
