import json
import math

import pytest

from evaluation.sections.report import Report, interval, prepare_folder
from plots.images import write_png
from utils.errors import UserError


@pytest.fixture
def written(tmp_path, digits):
    """A report with a figure, in tmp_path / "report"."""
    folder = tmp_path / "report"
    prepare_folder(folder, [])
    report = Report(folder, "Evaluation")
    report.heading("Classification")
    report.table("table", [("a", "b"), ("1", "x|y")])
    from plots.images import labelled_grid

    report.figure("grid", lambda file: labelled_grid(digits.images, digits.labels, digits.class_names, file))
    report.metric("net", "classification", {"accuracy": 0.5, "images": 4, "f1_a": math.nan, "f1_b": None})
    report.write()
    return folder


def test_the_files_of_a_report(written):
    assert sorted(file.name for file in written.iterdir()) == ["grid.png", "metrics.json", "report.md"]
    text = (written / "report.md").read_text()
    assert "## Classification" in text and "![grid](grid.png)" in text and r"| 1 | x\|y |" in text
    metrics = json.loads((written / "metrics.json").read_text())
    assert metrics == {
        "net/classification/accuracy": 0.5,
        "net/classification/images": 4,
        "net/classification/f1_a": None,
        "net/classification/f1_b": None,
    }


def test_an_earlier_report_is_replaced_and_other_files_stay(written, digits):
    write_png(digits.images[0], written / "mine.png")
    (written / "notes.txt").write_text("mine")
    prepare_folder(written, [])
    assert sorted(file.name for file in written.iterdir()) == ["mine.png", "notes.txt"]


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "report.md").write_text("# My own")
    with pytest.raises(UserError, match="holds files and no earlier report"):
        prepare_folder(tmp_path, [])
    assert (tmp_path / "report.md").read_text() == "# My own"


def test_an_input_is_never_removed(written):
    with pytest.raises(UserError, match="is an input"):
        prepare_folder(written, [written / "grid.png"])
    assert (written / "grid.png").exists()


def test_a_process_that_writes_nothing(tmp_path):
    report = Report(None, "Evaluation")
    report.figure("grid", lambda file: pytest.fail("drawn"))
    report.write()


def test_interval():
    assert interval(0.86321, 0.8309, 0.8901) == "0.863 (0.831 to 0.890)"
