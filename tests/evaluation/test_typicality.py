"""Scores of typicality, their AUROC and the reference in a checkpoint."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation.lossless import compressed_bits
from evaluation.typicality import (
    auroc,
    input_complexity,
    log_evidence,
    scores,
    stored_reference,
    typicality,
    typicality_reference,
    typicality_warning,
)
from model import PixelCNN
from utils.errors import CheckpointError, UserError


def some(count: int, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images from plain to noisy, and log-likelihoods of three classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator)
    images = images * torch.arange(count).view(-1, 1, 1, 1) // count
    return images.to(torch.uint8), -400 - 300 * torch.rand(count, 3, generator=generator)


def test_evidence_is_the_mean_probability_of_the_classes():
    nats = torch.tensor([[0.5, 0.25], [1.0, 1.0]]).log()
    assert log_evidence(nats).tolist() == pytest.approx([math.log(0.375), 0.0], abs=1e-7)
    far = torch.tensor([[-9000.0, -9001.0]])  # whose probabilities are 0 in floating point
    assert log_evidence(far).item() == pytest.approx(-9000 + math.log1p(math.exp(-1)) - math.log(2))


def test_scores_by_hand():
    nats = torch.tensor([[-192 * math.log(2), -math.inf], [-384 * math.log(2)] * 2])
    found = scores(torch.tensor([576.0, 96.0]), nats, (3, 8, 8))  # 192 values
    assert found["log_likelihood"].tolist() == pytest.approx([-1 - 1 / 192, -2])
    assert found["input_complexity"].tolist() == pytest.approx([2 - 1 / 192, -1.5])
    assert found["confidence"].tolist() == pytest.approx([1, 0.5])
    milder = scores(torch.zeros(1), torch.tensor([[0.0, -30.0]]), (3, 8, 8), temperature=10.0)
    assert milder["confidence"].item() == pytest.approx(1 / (1 + math.exp(-3)))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_auroc_is_the_share_of_pairs_that_are_in_order(inside, outside):
    pairs = [(i > o) + 0.5 * (i == o) for i in inside for o in outside]
    assert auroc(inside, outside) == pytest.approx(sum(pairs) / len(pairs))


def test_auroc_by_hand():
    assert auroc([3.0, 2.0], [1.0, 2.0]) == 0.875
    assert auroc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1 and auroc([0], [1]) == 0


def test_the_typicality_of_the_reference_images_is_uniform():
    images, nats = some(40)
    reference = typicality_reference(images, nats)
    assert reference["images"] == 40 and reference["score"] == "input_complexity"
    found = typicality(reference, images, nats)
    assert found.sort().values.tolist() == pytest.approx([i / 40 for i in range(40)])
    order = input_complexity(compressed_bits(images, "webp"), nats, (3, 8, 8)).argsort()
    assert found[order].tolist() == found.sort().values.tolist()  # the higher the score, the more typical
    assert typicality(reference, images[:2], nats[:2] - 1e4).tolist() == [0, 0]
    assert typicality(reference, images[:2], nats[:2] + 1e4).tolist() == [1, 1]
    assert typicality(reference, images[:1], torch.full((1, 3), math.nan)).isnan().all()


def test_of_many_images_a_thousand_quantiles_are_kept():
    images, nats = some(2500, 4)
    reference = typicality_reference(images, nats)
    assert reference["values"].shape == (1000,) and reference["images"] == 2500
    found = typicality(reference, images, nats).sort().values
    assert (found - torch.arange(2500) / 2500).abs().max() < 0.002


def test_without_a_finite_score_there_is_no_reference():
    images, nats = some(3)
    nats[1] = math.nan
    assert typicality_reference(images, nats) is None and typicality_reference(images[:0], nats[:0]) is None


def test_without_webp_it_is_png(monkeypatch):
    images, nats = some(3)
    assert typicality_reference(images, nats)["format"] == "webp"
    with_webp = typicality_reference(images, nats)
    monkeypatch.setattr(Image, "SAVE", {name: save for name, save in Image.SAVE.items() if name != "WEBP"})
    assert typicality_reference(images, nats)["format"] == "png"
    net = PixelCNN(1, 2, 1, 3, 3)
    net.metadata = {"typicality": with_webp}
    with pytest.raises(UserError, match="Pillow cannot write WEBP here"):  # before any image is classified
        stored_reference(net)


GOOD = {"score": "input_complexity", "format": "png", "images": 2, "values": torch.tensor([1.0, 2.0])}


@pytest.mark.parametrize(
    "bad",
    [
        7,
        "values",
        {},
        GOOD | {"score": "confidence"},
        GOOD | {"format": "bmp"},
        GOOD | {"format": ["png"]},
        GOOD | {"values": [1.0, 2.0]},
        GOOD | {"values": torch.tensor([2.0, 1.0])},
        GOOD | {"values": torch.tensor([1.0, math.nan])},
        GOOD | {"values": torch.tensor([[1.0]])},
        GOOD | {"values": torch.tensor([1, 2])},
        GOOD | {"values": torch.zeros(0)},
        GOOD | {"values": torch.zeros(1).expand(10**12)},  # a few bytes in the file
        GOOD | {"values": torch.zeros(2).to_sparse()},
        GOOD | {"values": torch.zeros(2, device="meta")},
    ],
)
def test_a_damaged_reference_is_one_line(bad):
    net = PixelCNN(1, 2, 1, 3, 3)
    net.metadata = {"typicality": bad}
    with pytest.raises(CheckpointError, match=r"damaged, or of another program.*training\.export_checkpoint") as caught:
        stored_reference(net)
    assert len(str(caught.value).splitlines()) == 1


def test_the_reference_of_a_checkpoint():
    net = PixelCNN(1, 2, 1, 3, 3)
    net.metadata = {"typicality": GOOD}
    assert stored_reference(net, 0.05) is GOOD
    for metadata in ({}, {"typicality": None}):
        net.metadata = metadata
        assert stored_reference(net) is None
        with pytest.raises(UserError, match=r"--reject: .* no reference of typicality; .*export_checkpoint"):
            stored_reference(net, 0.05)


def test_a_warning_about_odd_images():
    assert "like nothing the network has seen" in typicality_warning(0.0)
    assert "only 2.0% of the images" in typicality_warning(0.02)
    assert typicality_warning(0.05) == typicality_warning(1.0) == typicality_warning(math.nan) == ""
