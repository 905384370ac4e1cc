"""Which images a checkpoint was chosen on."""

import pytest

from evaluation.protocol import chosen_on
from model import PRETRAINED, PixelCNN, load_checkpoint, save_checkpoint


@pytest.mark.parametrize(
    ("more", "images"),
    [
        ({"settings": {"select_on": "holdout"}}, "holdout"),
        ({"settings": {"select_on": "validation"}}, "validation"),
        ({"settings": {"lr": 0.1}}, "validation"),  # older
        ({"settings": ["holdout"]}, "validation"),  # of another program
        ({}, "validation"),
    ],
)
def test_a_checkpoint_says_which_images_chose_its_epoch(tmp_path, more, images):
    net = PixelCNN(1, 2, 1, 1, 2)
    save_checkpoint(tmp_path / "x.pt", net, image_size=(8, 8), class_names=("a", "b"), dataset="folder", **more)
    assert chosen_on(load_checkpoint(tmp_path / "x.pt")) == images


def test_the_pretrained_checkpoint_was_chosen_on_validation_images():
    assert chosen_on(load_checkpoint(PRETRAINED)) == "validation"
