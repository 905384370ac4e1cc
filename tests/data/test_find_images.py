"""find_images: which files of a folder are images."""

import os
from pathlib import Path

import pytest
import torch

from data import find_images, read_image
from data.find import describe_skipped
from plots.attribution import Attribution, plot_attributions
from plots.classification import plot_confusion_matrix
from plots.curves import plot_learning_curves
from plots.images import labelled_grid, write_png
from utils.errors import DataError


def test_find_images(tmp_path):
    wanted = ["a/b/1.JPG", "a/2.png", "b.gif", "c.webp", "c.tiff", "z.d/x.jpeg"]
    others = [
        "notes.txt",
        "a/.hidden.png",
        ".cache/3.png",
        "noextension",
        "x.png.txt",
        "d.h5",
        "e.pdf",
        "png",
    ]
    for name in wanted + others:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert find_images(tmp_path) == sorted(tmp_path / name for name in wanted)
    assert find_images(str(tmp_path / "a")) == [tmp_path / "a/2.png", tmp_path / "a/b/1.JPG"]
    assert find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


def test_figures_that_this_program_drew_are_left_out(tmp_path, capsys):
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    for folder in ("set", "set/maps", "set/other"):
        (tmp_path / folder).mkdir()
    for name in ("set/a.png", "set/overview.png", "set/maps/b.png", "set/other/confusion.png", "set/other/curves.png"):
        write_png(image[0], tmp_path / name)  # photos, some with a name of a figure
    shown = [Attribution(image[0], torch.zeros(8, 8), "a", "b", 0.5)]
    for name in ("set/maps/a.png", "set/maps/overview.png"):
        plot_attributions(shown, tmp_path / name, columns=1)
    plot_confusion_matrix([0, 1], [0, 1], ["a", "b"], tmp_path / "set" / "confusion.png")
    plot_learning_curves([{"epoch": 1, "x": 1.0}], {"a": {"x": "x"}, "b": {"x": "x"}}, tmp_path / "set" / "curves.png")
    labelled_grid(image, torch.tensor([0]), ["a"], tmp_path / "set" / "samples_grid.png")
    labelled_grid(image, torch.tensor([0]), ["a"], tmp_path / "set" / "other" / "epoch_0025.png")
    left = ["a.png", "maps/b.png", "other/confusion.png", "other/curves.png", "overview.png"]
    for _ in range(2):
        assert find_images(tmp_path / "set") == [tmp_path / "set" / name for name in left]
    told = f"left out: 6 figures that this program drew, such as {tmp_path / 'set' / 'confusion.png'}\n"
    assert capsys.readouterr().err == told  # once
    assert find_images(tmp_path / "set" / "confusion.png") == [tmp_path / "set" / "confusion.png"]


def test_only_files_with_the_name_of_a_figure_are_opened(tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "confusion.png"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "overview.png")
    opened, real = [], open
    monkeypatch.setattr("builtins.open", lambda path, *more: opened.append(Path(path).name) or real(path, *more))
    assert len(find_images(tmp_path)) == 4 and opened == ["confusion.png"]


def test_find_images_below_a_hidden_folder(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/1.png").touch()
    assert find_images(tmp_path / ".cache") == [tmp_path / ".cache/1.png"]
    assert find_images(tmp_path) == []


def test_hidden_folders_and_other_files_are_collected(tmp_path):
    for name in ("a/1.png", "a/.x/2.png", ".y/3.png", "a/.DS_Store", "b/4.HEIC", "b/5.heic", "b/6", "c/7.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    skipped, hidden = [], []
    assert find_images(tmp_path, skipped=skipped, hidden=hidden) == [tmp_path / "a/1.png"]
    assert sorted(hidden) == [tmp_path / ".y", tmp_path / "a/.x"]
    advice = "; .heic cannot be read here: convert to JPEG or PNG"
    assert describe_skipped(skipped) == f"2 .heic, 1 without an extension, 1 .txt{advice}"
    assert describe_skipped(skipped, tmp_path) == f"2 .heic in b, 1 without an extension in b, 1 .txt in c{advice}"
    assert describe_skipped([Path(f"{i}/a.x{i}") for i in range(12)]).endswith(" .x7, and 4 more")


def test_find_images_with_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.png").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/2.png").touch()
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    assert find_images(tmp_path / "set") == [tmp_path / "set/2.png", tmp_path / "set/linked/1.png"]


def test_special_files_are_found_and_refused_without_being_opened(tmp_path, special_files):
    words = special_files(tmp_path)
    assert find_images(tmp_path) == sorted(tmp_path / name for name in words)
    for name, word in words.items():
        assert find_images(tmp_path / name) == [tmp_path / name]
        with pytest.raises(DataError, match=rf"{name}: not a readable image \(.*{word}"):
            read_image(tmp_path / name, 3, 8)  # were the pipe opened, this would wait for ever


def test_folders_nested_deeper_than_python_recurses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    Path("deep.png").touch()
    try:
        assert [file.name for file in find_images(tmp_path)] == ["deep.png"]
    finally:  # pytest's own cleaning recurses
        Path("deep.png").unlink()
        for _ in range(1500):
            os.chdir("..")
            os.rmdir("d")


@pytest.mark.parametrize("name", ["gone", "x" * 5000, "a\0b"])
def test_find_images_in_no_folder(tmp_path, name):
    with pytest.raises(DataError, match="no such file or folder"):
        find_images(tmp_path / name)


def test_find_images_in_a_closed_folder(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=r"closed: .*Permission denied"):
        find_images(tmp_path)
    for name in ("a.png", "z.png"):
        (tmp_path / name).touch()
    unreadable = {}
    assert find_images(tmp_path, unreadable) == [tmp_path / name for name in ("a.png", "closed", "z.png")]
    assert list(unreadable) == [tmp_path / "closed"] and "Permission denied" in str(unreadable[tmp_path / "closed"])
