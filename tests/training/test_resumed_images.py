"""What a run is resumed with: the same classes, and if possible the same images."""

import unicodedata
from pathlib import Path

import pytest
import torch

from data import ImageSet
from training.resumed_images import check_images, image_list
from utils.errors import UserError


def split(class_names, *paths):
    return ImageSet(torch.zeros(len(paths), 1, 4, 4), torch.zeros(len(paths)), class_names, paths)


def check(checkpoint, train, validation):
    check_images(checkpoint, Path("run/last.pt"), train.class_names, image_list(train, validation))


def test_other_classes_are_refused():
    now = split(("1", "10", "2"), "1/a.png")
    for before, message in (
        (["1", "2", "10"], r"the run in run has other classes than these images \(in another order\)"),
        (["1", "2"], r"\(10 new\)"),
        (["1", "3", "10"], r"\(3 gone, 2 new\); give the --data_dir that it was trained on"),
    ):
        with pytest.raises(UserError, match=message):
            check({"class_names": before}, now, now)


def test_other_images_are_told_and_those_of_another_unicode_form_are_the_same(capsys):
    train, validation = split(("caf\u00e9",), "caf\u00e9/1.png", "caf\u00e9/2.png"), split(("caf\u00e9",), "x.png")
    before = {"class_names": [unicodedata.normalize("NFD", "caf\u00e9")], "images": image_list(train, validation)}
    decomposed = split(train.class_names, *(unicodedata.normalize("NFD", path) for path in train.paths))
    for same in (before, {"class_names": before["class_names"]}):  # the second is of an older version
        check(same, train, validation)
        check(same, decomposed, validation)
    assert capsys.readouterr().err == ""
    fewer = split(train.class_names, train.paths[0])
    for now in ((fewer, validation), (train, split(train.class_names))):
        check(before, *now)
        assert capsys.readouterr().err.startswith("warning: the images are not those that the run in run had")


def test_names_that_are_no_unicode_can_be_compared():
    odd = split(("a",), b"a/caf\xe9.png".decode("utf-8", "surrogateescape"))
    assert image_list(odd, odd) == image_list(odd, odd) != image_list(odd, split(("a",)))
