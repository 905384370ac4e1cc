"""The course data set: a small one made here, its download, and the real one where it is at hand."""

import os
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from data import ImageSet, cpen455, load_split
from utils.errors import DataError

REAL = Path(__file__).resolve().parents[3] / "shared" / "cpen455"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(cpen455, "ARCHIVE_URL", (tmp_path / "no-such-archive.zip").as_uri())


def make(folder, rows=6):
    """A data set of plain colours: image i of each split has level 10 * i."""
    for split in ("train", "validation", "test"):
        (folder / split).mkdir(parents=True)
        lines = []
        for i in range(rows):
            image = Image.new("RGB", (64, 64), (10 * i,) * 3) if i else Image.new("L", (64, 64))
            image.save(folder / f"{split}/{i}.png")
            lines.append(f"{split}/{i}.png,{-1 if split == 'test' else i % 4}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("below", [".", "cpen455"])
def test_reads_a_split(tmp_path, below):
    make(tmp_path / "set" / below)
    train = load_split("cpen455", "train", data_dir=tmp_path / "set")
    assert train.images.shape == (6, 3, 32, 32) and train.images.dtype == torch.uint8
    assert train.images[:, 1, 5, 5].tolist() == [0, 10, 20, 30, 40, 50]
    assert train.labels.tolist() == [0, 1, 2, 3, 0, 1] and train.labels.dtype == torch.int64
    assert train.class_names == ("burger", "panda", "koala", "pizza")
    assert train.paths[3] == "train/3.png"
    test = load_split("cpen455", "test", image_size=(8, 16), data_dir=str(tmp_path / "set"))
    assert test.images.shape == (6, 3, 8, 16)
    assert test.labels.tolist() == [-1] * 6


def test_default_folder(tmp_path, monkeypatch):
    make(tmp_path / "datasets/cpen455")
    monkeypatch.chdir(tmp_path)
    assert len(load_split("cpen455", "validation")) == 6


def test_home_folder(tmp_path, monkeypatch):
    make(tmp_path / "set")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_split("cpen455", "validation", data_dir="~/set")) == 6


def rewrite(tmp_path, content):
    folder = make(tmp_path / "set", rows=2)
    (folder / "train.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize(
    "content",
    [
        "train/0.png,0\n\n  \ntrain/1.png,3",
        "\ufefftrain/0.png,0\r\ntrain/1.png,3\r\n",
        '"train/0.png", 0\n train/1.png ,"3"\n',
    ],
    ids=["empty lines", "from Excel", "quotes and spaces"],
)
def test_csv_written_otherwise(tmp_path, content):
    train = load_split("cpen455", "train", data_dir=rewrite(tmp_path, content))
    assert train.paths == ("train/0.png", "train/1.png") and train.labels.tolist() == [0, 3]


