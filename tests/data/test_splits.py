"""The training images that are held out."""

from pathlib import Path

import pytest
import torch

from data import ImageSet, load_split
from data.splits import hold_out
from data.types import BadImage

REAL = Path(__file__).resolve().parents[3] / "shared" / "cpen455"


def images_of(labels, names=4) -> ImageSet:
    """Images of one pixel, whose level is their number modulo 256."""
    images = torch.arange(len(labels)).remainder(256).to(torch.uint8)[:, None, None, None]
    paths = tuple(f"{i}.png" for i in range(len(labels)))
    return ImageSet(images, torch.tensor(labels), tuple(map(str, range(names))), paths)


def check_parts(split: ImageSet, rest: ImageSet, held: ImageSet) -> None:
    """Each image is in one part, with its label, and the order is kept."""
    number = {path: i for i, path in enumerate(split.paths)}
    assert len(number) == len(split) and sorted(rest.paths + held.paths) == sorted(split.paths)
    for part in (rest, held):
        numbers = [number[path] for path in part.paths]
        assert numbers == sorted(numbers) and part.class_names == split.class_names
        assert torch.equal(part.images, split.images[numbers]) and torch.equal(part.labels, split.labels[numbers])


def test_a_tenth_of_each_class_of_the_digits_is_held_out():
    digits = load_split("digits", "train")
    rest, held = hold_out(digits)
    check_parts(digits, rest, held)
    assert held.labels.bincount().tolist() == [14, 15, 14, 15, 14, 14, 14, 14, 14, 14]
    assert (len(rest), len(held)) == (1295, 142)
    # part of every result: this fails if a library or another seed changes it
    assert [int(path[-5:]) for path in held.paths[:10]] == [45, 61, 63, 68, 69, 72, 75, 79, 90, 92]


def test_a_tenth_of_the_labels_of_cpen455_is_held_out():
    counts = [1040, 1039, 1040, 1040]
    split = images_of([label for label, count in enumerate(counts) for _ in range(count)])
    rest, held = hold_out(split)
    check_parts(split, rest, held)
    assert held.labels.bincount().tolist() == [104] * 4
    assert rest.labels.bincount().tolist() == [936, 935, 936, 936]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data set is not beside the checkout")
def test_the_held_out_images_of_the_real_data_set():
    split = load_split("cpen455", "train", 4, REAL)
    rest, held = hold_out(split)
    check_parts(split, rest, held)
    assert len(rest) == 3743 and held.labels.bincount().tolist() == [104] * 4
    assert held.paths[:3] == tuple(f"train/{number:07d}.jpg" for number in (5, 8, 10))


@pytest.mark.parametrize(
    ("count", "held"), [(1, 0), (2, 1), (3, 1), (5, 1), (14, 1), (16, 2), (100, 10), (104, 10), (106, 11)]
)
def test_a_class_of_few_images(count, held):
    split = images_of([0] * 20 + [1] * count)
    rest, part = hold_out(split)
    check_parts(split, rest, part)
    assert part.labels.bincount(minlength=2).tolist() == [2, held]


def test_nothing_is_held_out_of_classes_of_one():
    rest, held = hold_out(images_of([2, 0, 1]))
    assert rest.labels.tolist() == [2, 0, 1] and len(held) == 0 and held.images.shape == (0, 1, 1, 1)


def test_it_is_the_same_whatever_was_drawn_before():
    split = images_of([0, 1] * 50)
    first = hold_out(split)[1].paths
    torch.rand(3)
    assert hold_out(split)[1].paths == first


def test_what_was_left_out_stays_with_the_rest():
    split = images_of([0] * 10)
    bad, notes = (BadImage(3, "x.png", 0, "empty"),), ("left out",)
    noted = ImageSet(split.images, split.labels, split.class_names, split.paths, bad, notes)
    rest, held = hold_out(noted)
    assert (rest.bad, rest.notes) == (bad, notes) and (held.bad, held.notes) == ((), ())
