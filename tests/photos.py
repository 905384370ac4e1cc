"""A network of three classes, photos of them, and the rows of a CSV of predictions."""

import csv

import pytest
import torch
from PIL import Image

from model import PixelCNN, save_checkpoint

NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    net = PixelCNN(1, 8, 2, 3, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    save_checkpoint(path, net, image_size=(8, 8), class_names=NAMES, dataset="folder")
    return path


@pytest.fixture
def photos(tmp_path):
    """Two images of each class, and one broken file."""
    generator = torch.Generator().manual_seed(0)
    for name in NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            pixels = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / name / f"{i}, x.png")
    return tmp_path / "photos"


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