def test_the_same_image_twice(tmp_path):
    train = load_split("cpen455", "train", data_dir=rewrite(tmp_path, "train/1.png,1\n" * 3))
    assert train.images[:, 0, 0, 0].tolist() == [10, 10, 10]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train/0.png,0\ntrain/7.png,1\n", r"row 2: the file 'train/7\.png' is missing"),
        ("train/0.png,0\n\ntrain,1\n", "row 3: the file 'train' is missing"),
        ("train/a\0.png,0\n", "(row 1: the file .* is missing|cannot be read as CSV)"),  # before Python 3.11
        ("x" * 5000 + ",0\n", "row 1: the file .* is missing"),
        (",0\n", "row 1: the file '' is missing"),
        ("/etc/hostname,0\n", "row 1: '/etc/hostname' is outside the data folder"),
        ("train/../../set/train/0.png,0\n", "row 1: .* is outside the data folder"),
        ("train/0.png,cat\n", "row 1: label 'cat' is not a whole number from -1 to 3"),
        ("train/0.png,4\n", "row 1: label '4'"),
        ("train/0.png,-2\n", "row 1: label '-2'"),
        ("train/0.png,1.0\n", r"row 1: label '1\.0'"),
        ("train/0.png,\n", "row 1: label ''"),
        ("path,label\ntrain/0.png,1\n", "row 1: label 'label'"),
        ("train/0.png\n", "row 1: 1 columns"),
        ("train/0.png,0\ntrain/0.png,0,burger\n", "row 2: 3 columns"),
        ("train/0.png;0\n", "row 1: 1 columns"),
        ("", "has no rows"),
        ("\n \n", "has no rows"),
        ("y" * 200_000, "cannot be read as CSV"),
        ("train/0.png,0\nträin/1.png,1\n".encode("latin-1"), "not UTF-8"),
        (b"\xff\xfet\0r\0", "not UTF-8"),
    ],
)
def test_csv_errors(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"train\.csv.*{message}") as caught:
        load_split("cpen455", "train", data_dir=rewrite(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_broken_images_are_named_and_skipped_on_demand(tmp_path):
    folder = make(tmp_path / "set")
    (folder / "train/4.png").write_bytes(b"")
    (folder / "train/2.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"2 of 6 .*train/2\.png: not a readable image .*; also train/4\.png; repair"):
        load_split("cpen455", "train", data_dir=folder)
    split = load_split("cpen455", "train", data_dir=folder, skip_bad_images=True)
    assert split.labels.tolist() == [0, 1, 3, 1] and split.images[:, 0, 0, 0].tolist() == [0, 10, 30, 50]
    assert [(bad.position, bad.path, bad.label) for bad in split.bad] == [(2, "train/2.png", 2), (4, "train/4.png", 0)]


@pytest.fixture(scope="module")
def scratch():
    with tempfile.TemporaryDirectory() as folder:
        yield make(Path(folder, "set"), rows=2)


cells = st.sampled_from(["train/0.png", "train/1.png", "0", "-1", "9", "..", "/", '"', ",", "\r", "\n", "\0"])


@settings(max_examples=150, deadline=None)
@given(content=st.text() | st.lists(cells | st.text(max_size=3)).map("".join) | st.binary())
@example(content="train/0.png,0\ntrain/1.png,-1")
def test_any_csv_is_read_or_refused(scratch, content):
    data = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    (scratch / "train.csv").write_bytes(data)
    try:
        train = load_split("cpen455", "train", image_size=4, data_dir=scratch)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(train, ImageSet)
        assert len(train) == len(train.paths) == len(train.images) > 0
        assert set(train.paths) <= {"train/0.png", "train/1.png"} and set(train.labels.tolist()) <= {-1, 0}


def test_a_folder_without_the_csv_is_not_downloaded_over(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"has no test\.csv: put train\.csv, validation\.csv.* there"):
        load_split("cpen455", "test", data_dir=tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def archive(tmp_path, monkeypatch, extra=()):
    """A zip like GitHub's of the starter repository, which ARCHIVE_URL then points at."""
    source = make(tmp_path / "source")
    path = tmp_path / "main.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("Homework-main/README.md", "read me")
        zipped.writestr("Homework-main/other/data/train.csv", "not this one")
        for file in sorted(source.rglob("*")):
            zipped.write(file, f"Homework-main/data/{file.relative_to(source).as_posix()}")
        for name in extra:
            zipped.writestr(name, "evil")
    monkeypatch.setattr(cpen455, "ARCHIVE_URL", path.as_uri())
    return path


def test_download(tmp_path, monkeypatch, capfd):
    archive(tmp_path, monkeypatch)
    folder = tmp_path / "home/datasets/cpen455"
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/gone")  # a move from another disk would not be atomic
        train = load_split("cpen455", "train", data_dir=folder)
    assert train.labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert sorted(os.listdir(folder)) == [
        "test",
        "test.csv",
        "train",
        "train.csv",
        "validation",
        "validation.csv",
    ]
    assert os.listdir(folder.parent) == ["cpen455"]
    assert "downloading file:" in capfd.readouterr().err
    monkeypatch.setattr(cpen455, "ARCHIVE_URL", "file:///gone")
    assert len(load_split("cpen455", "test", data_dir=folder)) == 6  # there now: no second download


def test_download_stays_in_its_folder(tmp_path, monkeypatch):
    evil = ["Homework-main/data/../../../evil", "Homework-main/data/../evil", "../data/evil", "/x/data/evil"]
    archive(tmp_path, monkeypatch, evil)
    before = set(os.listdir(tmp_path))
    load_split("cpen455", "train", data_dir=tmp_path / "home/set")
    assert set(os.listdir(tmp_path)) == before | {"home"}
    assert os.listdir(tmp_path / "home") == ["set"]
    assert not [file for file in tmp_path.rglob("evil") if tmp_path / "home/set" not in file.parents]


def test_only_the_data_is_unpacked(tmp_path, monkeypatch):
    unpacked = cpen455._unpack(archive(tmp_path, monkeypatch), tmp_path / "into")
    assert unpacked == tmp_path / "into/Homework-main/data"
    assert os.listdir(unpacked.parent) == ["data"]


def truncated(path):
    path.write_bytes(path.read_bytes()[:500])


def text(path):
    path.write_text("<html>please log in</html>")


def other_repository(path):
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("Homework-main/README.md", "read me")


@pytest.mark.parametrize("damage", [Path.unlink, truncated, text, other_repository])
def test_impossible_download(tmp_path, monkeypatch, damage):
    damage(archive(tmp_path, monkeypatch))
    before = set(os.listdir(tmp_path))
    with pytest.raises(DataError, match=r"new/set \(.+\): put train\.csv.*there.*DSL-Lab/CPEN455HW") as caught:
        load_split("cpen455", "train", data_dir=tmp_path / "new/set")
    assert "\n" not in str(caught.value)
    assert set(os.listdir(tmp_path)) == before


def test_download_below_a_file(tmp_path, monkeypatch):
    archive(tmp_path, monkeypatch)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="could not be downloaded"):
        load_split("cpen455", "train", data_dir=tmp_path / "file/set")


def test_download_lost_to_a_faster_process(tmp_path, monkeypatch):
    def another_process_wins(*_, **__):
        make(tmp_path / "set")
        raise OSError("connection lost")

    monkeypatch.setattr(torch.hub, "download_url_to_file", another_process_wins)
    assert len(load_split("cpen455", "train", data_dir=tmp_path / "set")) == 6


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data set is not beside the checkout")
def test_the_real_data_set():
    splits = {split: load_split("cpen455", split, data_dir=REAL) for split in ("train", "validation", "test")}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 4159,
        "validation": 519,
        "test": 519,
    }
    assert splits["train"].labels.bincount().tolist() == [1040, 1039, 1040, 1040]
    assert splits["validation"].labels.bincount().tolist() == [130, 130, 129, 130]
    assert splits["test"].labels.unique().tolist() == [-1]
    for split in splits.values():
        assert split.images.shape[1:] == (3, 32, 32)
        spread = split.images.flatten(1).float().std(1)
        assert spread.min() > 0  # no image is one plain colour, as an unfilled slot would be
