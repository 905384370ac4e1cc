"""The notebook and its code cells, for its tests."""

from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
SKIPPED = {"gpu", "account", "long"}  # nbclient itself leaves out cells with the tag skip-execution, as these have


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


def code_cells(notebook: nbformat.NotebookNode, skipped: bool) -> dict[str, nbformat.NotebookNode]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {cell.id: cell for cell in cells if bool(SKIPPED & set(cell.metadata.get("tags", ()))) == skipped}
