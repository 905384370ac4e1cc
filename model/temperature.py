"""The temperatures that a checkpoint brings along: of its posterior, and of its samples."""

import math

from model.pixelcnn import PixelCNN
from utils.errors import UserError


def posterior_temperature(given: float | None, net: PixelCNN) -> float:
    """The temperature of the posterior: the one given, or the checkpoint's, or 1. Raises UserError for a bad one."""
    return _temperature(given, net, "temperature")


def sample_temperature(given: float | None, net: PixelCNN) -> float:
    """The temperature of samples: the one given, or the checkpoint's, or 1. Raises UserError for a bad one."""
    return _temperature(given, net, "sample_temperature")


def _temperature(given: float | None, net: PixelCNN, entry: str) -> float:
    temperature = net.metadata.get(entry, 1.0) if given is None else given
    if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
        raise UserError(f"the checkpoint's {entry} is not a positive number; give --temperature")
    return float(temperature)
