"""Names, folders, grids and draws."""

import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from PIL import Image

from evaluation.generation import draw_images, prepare_folder
from model import PixelCNN
from plots.classification import plot_confusion_matrix
from plots.images import labelled_grid, to_pil, write_png, write_zip
from utils.errors import UserError
from utils.files import atomic_write, check_writable
from utils.text import file_stems, printable


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
def test_stems_are_distinct_and_fit_for_files(names):
    stems = file_stems(names)
    assert len({stem.casefold() for stem in stems}) == len(names)
    for stem in stems:
        assert stem and not stem.startswith(".") and len(stem) <= 60 and not set(stem) & set('/\\\0\n"*?:<>|')


def test_printable_keeps_unicode_and_shows_other_bytes():
    assert printable("café") == "café"
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == r"caf\xe9"


def test_replacing_leaves_nothing_of_a_failure(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["x"] and path.read_text() == "old"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path / "file" / "x.png")
    with pytest.raises(UserError, match="is a folder"):
        check_writable(tmp_path)


def test_overwriting_removes_draws_and_nothing_else(tmp_path):
    drawn = ["cat_0001.png", "cat_12345.png", "photo_cat_0001.png", "two\nlines_cat_0002.png"]
    for name in (*drawn, "cat_1.png", "notes.txt", "dog_0001.png"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="holds files"):
        prepare_folder(tmp_path, ["cat"], overwrite=False)
    prepare_folder(tmp_path, ["cat"], overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat_1.png", "dog_0001.png", "notes.txt"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_levels(tmp_path, channels):
    image = torch.randint(0, 256, (channels, 8, 12), dtype=torch.uint8)
    write_png(image, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.format == "PNG" and picture.mode == ("L" if channels == 1 else "RGB")
        assert np.array_equal(np.array(picture).reshape(8, 12, channels), image.permute(1, 2, 0))


def test_a_grid_shows_a_row_a_class(tmp_path):
    images = torch.stack([torch.full((3, 8, 8), level, dtype=torch.uint8) for level in (10, 20, 30, 40)])
    labelled_grid(images, torch.tensor([1, 0, 1, 1]), ["a", "b"], tmp_path / "g.png", columns=2)
    with Image.open(tmp_path / "g.png") as opened:
        picture = np.array(opened.convert("RGB"))[:, -204:]  # two columns of 96, with padding of 4
    assert picture.shape[0] == 204
    assert picture[50, 50].tolist() == [20] * 3 and picture[50, 150].tolist() == [255] * 3
    assert picture[150, 50].tolist() == [10] * 3 and picture[150, 150].tolist() == [30] * 3


def test_a_confusion_picture_takes_any_names(tmp_path):
    plot_confusion_matrix([0, 1, 1], [0, 1, 0], ["$a_{", "<b>\n"], tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.format == "PNG" and picture.width > 100


def test_a_confusion_picture_has_numbers_for_few_classes_only(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("matplotlib.axes.Axes.text", lambda self, x, y, text, **_: written.append(text))
    plot_confusion_matrix([0, 1, 1], [0, 1, 0], ["a", "b"], tmp_path / "c.png")
    assert written == ["1", "0", "1", "1"]
    plot_confusion_matrix([0, 1, 1], [0, 1, 0], [str(i) for i in range(41)], tmp_path / "many.png")
    assert len(written) == 4 and (tmp_path / "many.png").exists()


@pytest.mark.parametrize("classes", [300, 1001])
def test_a_confusion_picture_of_many_classes_is_no_larger(tmp_path, monkeypatch, classes):
    shown, ticks = [], []
    imshow, set_xticks = Axes.imshow, Axes.set_xticks
    monkeypatch.setattr(Axes, "imshow", lambda self, x, **more: shown.append((x, more)) or imshow(self, x, **more))
    monkeypatch.setattr(Axes, "set_xticks", lambda self, *a, **more: ticks.append(a) or set_xticks(self, *a, **more))
    names = [f"class {i} {'x' * 100}" for i in range(classes)]
    plot_confusion_matrix([0, 1, classes - 1], [0, 1, classes - 2], names, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size == (2250, 2250)
    ((counts, options),), ((places, labels),) = shown, ticks
    assert counts.shape[0] <= 500 and counts.sum() == 3 and options["extent"][1] >= classes - 0.5
    per_cell = 1 if classes == 300 else 3
    assert counts[0, 0] == (1 if per_cell == 1 else 2)
    assert counts[(classes - 1) // per_cell, (classes - 2) // per_cell] == 1
    assert len(places) == len(labels) <= 40 and {len(label) for label in labels} == {30}
    assert all(label.startswith(f"class {place} x") for place, label in zip(places, labels, strict=True))


def test_a_confusion_picture_of_one_class_warns_of_nothing(tmp_path, recwarn):
    plot_confusion_matrix([0, 0], [0, 0], ["a"], tmp_path / "c.png")
    assert not recwarn.list and (tmp_path / "c.png").exists()


def test_a_grid_of_many_classes_is_not_enlarged(tmp_path):
    labelled_grid(torch.zeros(500, 1, 8, 8, dtype=torch.uint8), torch.arange(500), ["a"] * 500, tmp_path / "g.png")
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.height == 500 * (16 + 4) + 4


def test_a_draw_depends_on_its_seed_class_and_number_alone():
    torch.manual_seed(0)
    net = PixelCNN(1, 4, 2, 1, 3).eval()

    def draws(classes, per_class, seed=0, **more):
        return {(c, n): image for c, n, image in draw_images(net, classes, per_class, (8, 8), seed=seed, **more)}

    few, many = draws([2], 2), draws([0, 2], 3, batch_size=4)
    assert set(few) == {(2, 0), (2, 1)} and set(many) == {(c, n) for c in (0, 2) for n in range(3)}
    for key, image in few.items():
        assert torch.equal(image, many[key])
    assert not torch.equal(few[2, 0], draws([2], 1, seed=1)[2, 0])


def test_a_zip_of_png_files(tmp_path):
    images = [torch.full((1, 4, 4), level, dtype=torch.uint8) for level in (0, 200)]
    write_zip([(f"{i}.png", to_pil(image)) for i, image in enumerate(images)], tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == ["0.png", "1.png"] and archive.testzip() is None
        with archive.open("1.png") as file, Image.open(file) as opened:
            assert opened.format == "PNG" and opened.getpixel((0, 0)) == 200
