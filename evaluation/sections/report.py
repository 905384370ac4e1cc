"""report.md, metrics.json and the figures of an evaluation, in one folder."""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.figures import is_figure
from utils.files import atomic_write, check_folder
from utils.outputs import check_inputs, write_errors
from utils.text import markdown_table, printable

Value = float | int | str | None
MARK = "<!-- written by evaluate.py -->"  # the first line of report.md
NAMES = ("report.md", "metrics.json")


class Report:
    """Tables, figures and metrics as they come; `write` puts all so far into the folder.

    Args:
        folder: where `prepare_folder` made room; None for processes that write nothing.
        title: the heading of report.md.

    Attributes:
        metrics: flat names, ROW/SECTION/METRIC, and their values.
        tables: name -> rows of cells, the first of which is the header.
        figures: name -> file.
    """

    def __init__(self, folder: str | Path | None, title: str):
        self.folder = None if folder is None else Path(folder)
        self.parts = [MARK, f"# {title}"]
        self.metrics: dict[str, Value] = {}
        self.tables: dict[str, Sequence[Sequence[str]]] = {}
        self.figures: dict[str, Path] = {}

    def heading(self, text: str) -> None:
        self.parts.append(f"## {text}")

    def text(self, text: str) -> None:
        self.parts.append(text)

    def table(self, name: str, rows: Sequence[Sequence[str]]) -> None:
        """A table called ``name``, which no other has."""
        self.tables[name] = rows
        self.parts.append(markdown_table(rows).rstrip())

    def figure(self, name: str, draw: Callable[[Path], object]) -> None:
        """A figure in ``name``.png, which ``draw`` writes."""
        if self.folder is None:
            return
        file = self.folder / f"{name}.png"
        draw(file)
        self.figures[name] = file
        self.parts.append(f"![{name.replace('_', ' ')}]({file.name})")

    def metric(self, row: str, section: str, values: dict[str, Value]) -> None:
        """Metrics of a row of the tables, as a checkpoint."""
        for name, value in values.items():
            unknown = isinstance(value, float) and not math.isfinite(value)  # JSON has no name for it
            self.metrics[f"{row}/{section}/{name}"] = None if unknown else value

    def write(self) -> None:
        """Write report.md and metrics.json, each whole or not at all. Raises UserError."""
        if self.folder is None:
            return
        with atomic_write(self.folder / "report.md") as partial:
            partial.write_text("\n\n".join(self.parts) + "\n", encoding="utf-8")
        with atomic_write(self.folder / "metrics.json") as partial:
            partial.write_text(json.dumps(self.metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def prepare_folder(folder: str | Path, inputs: Sequence[str | Path]) -> None:
    """Make the folder of a report: new, empty, or that of an earlier report, whose files are removed.

    Raises UserError where it holds other files, cannot be written, or a file would replace one of ``inputs``.
    """
    check_folder(folder)
    folder = Path(folder)
    with write_errors(folder):
        files = sorted(folder.iterdir())
    ours = [file for file in files if file.name in NAMES or (file.suffix == ".png" and is_figure(file))]
    if files and not is_report(folder / "report.md"):
        raise UserError(f"{printable(folder)} holds files and no earlier report; give another --out")
    check_inputs(ours, inputs, "--out", folder)
    for file in ours:
        with write_errors(file):
            os.unlink(file)


def is_report(file: Path) -> bool:
    try:
        return file.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    except OSError:
        return False


def cell(value: Value, digits: int = 3) -> str:
    """A value as a cell of a table, a number with its digits."""
    return "none" if value is None else value if isinstance(value, str) else f"{value:.{digits}f}"


def interval(estimate: float, low: float, high: float, digits: int = 3) -> str:
    """An estimate with its 95 % interval, as a cell."""
    return f"{estimate:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
