"""What the tests of both kinds of checkpoint share; the fixtures are in conftest.py."""

import pytest

from utils.errors import CheckpointError

ABOUT = {"image_size": (8, 12), "class_names": ("ant", "bee", "cat"), "dataset": "insects"}


def refuse(load, path, *args):
    """Loading ends in a CheckpointError of one line that names the file; the line is returned."""
    with pytest.raises(CheckpointError) as caught:
        load(path, *args)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message
