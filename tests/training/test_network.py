"""The network that a run starts from."""

import dataclasses

import pytest
import torch

from evaluation.protocol import holds_out
from model import PixelCNN, save_checkpoint
from training.network import build_network, load_initial_weights
from training.settings import TrainSettings
from utils.errors import UserError

SETTINGS = TrainSettings(dataset="folder", nr_resnet=1, nr_filters=4, nr_logistic_mix=2, fusion="middle")


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    net = PixelCNN(1, 4, 2, 3, 3, fusion="middle")
    path = tmp_path / "three.pt"
    save_checkpoint(path, net, image_size=(8, 8), class_names=("ant", "bee", "cat"), dataset="folder")
    return path


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("ant", "bee", "cat"), ""),
        (("bee", "cat", "dog", "eel"), "classes matched by name: bee, cat taken over; dog, eel begin anew"),
        (("ant", "cat", "dog"), "classes matched by name: ant, cat taken over; dog begins anew"),
        (("ant", "bee"), "classes matched by name: ant, bee taken over"),
        (("cat", "bee", "ant"), "classes matched by name: cat, bee, ant taken over"),
        (("x", "y"), "none of its classes (ant, bee, cat) is in this run; all classes begin anew, the other weights"),
    ],
)
def test_classes_are_matched_by_name_and_one_line_says_which(checkpoint, names, said, capsys):
    source = torch.load(checkpoint, weights_only=True)["weights"]
    net = build_network(SETTINGS, 3, names, str(checkpoint))
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == bool(said)
    assert net.num_classes == len(names)
    table = source["fusion.embed.weight"]
    for number, name in enumerate(names):
        equal = [torch.equal(net.fusion.embed.weight[number], row) for row in table]
        assert equal == [name == other for other in ("ant", "bee", "cat")]
    assert torch.equal(net.head.conv.bias, source["head.conv.bias"])


def test_the_advice_can_be_followed(checkpoint, tmp_path):
    for name, value in (("nr_filters", 8), ("fusion", "film")):
        settings = dataclasses.replace(SETTINGS, **{name: value})
        with pytest.raises(UserError, match=f"this run has {value}; give --{name} {getattr(SETTINGS, name)}, or anoth"):
            load_initial_weights(str(checkpoint), settings, 3)
    with pytest.raises(UserError, match="is of RGB images, those of --dataset folder are gray; give another data set"):
        load_initial_weights(str(checkpoint), SETTINGS, 1)


@pytest.mark.parametrize(
    ("dataset", "trained_with", "holdout", "warned"),
    [
        ("folder", {"select_on": "validation"}, True, True),
        ("folder", {}, True, True),
        ("folder", {"select_on": "holdout"}, True, False),
        ("digits", {}, True, False),  # other images
        ("folder", {}, False, False),
    ],
)
def test_weights_that_were_trained_on_the_held_out_images_are_told(
    dataset, trained_with, holdout, warned, tmp_path, capsys
):
    about = {"image_size": (8, 8), "class_names": ("a", "b"), "dataset": dataset, "settings": trained_with}
    save_checkpoint(tmp_path / "x.pt", PixelCNN(1, 4, 2, 3, 2, fusion="middle"), **about)
    settings = dataclasses.replace(SETTINGS, select_on="holdout" if holdout else "validation")
    net = build_network(settings, 3, ("a", "b"), str(tmp_path / "x.pt"))
    told = capsys.readouterr().err
    assert told.startswith(f"warning: --load_params {tmp_path}/x.pt was trained on the images too") == warned
    assert bool(told) == warned == ("saw_held_out" in net.metadata)


def test_a_network_that_goes_on_from_others_says_what_they_have_seen(tmp_path, capsys):
    """However many runs ago: its own --select_on holdout does not undo it."""
    about = {"image_size": (8, 8), "class_names": ("a", "b"), "dataset": "folder"}
    holdout = dataclasses.replace(SETTINGS, select_on="holdout")
    origin = {"teacher": {"parameters": 5}, "saw_held_out": True}
    own = {"settings": {"select_on": "holdout"}, "temperature": 2.0, **origin}
    save_checkpoint(tmp_path / "x.pt", PixelCNN(1, 4, 2, 3, 2, fusion="middle"), **about, **own)
    net = build_network(holdout, 3, ("a", "b"), str(tmp_path / "x.pt"))
    assert net.metadata == origin and not holds_out(net)
    assert "was trained on the images too" in capsys.readouterr().err
    names = ("b", "c")  # classes matched by name
    assert build_network(holdout, 3, names, str(tmp_path / "x.pt")).metadata == origin


def test_starter_weights_do_not_say_what_they_were_trained_on(capsys):
    settings = TrainSettings(nr_resnet=1, nr_filters=8, nr_logistic_mix=3, select_on="holdout")
    build_network(settings, 3, "abcd", "tests/golden/starter_r1_f8_m3.pth")
    assert capsys.readouterr().err == ""
