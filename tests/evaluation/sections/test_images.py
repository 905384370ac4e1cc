import dataclasses

import pytest
import torch

from evaluation.sections import images as images_module
from evaluation.sections.images import EvaluationImages, balanced_order, shuffled, some
from utils.errors import UserError


def test_classes_take_turns_as_far_as_they_have_images():
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    assert balanced_order(labels).tolist() == [0, 3, 4, 1, 5, 2]


def test_images_without_a_class_keep_their_order():
    assert balanced_order(torch.full((4,), -1)).tolist() == [0, 1, 2, 3]


def test_the_shuffled_order_is_a_fixed_permutation():
    assert sorted(shuffled(9).tolist()) == list(range(9)) and shuffled(9).equal(shuffled(9))
    assert shuffled(9).tolist() != list(range(9))


def test_samples_are_compared_with_the_test_split_where_there_is_one(own_folder):
    images = EvaluationImages("folder", "validation", (8, 8), str(own_folder))
    name, reference = images.reference
    assert (name, len(reference)) == ("test", 6)
    digits = EvaluationImages("digits", "validation", None, None)
    assert digits.reference == ("validation", digits.judged)


def test_a_folder_without_test_images_is_compared_with_validation(own_folder):
    for file in (own_folder / "test").rglob("*.png"):
        file.unlink()
    for folder in sorted((own_folder / "test").iterdir()):
        folder.rmdir()
    (own_folder / "test").rmdir()
    images = EvaluationImages("folder", "train", (8, 8), str(own_folder))
    name, reference = images.reference
    assert (name, len(reference)) == ("validation", 4)


def test_the_holdout_is_a_part_of_the_training_images(digits):
    held = EvaluationImages("digits", "holdout", None, None)
    train = held.train
    assert set(held.judged.paths) < set(train.paths) and abs(len(held.judged) - len(train) / 10) < 10


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_training_images_are_read_once(own_folder, capsys, split):
    (own_folder / "train/a/000.png").write_bytes(b"")
    images = EvaluationImages("folder", split, (8, 8), str(own_folder), skip_bad_images=True)
    assert (len(images.judged), len(images.train)) == (7 if split == "train" else 2, 7)
    assert capsys.readouterr().err.count("left out: 1 of 8 images cannot be read") == 1


def test_training_images_without_a_class_are_refused(digits, monkeypatch):
    bare = dataclasses.replace(digits, labels=torch.full_like(digits.labels, -1))
    monkeypatch.setattr(images_module, "load_split", lambda *_: bare)
    with pytest.raises(UserError, match=r"some digits train images have no class \(label -1\)"):
        _ = EvaluationImages("digits", "validation", None, None).train


def test_of_many_images_a_fixed_part_is_taken_in_order(digits):
    rows = some(70, 20)
    part = digits.part(rows)
    assert len(part) == 20 and part.paths == digits.part(some(70, 20)).paths == tuple(sorted(part.paths))
    assert {*part.paths} < {*digits.paths} and part.paths != digits.paths[:20]
    place = digits.paths.index(part.paths[7])
    assert part.images[7].equal(digits.images[place]) and part.labels[7] == digits.labels[place]
    assert some(70, 70).tolist() == some(70, 100).tolist() == list(range(70))
