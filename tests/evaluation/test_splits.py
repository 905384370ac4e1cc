"""The training and validation images of a classifier."""

import dataclasses

import pytest
import torch

from evaluation import splits
from evaluation.splits import held_out, load_labelled
from utils.errors import UserError


@pytest.mark.parametrize("unknown", ["train", "validation"])
def test_images_without_a_class_are_refused(digits, monkeypatch, unknown):
    bare = dataclasses.replace(digits, labels=torch.full_like(digits.labels, -1))
    monkeypatch.setattr(splits, "load_split", lambda _, split, *__, **___: bare if split == unknown else digits)
    name = {"train": "training"}.get(unknown, unknown)
    with pytest.raises(UserError, match=rf"some digits {name} images have no class \(label -1\)"):
        load_labelled("digits", None, None, False)


def test_both_splits_have_the_size_that_was_asked_for():
    train, validation = load_labelled("digits", 12, None, False)
    assert train.images.shape == (1437, 1, 12, 12) and validation.images.shape == (360, 1, 12, 12)


def test_a_holdout_of_no_images_is_one_line(digits):
    rest, held = held_out(digits, "--flag")
    assert {*rest.paths, *held.paths} == {*digits.paths} and len(rest) + len(held) == 70 and len(held) > 0
    firsts = torch.tensor([digits.labels.tolist().index(label) for label in range(10)])
    with pytest.raises(UserError, match=r"^--flag: no class has two training images; add some, or leave it out$"):
        held_out(digits.part(firsts), "--flag")


def test_a_single_class_is_refused_unless_it_is_allowed(digits, write_folder, tmp_path):
    write_folder(digits.images[:5], tmp_path / "photos" / "cat")
    with pytest.raises(UserError, match=r"only one class of training images, photos: .*, or else$"):
        load_labelled("folder", 8, str(tmp_path), False, ", or else")
    assert [len(split) for split in load_labelled("folder", 8, str(tmp_path), False, None)] == [4, 1]
