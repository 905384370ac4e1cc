import zipfile

import pytest
import torch
from PIL import Image

from evaluation.generation import draw_images
from plots.images import to_pil
from utils.errors import UserError
from webapp.generate import MAX_IMAGES, Generator


@pytest.fixture
def generator(net, turns):
    return Generator(net, turns)


def test_the_images_are_those_of_generate_py(generator, net):
    drawings = list(generator.draw([2, 0], 2, 0.8, 7))
    assert [drawing.status for drawing in drawings[:2]] == [f"Row {row} of 8, images 1 to 4 of 4." for row in (1, 2)]
    assert len(drawings) == 9 and [drawing.file for drawing in drawings[:8]] == [None] * 8
    assert drawings[-1].status == "Done: 4 images."
    expected = {
        (label, number): image
        for label, number, image in draw_images(net, [0, 2], 2, (8, 8), seed=7, temperature=0.8, shared=False)
    }
    with zipfile.ZipFile(drawings[-1].file) as archive:
        assert archive.namelist() == [
            "cat_0001.png",
            "cat_0002.png",
            "owl_0001.png",
            "owl_0002.png",
            "samples_grid.png",
        ]
        for name, image in zip(archive.namelist(), expected.values(), strict=False):
            with archive.open(name) as file, Image.open(file) as opened:
                assert opened.tobytes() == to_pil(image).tobytes()


def test_the_top_rows_of_a_photo_are_kept(generator):
    original = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    drawings = list(generator.draw([1], 3, 1.0, 0, original, 6))
    assert [drawing.status[:10] for drawing in drawings] == ["Row 7 of 8", "Row 8 of 8", "Done: 3 co"]
    with zipfile.ZipFile(drawings[-1].file) as archive, archive.open("b_dog_0002.png") as file:
        kept = Image.open(file).crop((0, 0, 8, 6))
        assert kept.tobytes() == to_pil(original[:, :6]).tobytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (([], 1, 1.0, 0), "no class is chosen"),
        (([3], 1, 1.0, 0), "no such class"),
        (([0], 0, 1.0, 0), "images of each class 0: should be greater"),
        (([0], "x", 1.0, 0), "images of each class x: "),
        (([True], 1, 1.0, 0), "no such class"),
        (([None], 1, 1.0, 0), "no such class"),
        (([0], None, 1.0, 0), "the number of images is empty"),
        (([0], 10**9, 1.0, 0), "draw 1 to"),
        (([0], 1, 0.0, 0), "temperature 0.0: should be greater"),
        (([0], 1, float("nan"), 0), "temperature nan"),
        (([0], 1, 1.0, -1), "seed -1: should be greater"),
        (([0], 1, 1.0, None), "the seed is empty; give a number"),
    ],
)
def test_values_that_no_page_would_send(generator, values, message):
    with pytest.raises(UserError, match=message):
        next(generator.draw(*values))


def test_a_drawing_is_bounded(generator, monkeypatch):
    monkeypatch.setattr("webapp.generate.MAX_IMAGES", 5)
    with pytest.raises(UserError, match="3 classes of 2 images are too many; draw at most 5 images"):
        next(generator.draw([0, 1, 2], 2, 1.0, 0))
    assert MAX_IMAGES < 1000
