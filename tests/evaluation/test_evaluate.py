"""Bits per dimension and accuracy over every image."""

import math

import pytest
import torch

from data import ImageSet
from evaluation.evaluate import evaluate
from model import PixelCNN, class_log_likelihoods
from model.likelihood import bits_per_dim


@pytest.fixture
def split():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (7, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.tensor([0, 1, 2, 0, 1, 2, 0]), ("a", "b", "c"), tuple("1234567"))


def test_every_image_counts_whatever_the_batch_size(split):
    torch.manual_seed(0)
    net = PixelCNN(1, 8, 2, 3, 3)
    scores = class_log_likelihoods(net.eval(), split.images)
    nats = -torch.stack([row[label] for row, label in zip(scores, split.labels, strict=True)]).double().mean()
    for batch_size in (1, 2, 3, 7, 100, None):
        result = evaluate(net, split, batch_size=batch_size)
        assert result.bpd == pytest.approx(nats.item() / (3 * 8 * 8 * math.log(2)), rel=1e-5)
        assert torch.equal(result.predictions, scores.argmax(1))
        assert result.accuracy == pytest.approx((scores.argmax(1) == split.labels).double().mean().item())


def test_the_mode_of_the_network_is_left_alone_and_dropout_is_off(split):
    net = PixelCNN(1, 8, 2, 3, 3, dropout=0.9).train()
    assert evaluate(net, split).bpd == evaluate(net, split).bpd
    assert net.training


def test_uniform_noise_costs_eight_bits():
    """256 equally likely levels are 8 bits a value."""
    assert bits_per_dim(3 * 4 * 4 * math.log(256), (3, 4, 4)) == pytest.approx(8)


def test_bf16_is_close_to_fp32(split):
    torch.manual_seed(0)
    net = PixelCNN(1, 16, 2, 3, 3)
    assert evaluate(net, split, "bf16").bpd == pytest.approx(evaluate(net, split).bpd, rel=0.01)
