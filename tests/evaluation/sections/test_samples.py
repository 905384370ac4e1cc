import shutil
from pathlib import Path

import pytest
import torch

from evaluation.sections.images import EvaluationImages
from evaluation.sections.samples import FEWEST, class_of, read_folder, share, too_few
from utils.errors import DataError

NAMES = ("cat", "wild cat", "Café")


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("cat_0001.png", 0),
        ("wild_cat_0001.png", 1),  # as generate.py writes it
        ("wild cat_1.png", 1),
        ("cat.png", 0),
        ("category_1.png", -1),
        ("CAT_7.png", 0),
        ("Cafe\u0301_1.png", 2),  # decomposed, as on macOS
        ("wild cat/cat_1.png", 1),  # the folder decides
        ("deep/cat/x/1.png", 0),
        ("1.png", -1),
    ],
)
def test_the_class_of_a_file(path, label):
    assert class_of(Path(path), NAMES) == label


def test_a_folder_is_read_in_turns(digits, write_folder, tmp_path):
    for name in ("3", "5"):
        label = digits.class_names.index(name)
        write_folder(digits.images[digits.labels == label][:3], tmp_path / "drawn" / name)
    drawn = read_folder("drawn", str(tmp_path / "drawn"), digits)
    assert drawn.labels.tolist() == [3, 5, 3, 5, 3, 5] and len(drawn.files) == FEWEST
    assert drawn.images[0].equal(digits.images[digits.labels == 3][0])


@pytest.mark.parametrize(("count", "message"), [(0, "has 0 images"), (FEWEST - 1, "or more are needed")])
def test_a_folder_of_too_few_images(digits, write_folder, tmp_path, count, message):
    write_folder(digits.images[:count], tmp_path / "drawn")
    with pytest.raises(DataError, match=message):
        read_folder("drawn", str(tmp_path / "drawn"), digits)


def test_few_training_images_do_not_matter_beside_test_images(own_folder):
    for file in own_folder.glob("train/*/00[1-3].png"):
        file.unlink()
    assert too_few(EvaluationImages("folder", "test", (8, 8), str(own_folder))).startswith("2 train images")
    shutil.copytree(own_folder / "test/a", own_folder / "validation/b", dirs_exist_ok=True)
    shutil.copy(own_folder / "test/a/000.png", own_folder / "validation/a/002.png")
    assert too_few(EvaluationImages("folder", "validation", (8, 8), str(own_folder))) == ""


def test_share():
    values = share("derailed", torch.tensor([True, False, False, False, True, True, True, True, True, True]))
    assert values["derailed"] == pytest.approx(0.7) and values["derailed_images"] == 10
    assert values["derailed_low"] == pytest.approx(0.3968, abs=1e-4)  # Wilson's interval of 7 of 10
    assert values["derailed_high"] == pytest.approx(0.8922, abs=1e-4)
