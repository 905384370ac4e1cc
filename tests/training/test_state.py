"""What is read back from last.pt: whatever it holds, resuming works or ends in one line."""

import copy
import math

import pytest
import torch

from data import ImageSet
from model import PixelCNN, save_checkpoint
from training.resumed_images import image_list
from training.settings import TrainSettings
from training.state import TrainingState
from training.step import TrainingStep
from utils.errors import UserError

NAMES = ("ant", "bee")
SETTINGS = TrainSettings(nr_resnet=1, nr_filters=2, nr_logistic_mix=1, max_epochs=2, lr_schedule="cosine", ema=0.9)
IMAGES, LABELS = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
SPLIT = ImageSet(IMAGES, LABELS, NAMES, ("ant/1.png", "bee/1.png"))
IMAGE_LIST = image_list(SPLIT, SPLIT)


def new_state(total_steps: int = 20) -> TrainingState:
    torch.manual_seed(0)
    return TrainingState(TrainingStep(PixelCNN(1, 2, 1, 1, 2), SETTINGS, "fp32", total_steps))


def write(state: TrainingState, path, names=NAMES) -> None:
    about = {"image_size": (4, 4), "class_names": names, "dataset": "insects"}
    save_checkpoint(path, state.step.net, ema=state.step.averaged, **about, **state.state_dict())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A last.pt after three steps of the second epoch."""
    state = new_state()
    for _ in range(10):
        state.step(IMAGES, LABELS, 0)
        state.advance(2)
    state.best = (0.5, -3.0)
    state.next_epoch({"epoch": 1, "accuracy": 0.5, "val_bpd": 3.0, "fid_error": "no weights"})
    for _ in range(3):
        state.step(IMAGES, LABELS, 0)
        state.advance(2)
    path = tmp_path_factory.mktemp("state") / "last.pt"
    write(state, path)
    return path


def test_everything_comes_back(saved, capsys):
    state = new_state()
    state.restore(saved, NAMES, IMAGE_LIST)
    assert (state.epoch, state.total_steps, state.epoch_images, state.epoch_steps) == (2, 13, 6, 3)
    assert state.best == (0.5, -3.0) and state.reports[0]["fid_error"] == "no weights"
    before = torch.load(saved, weights_only=True)
    after = state.state_dict()
    assert after["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
    assert after["scheduler"] == before["scheduler"] and after["progress"].keys() == before["progress"].keys()
    moments = zip(after["optimizer"]["state"].values(), before["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(ours[name], theirs[name]) for ours, theirs in moments for name in theirs)
    assert capsys.readouterr().err == ""


ENTRIES = [
    *((name,) for name in ("weights", "ema", "ema_updates", "optimizer", "scheduler", "scaler", "progress", "best")),
    *(("progress", name) for name in ("sums", "epoch", "images", "steps", "step", "seconds")),
    *(("optimizer", name) for name in ("state", "param_groups")),
    *(("optimizer", "state", 0, name) for name in ("step", "exp_avg", "exp_avg_sq")),
    ("optimizer", "state", 0),
    ("optimizer", "param_groups", 0, "lr"),
    ("scheduler", "last_epoch"),
    ("best", 0),
    ("metrics",),
    ("metrics", 0),
    ("metrics", 0, "epoch"),
    ("metrics", 0, "accuracy"),
    ("class_names",),
    ("class_names", 0),
    ("weights", "head.conv.bias"),
    ("ema", "head.conv.bias"),
]
VALUES = [
    "2",
    "many\nlines",
    -7,
    2.5,
    float("nan"),
    None,
    [],
    [1],
    {},
    {"a": 1},
    torch.ones(3),
    torch.ones((), dtype=int),
]
TAKEN = {  # values that are possible there; scaler is read in fp16 alone
    ("scaler",): [*map(repr, VALUES), "missing"],
    ("best",): ["None"],
    ("progress", "seconds"): ["2.5"],
    ("optimizer", "state"): ["{}"],
    ("optimizer", "state", 0): ["missing"],
    ("optimizer", "state", 0, "step"): ["tensor(1)"],
    ("optimizer", "param_groups", 0, "lr"): ["2.5"],
    ("best", 0): ["-7", "2.5"],
    ("metrics",): ["[]", "{}"],
    ("metrics", 0): ["missing"],
    ("metrics", 0, "epoch"): ["-7"],
    ("metrics", 0, "accuracy"): ["-7", "2.5", "nan", "None", "missing"],
    ("weights", "head.conv.bias"): ["tensor([1., 1., 1.])"],
    ("ema", "head.conv.bias"): ["tensor([1., 1., 1.])"],
}


@pytest.mark.filterwarnings("ignore")  # torch warns of an index that is a tensor
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: ".".join(map(str, entry)))
def test_a_value_of_another_kind_is_one_line(saved, tmp_path, entry):
    good = torch.load(saved, weights_only=True)
    state = new_state()
    taken = []
    for value in [*VALUES, "missing"]:
        content = copy.deepcopy(good)
        *place, last = entry
        inside = content
        for key in place:
            inside = inside[key]
        if value == "missing":
            inside.pop(last)
        else:
            inside[last] = value
        path = tmp_path / "last.pt"
        torch.save(content, path)
        try:
            state.restore(path, NAMES, IMAGE_LIST)
        except UserError as error:
            assert "last.pt" in str(error) and "\n" not in str(error)
            continue
        state.step(IMAGES, LABELS, 0)  # what was taken can be used
        taken.append(value if value == "missing" else repr(value))
    assert taken == TAKEN.get(entry, [])


@pytest.mark.parametrize("names", [("ant", "cat"), ("bee", "ant"), ("ant",), ("ant", "bee", "cat")])
def test_a_run_of_other_classes_is_not_resumed(saved, names):
    """A folder to which a class was added, say: the weights of one class would be another's."""
    with pytest.raises(UserError, match="has other classes than these images"):
        new_state().restore(saved, names, IMAGE_LIST)


def test_another_end_of_the_cosine_is_said_and_holds_from_the_next_step_on(saved, capsys):
    state = new_state(total_steps=40)
    state.restore(saved, NAMES, IMAGE_LIST)
    assert "now ends after 40 steps, 2 epochs: here the learning rate changes from 5.46e-05 to 1.52e-04" in (
        capsys.readouterr().err
    )
    rates = []
    for _ in range(2):
        rates.append(state.step.optimizer.param_groups[0]["lr"])
        state.step(IMAGES, LABELS, 0)
    expected = [2e-4 * 0.5 * (1 + math.cos(math.pi * step / 40)) for step in (13, 14)]
    assert rates == pytest.approx(expected)
