"""Which images a checkpoint was chosen on."""

from types import SimpleNamespace

import pytest

from evaluation.baseline_network import build_baseline, load_baseline, save_baseline
from evaluation.protocol import chosen_on, holds_out
from model import PRETRAINED, PRETRAINED_SAMPLES, PixelCNN, load_checkpoint, save_checkpoint


@pytest.mark.parametrize(
    ("more", "images"),
    [
        ({"settings": {"select_on": "holdout"}}, "holdout"),
        ({"settings": {"select_on": "validation"}}, "validation"),
        ({"settings": {"select_on": "validation", "best_metric": "last"}}, None),
        ({"settings": {"lr": 0.1}}, "validation"),  # older
        ({"settings": ["holdout"]}, "validation"),  # of another program
        ({}, "validation"),
    ],
)
def test_a_checkpoint_says_which_images_chose_its_epoch(tmp_path, more, images):
    net = PixelCNN(1, 2, 1, 1, 2)
    save_checkpoint(tmp_path / "x.pt", net, image_size=(8, 8), class_names=("a", "b"), dataset="folder", **more)
    net = load_checkpoint(tmp_path / "x.pt")
    assert chosen_on(net) == images and holds_out(net) == (images == "holdout")


def test_a_checkpoint_of_the_last_epoch_may_hold_images_out():
    settings = {"select_on": "holdout", "best_metric": "last"}
    net = SimpleNamespace(metadata={"settings": settings})
    assert chosen_on(net) is None and holds_out(net)


@pytest.mark.parametrize("settings", [{"hold_out": True}, {"hold_out": False}, {}])
def test_a_baseline_says_whether_it_saw_the_held_out_images(tmp_path, settings):
    about = {"image_size": (8, 8), "class_names": ["a", "b"], "dataset": "folder", "settings": settings}
    save_baseline(tmp_path / "x.pt", build_baseline([1], 1, 2), [1], **about)
    assert holds_out(load_baseline(tmp_path / "x.pt")) == settings.get("hold_out", False)


@pytest.mark.parametrize("path", [PRETRAINED, PRETRAINED_SAMPLES])
def test_the_pretrained_checkpoint_is_of_a_last_epoch_on_all_training_images(path):
    net = load_checkpoint(path)
    assert chosen_on(net) is None and not holds_out(net)
