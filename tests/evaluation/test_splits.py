"""The training and validation images of a classifier."""

import dataclasses

import pytest
import torch

from evaluation import splits
from evaluation.splits import load_labelled
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
