"""The CSV file: any name, safe in a spreadsheet, taken up again wherever it was cut."""

import csv
import errno
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.images import Images
from evaluation.prediction_file import PredictionFile, plain, read_csv, safe
from evaluation.predictions import Prediction
from utils.errors import UserError

LATIN = os.fsdecode(b"caf\xe9")  # bytes that are no UTF-8
NAMES = ["a,b", 'quo"te', "new\nline", LATIN, "=1+2", "'@x", "-", "a\rb", r"\xff", "x;=1", "ok"]


def prediction(name: str) -> Prediction:
    if name == "-":
        return Prediction(name, -1, error="=bad,\nor\r\nworse")
    return Prediction(name, 1, (-1.5, -2.5), 0, 1, 0.75, 3.25)


def images(names=NAMES) -> Images:
    return Images(names, [1 if name != "-" else -1 for name in names], read=None)


def write(path, rows, resume=False, identity=None, names=NAMES) -> PredictionFile:
    with PredictionFile(path, ["c,1", "=d"], identity or {"prior": None}, images(names), resume) as file:
        for row in rows[len(file.predictions) :]:
            file.write(row)
    return file


@pytest.fixture
def whole(tmp_path) -> bytes:
    write(tmp_path / "whole.csv", [prediction(name) for name in NAMES])
    return (tmp_path / "whole.csv").read_bytes()


def test_the_csv_takes_any_name(tmp_path, whole):
    table = read_csv(tmp_path / "whole.csv")
    assert [row["path"] for row in table] == NAMES and len(whole.splitlines()) == len(NAMES) + 1
    assert table[0]["class_name"] == "c,1" and float(table[0]["logp_=d"]) == -2.5
    assert table[6]["error"] == "=bad,\nor\r\nworse" and table[6]["label"] == table[6]["logp_c,1"] == ""
    assert {file.name for file in tmp_path.iterdir()} == {"whole.csv"}


