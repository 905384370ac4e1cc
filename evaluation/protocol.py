"""Which images the epoch of a run is chosen on: the validation images, or training images that are held out."""

from typing import Any, Literal

from model import PixelCNN

SelectOn = Literal["validation", "holdout"]
IMAGES: dict[SelectOn, str] = {"validation": "validation", "holdout": "held-out"}  # as lines and figures call them
# begins the keys of the last report of a run for the validation images, where its epoch was chosen on others
VALIDATION = "validation_"
SAW_HELD_OUT = "saw_held_out"  # of a checkpoint: its first weights, or its teacher, were trained on the held-out images
ORIGIN = ("teacher", SAW_HELD_OUT)  # what a checkpoint says of where its weights come from; those that go on inherit it


def evaluated_on(net: Any) -> SelectOn:
    """The images that the run of a network of `load_checkpoint` evaluated after its epochs.

    An older checkpoint, and one that another program made, does not say: it means validation.
    """
    return "holdout" if trained_with(net).get("select_on") == "holdout" else "validation"


def chosen_on(net: PixelCNN) -> SelectOn | None:
    """The images on which the epoch of a network of `load_checkpoint` was chosen; None where it is the last one."""
    return None if trained_with(net).get("best_metric") == "last" else evaluated_on(net)


def holds_out(net: Any) -> bool:
    """Whether a network of `load_checkpoint` or `load_baseline` was trained without the images to hold out."""
    if net.metadata.get(SAW_HELD_OUT):
        return False
    return evaluated_on(net) == "holdout" or trained_with(net).get("hold_out") is True


def trained_with(net: Any) -> dict[str, Any]:
    """The settings of the run of a network; empty where its file, of another program, has none."""
    settings = net.metadata.get("settings")
    return settings if isinstance(settings, dict) else {}
