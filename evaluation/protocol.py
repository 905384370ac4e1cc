"""Which images the epoch of a run is chosen on: the validation images, or training images that are held out."""

from typing import Literal

from model import PixelCNN

SelectOn = Literal["validation", "holdout"]
IMAGES: dict[SelectOn, str] = {"validation": "validation", "holdout": "held-out"}  # as lines and figures call them
# begins the keys of the last report of a run for the validation images, where its epoch was chosen on others
VALIDATION = "validation_"


def chosen_on(net: PixelCNN) -> SelectOn:
    """The images on which the epoch of a network of `load_checkpoint` was chosen.

    An older checkpoint, and one that another program made, does not say: it means validation.
    """
    settings = net.metadata.get("settings")
    held_out = isinstance(settings, dict) and settings.get("select_on") == "holdout"
    return "holdout" if held_out else "validation"