def test_a_spreadsheet_runs_no_cell(tmp_path, whole):
    with open(tmp_path / "whole.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    texts = [cell for cell in cells if cell and not cell.lstrip("-").replace(".", "").isdigit()]
    assert texts and not [cell for cell in texts if cell[0] in "=+-@\t\r"]


@given(st.one_of(st.text(st.characters(exclude_categories=())), st.text("\\xu;=+'0aF\r\n\udcff\x80")))
def test_safe_cells_are_reversible(text):
    cell = safe(text)
    assert plain(cell) == text
    assert not any(part.startswith(("=", "+", "-", "@", "\t", "\r")) for part in cell.split(";"))
    assert len(cell.splitlines()) <= 1


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_names_of_any_bytes_come_back(tmp_path_factory, one, other):
    names = [os.fsdecode(name) for name in (one, other)]
    path = tmp_path_factory.mktemp("csv") / "p.csv"
    with PredictionFile(path, ["a"], {}, Images(names, [-1, -1], read=None)) as file:
        for name in names:
            file.write(Prediction(name, -1, (-1.0,), 0, -1, 1.0, 1.0))
    assert [os.fsencode(row["path"]) for row in read_csv(path)] == [one, other]


def test_cut_at_any_byte_it_ends_as_if_it_had_not_been(tmp_path, whole):
    rows = [prediction(name) for name in NAMES]
    out = tmp_path / "out.csv"
    identity = json.dumps({"prior": None})
    for cut in range(len(whole) + 1):
        (tmp_path / "out.csv.partial").write_bytes(whole[:cut])
        (tmp_path / "out.csv.partial.json").write_text(identity)
        file = write(out, rows, resume=True)
        assert out.read_bytes() == whole, cut
        assert [(p.name, p.label, p.second, p.error) for p in file.predictions] == [
            (p.name, p.label, p.second, p.error) for p in rows
        ]
        assert [p.truth for p in file.predictions] == [p.truth for p in rows]


def test_without_resume_nothing_is_overwritten(tmp_path, whole):
    (tmp_path / "out.csv.partial").write_bytes(b"rows")
    with pytest.raises(UserError, match="resume it with --resume"):
        write(tmp_path / "out.csv", [prediction(name) for name in NAMES])
    assert (tmp_path / "out.csv.partial").read_bytes() == b"rows"


@pytest.mark.parametrize(
    ("identity", "names", "content", "word"),
    [
        ({"prior": [1]}, NAMES, None, "checkpoint"),
        (None, NAMES[::-1], None, "images"),
        (None, NAMES[:3], None, "images"),
        (None, NAMES, b"path,label\n", "classes"),
        (None, NAMES, b"junk", ""),
    ],
)
def test_another_classification_is_not_gone_on_with(tmp_path, whole, identity, names, content, word):
    (tmp_path / "out.csv.partial").write_bytes(content or whole)
    (tmp_path / "out.csv.partial.json").write_text(json.dumps({"prior": None}))
    rows = [prediction(name) for name in names]
    if not word:  # not even a whole header: nothing is lost by beginning anew
        write(tmp_path / "out.csv", rows, resume=True)
        assert (tmp_path / "out.csv").read_bytes() == whole
        return
    with pytest.raises(UserError, match=word):
        write(tmp_path / "out.csv", rows, True, identity, names)
    assert (tmp_path / "out.csv.partial").read_bytes() == (content or whole)


def test_what_fails_keeps_the_rows(tmp_path):
    rows = [prediction(name) for name in NAMES]
    with (
        pytest.raises(RuntimeError),
        PredictionFile(tmp_path / "out.csv", ["c,1", "=d"], {}, images()) as file,
    ):
        file.write(rows[0])
        raise RuntimeError
    assert not (tmp_path / "out.csv").exists()
    again = PredictionFile(tmp_path / "out.csv", ["c,1", "=d"], {}, images(), resume=True)
    with again:
        assert [p.name for p in again.predictions] == NAMES[:1]


def test_a_byte_order_mark_comes_once_and_is_read_over(tmp_path, whole):
    rows = [prediction(name) for name in NAMES]
    marked = {"prior": None, "csv_bom": True}
    write(tmp_path / "out.csv", rows, identity=marked)
    content = (tmp_path / "out.csv").read_bytes()
    assert content == b"\xef\xbb\xbf" + whole and read_csv(tmp_path / "out.csv") == read_csv(tmp_path / "whole.csv")
    for cut in (1, 2, 3, 20, len(content) // 2, len(content)):
        (tmp_path / "out.csv.partial").write_bytes(content[:cut])
        (tmp_path / "out.csv.partial.json").write_text(json.dumps(marked))
        with pytest.raises(UserError, match="setting"):
            write(tmp_path / "out.csv", rows, resume=True)
        write(tmp_path / "out.csv", rows, resume=True, identity=marked)
        assert (tmp_path / "out.csv").read_bytes() == content, cut


@pytest.mark.parametrize("edit", [("0", "77"), ("0", "-7"), ("0", "1"), ("0", "x"), ("'=d", "c,1")])
def test_a_row_that_was_edited_is_not_gone_on_with(tmp_path, edit):
    file = PredictionFile(tmp_path / "out.csv", ["=d", "e"], {}, images())
    with pytest.raises(RuntimeError), file:
        for name in NAMES[:3]:
            file.write(prediction(name))
        raise RuntimeError
    with open(tmp_path / "out.csv.partial", newline="", encoding="utf-8") as partial:
        table = list(csv.reader(partial))
    table[2] = [edit[1] if cell == edit[0] else cell for cell in table[2]]
    with open(tmp_path / "out.csv.partial", "w", newline="", encoding="utf-8") as partial:
        csv.writer(partial, lineterminator="\n").writerows(table)
    before = (tmp_path / "out.csv.partial").read_bytes()
    with (
        pytest.raises(UserError, match=r"another program, or was edited \(row 2\), and cannot be resumed"),
        PredictionFile(tmp_path / "out.csv", ["=d", "e"], {}, images(), resume=True),
    ):
        pass
    assert (tmp_path / "out.csv.partial").read_bytes() == before


def test_a_link_stays_and_its_target_is_resumed(tmp_path, whole):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(Path("disk", "out.csv"))
    (tmp_path / "disk" / "out.csv").write_text("old")
    (tmp_path / "disk" / "out.csv.partial").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "disk" / "out.csv.partial.json").write_text(json.dumps({"prior": None}))
    rows = [prediction(name) for name in NAMES]
    with pytest.raises(UserError, match=r"disk/out\.csv\.partial holds the rows"):
        write(tmp_path / "link", rows)
    write(tmp_path / "link", rows, resume=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "out.csv").read_bytes() == whole
    assert os.listdir(tmp_path / "disk") == ["out.csv"]


def test_a_pipe_gets_each_row_at_once_and_cannot_be_resumed(tmp_path, whole):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"--resume: .*pipe keeps no rows to resume"):
        write(pipe, [], resume=True)
    lines: list[bytes] = []
    seen = threading.Event()

    def read() -> None:
        with open(pipe, "rb", buffering=0) as file:
            while chunk := file.read(65536):
                lines.append(chunk)
                seen.set()

    reader = threading.Thread(target=read)
    reader.start()
    with PredictionFile(pipe, ["c,1", "=d"], {"prior": None}, images()) as file:
        for name in NAMES:
            assert seen.wait(60)  # for what was written before
            seen.clear()
            file.write(prediction(name))
    reader.join(60)
    assert b"".join(lines) == whole and pipe.is_fifo() and sorted(os.listdir(tmp_path)) == ["pipe", "whole.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line_and_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"full cannot be written \(No space left on device\)$"):
        write(tmp_path / "full", [])
    real = open

    def full(path, mode="r", *arguments, **more):
        return real("/dev/full" if mode == "wb" else path, mode, *arguments, **more)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match=r"out\.csv\.partial cannot be written \(No space left on device\)"):
        write(tmp_path / "out.csv", [])
    assert os.listdir(tmp_path) == ["full"]


@pytest.mark.parametrize("moment", ["write", "close", "replace"])
def test_a_disk_that_fills_up_is_one_line_and_keeps_the_rows(tmp_path, whole, monkeypatch, moment):
    """An error at a row, one that the system only tells at close, a name that cannot be given."""
    rows = [prediction(name) for name in NAMES]
    file = PredictionFile(tmp_path / "out.csv", ["c,1", "=d"], {"prior": None}, images())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device\); free space, then .* --resume$"), file:
        for number, row in enumerate(rows):
            if number == 4 and moment == "write":
                monkeypatch.setattr(file, "file", Full(file.file))
            file.write(row)
        if moment == "close":
            monkeypatch.setattr(file, "file", Full(file.file))
        if moment == "replace":
            monkeypatch.setattr(os, "replace", full)
    monkeypatch.undo()
    assert len(file.predictions) == (4 if moment == "write" else len(rows))
    again = write(tmp_path / "out.csv", rows, resume=True)
    assert len(again.predictions) == len(rows) and (tmp_path / "out.csv").read_bytes() == whole


class Full:
    """A file whose disk is full: what it holds cannot be written, not even when it is closed."""

    def __init__(self, file):
        self.file = file

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        self.file.close()
        self.flush()
