"""The images of a run."""

import pytest
import torch

from data import ImageSet
from training import batches
from training.settings import TrainSettings
from utils.errors import UserError


def test_fewer_images_than_processes_is_one_line(monkeypatch):
    split = ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0]), ("a", "b"), tuple("123"))
    monkeypatch.setattr(batches, "world_size", lambda: 4)
    with pytest.raises(UserError, match="3 training images are fewer than the 4 processes"):
        batches.Batches(split, TrainSettings(), torch.device("cpu"))
    monkeypatch.setattr(batches, "world_size", lambda: 3)
    assert batches.Batches(split, TrainSettings(), torch.device("cpu")).per_epoch == 1
