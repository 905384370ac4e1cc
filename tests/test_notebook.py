"""notebooks/quickstart.ipynb, run from top to bottom as a user would.

`python -m tests.test_notebook` runs it and writes its outputs into it.
"""

import base64
import csv
import io
import json
import os
import re
import tempfile
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.notebooks import NOTEBOOK, ROOT, SKIPPED, code_cells, read

PLACES = {"/content/drive", "/kaggle/working", "/tmp"}  # of Colab and Kaggle


def lay_out(folder: Path) -> None:
    """Links to the files of this clone, beside which runs are written."""
    for entry in ROOT.iterdir():
        if entry.name[0] != "." and entry.name not in ("runs", "sweeps", "datasets", "wandb", "notebooks"):
            (folder / entry.name).symlink_to(entry)
    (folder / "notebooks").mkdir()


def execute(folder: Path) -> nbformat.NotebookNode:
    """The notebook, executed below ``folder``, without the versions and times of this execution."""
    notebook = read()
    home = {"IPYTHONDIR": str(folder / ".ipython"), "JUPYTER_RUNTIME_DIR": str(folder / ".jupyter")}
    with mock.patch.dict(os.environ, home):
        os.environ.pop("KAGGLE_KERNEL_RUN_TYPE", None)
        where = {"metadata": {"path": str(folder / "notebooks")}}
        NotebookClient(
            notebook, timeout=400, kernel_name="python3", resources=where, record_timing=False, coalesce_streams=True
        ).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def texts(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in code_cells(notebook, skipped=False).values() for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def images(notebook: nbformat.NotebookNode) -> dict[str, list[Image.Image]]:
    """Those that each cell shows."""
    shown = {}
    for name, cell in code_cells(notebook, skipped=False).items():
        encoded = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        shown[name] = [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]
    return {name: pictures for name, pictures in shown.items() if pictures}


def assert_sound(notebook: nbformat.NotebookNode) -> None:
    """All cells ran in order, none failed, and the images show something."""
    ran = code_cells(notebook, skipped=False).values()
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert all(cell.execution_count is None and not cell.outputs for cell in code_cells(notebook, True).values())
    outputs = [output for cell in ran for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "display_data"}
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    shown = images(notebook)
    assert set(shown) == {"train", "head", "samples", "explain"}
    for picture in (picture for pictures in shown.values() for picture in pictures):
        assert 100 <= picture.width <= 640 and len(picture.convert("RGB").getcolors(1 << 20)) > 8


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    """An untrained network labels a tenth of the digits correctly, by chance."""
    lay_out(tmp_path)
    before = {entry.name for entry in tmp_path.iterdir()}
    notebook = execute(tmp_path)
    written = {entry.name for entry in tmp_path.iterdir()} - before
    assert written - {".ipython", ".jupyter"} == {"runs"}, "which git ignores"
    assert_sound(notebook)
    assert not private(texts(notebook))
    kinds = [[output.output_type for output in cell.get("outputs", ())] for cell in notebook.cells]
    assert kinds == [[output.output_type for output in cell.get("outputs", ())] for cell in read().cells]

    folder = tmp_path / "runs" / "quickstart"
    for name in ("digits/best.pt", "digits/last.pt", "drawn/9_0010.png", "maps/overview.png"):
        assert (folder / name).is_file()
    with open(folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    correct = sum(Path(row["path"]).parent.name == row["class_name"] for row in rows)
    assert len(rows) == 360 and correct / 360 > 0.85
    assert f"\naccuracy {correct / 360:.4f}" in texts(notebook)
    with open(folder / "examples.csv", newline="") as file:
        named = [Path(row["path"]).name.split("_")[0] == row["class_name"] for row in csv.DictReader(file)]
    assert len(named) == 8 and sum(named) >= 6


def test_it_is_valid_and_says_which_cells_are_skipped():
    notebook = read()
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    names = [cell.id for cell in notebook.cells]
    assert len(set(names)) == len(names)
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", ()))
        assert tags <= SKIPPED | {"skip-execution"} and bool(tags & SKIPPED) == ("skip-execution" in tags)
        assert set(cell.metadata) <= {"tags"}, "no times of execution"


def test_its_outputs_are_committed_and_small():
    notebook = read()
    assert_sound(notebook)
    assert len(json.dumps([cell.get("outputs", []) for cell in notebook.cells])) < 300_000
    assert float(re.findall(r"^accuracy (0\.\d+)", texts(notebook), re.MULTILINE)[0]) > 0.85


def private(text: str) -> list[str]:
    """Absolute paths, except those that are everyone's, and names of this machine."""
    paths = re.findall(r"(?<![\w.:/}])(?:/[\w.-]+)+/?", text)
    found = [path for path in paths if not any(path == place or path.startswith(f"{place}/") for place in PLACES)]
    names = {str(ROOT), str(Path.home()), os.uname().nodename}
    return found + [name for name in names if len(name) > 4 and name in text]


def test_nothing_of_a_machine_is_in_it():
    notebook = read()
    assert not private("\n".join(cell.source for cell in notebook.cells) + texts(notebook))
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata["language_info"] == {"name": "python"}


def test_a_path_of_a_machine_is_found():
    assert private("saved in /home/me/clone/runs") == ["/home/me/clone/runs"]
    assert private("'/Users/me/x.png'") and private(f"at {ROOT}")
    assert not private(
        '"/content/drive/MyDrive/x" 3.5 bits/dim, runs/x/best.pt, https://example.org/a, f"{DISK}/drawn"'
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        lay_out(Path(name))
        nbformat.write(execute(Path(name)), NOTEBOOK)
