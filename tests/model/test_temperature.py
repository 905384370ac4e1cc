"""The temperatures of a checkpoint."""

import math

import pytest

from model import PixelCNN
from model.temperature import posterior_temperature, sample_temperature
from utils.errors import UserError


@pytest.mark.parametrize(
    ("chosen", "entry"), [(posterior_temperature, "temperature"), (sample_temperature, "sample_temperature")]
)
def test_the_temperature_is_the_flag_s_or_the_checkpoint_s(chosen, entry):
    net = PixelCNN(1, 2, 1, 1, 3)
    net.metadata = {"temperature": 3.0, "sample_temperature": 3.0} | {entry: 7.5}
    assert chosen(None, net) == 7.5 and chosen(2.0, net) == 2.0
    net.metadata = {}
    assert chosen(None, net) == 1.0
    for bad in (0, -1, math.inf, math.nan, "x", None):
        net.metadata = {entry: bad}
        with pytest.raises(UserError, match=f"{entry} is not .*--temperature"):
            chosen(None, net)
