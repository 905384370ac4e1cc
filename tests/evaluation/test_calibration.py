"""Calibration error, temperature scaling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation.calibration import (
    accuracy_by_coverage,
    cross_fitted_confidence,
    expected_calibration_error,
    fit_temperature,
    reliability_diagram,
)
from model import posterior


@given(st.lists(st.floats(-1e4, 0), min_size=2, max_size=6), st.floats(0.1, 1e4))
def test_temperature_leaves_the_order_alone(log_likelihoods, temperature):
    nats = torch.tensor([log_likelihoods], dtype=torch.float64)
    scaled = posterior(nats, None, temperature)[0]
    assert scaled[nats[0].argmax()] == scaled.max()
    assert scaled.sum().item() == pytest.approx(1)
    assert (scaled[nats[0].argsort()].diff() >= 0).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 40.0])
def test_a_known_temperature_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    nats = torch.randn(20000, 4, generator=generator, dtype=torch.float64) * 2 * temperature
    labels = torch.multinomial((nats / temperature).softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(nats, labels) == pytest.approx(temperature, rel=0.05)


def log_likelihoods_of(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random log-likelihoods of 3 classes, 20 times too far apart, and their labels."""
    generator = torch.Generator().manual_seed(0)
    nats = torch.randn(count, 3, generator=generator, dtype=torch.float64) * 2
    return nats * 20, torch.multinomial(nats.softmax(1), 1, generator=generator)[:, 0]


def test_two_images_are_each_judged_by_the_other():
    nats, labels = log_likelihoods_of(2)
    labels[1] = nats[1].argmin()  # the two temperatures differ
    ones = [fit_temperature(nats[[i]], labels[[i]]) for i in (1, 0)]
    expected = [posterior(nats[[i]], None, t).max().item() for i, t in enumerate(ones)]
    assert expected[0] != pytest.approx(expected[1], abs=0.1)
    assert cross_fitted_confidence(nats, labels).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("folds", "sizes"), [(2, {11, 12}), (5, {4, 5}), (50, {1})])
def test_no_image_has_a_part_in_its_own_temperature(folds, sizes):
    """Another label of an image changes the confidence of all others but those of its own part."""
    nats, labels = log_likelihoods_of(23)
    before = cross_fitted_confidence(nats, labels, folds)
    assert before.shape == (23,) and before.dtype == torch.float64
    for i in (0, 11, 22):
        changed = labels.clone()
        changed[i] = (labels[i] + 1) % 3
        after = cross_fitted_confidence(nats, changed, folds)
        assert after[i] == before[i] and (after == before).sum().item() in sizes


def test_of_many_images_it_is_the_confidence_at_the_temperature_of_all():
    nats, labels = log_likelihoods_of(5000)
    assert fit_temperature(nats, labels) == pytest.approx(20, rel=0.1)
    at_all = posterior(nats, None, fit_temperature(nats, labels)).amax(dim=1)
    crossed = cross_fitted_confidence(nats.float(), labels)
    assert (crossed - at_all).abs().max() < 0.02 and not torch.equal(crossed, at_all)
    assert expected_calibration_error(crossed.tolist(), (nats.argmax(1) == labels).tolist()) < 0.03


def test_a_single_image_has_temperature_1():
    nats = torch.tensor([[0.0, -1.0]])
    assert cross_fitted_confidence(nats, torch.tensor([1])).tolist() == pytest.approx([1 / (1 + np.exp(-1))])


def test_calibration_error_by_hand():
    # one bin of four at 0.95, half of them right; one of two at 0.55, both right
    confidence, correct = [0.95] * 4 + [0.55] * 2, [True, True, False, False, True, True]
    assert expected_calibration_error(confidence, correct, 10) == pytest.approx(4 / 6 * 0.45 + 2 / 6 * 0.45)
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0
    assert expected_calibration_error([1.0], [False]) == 1


def test_calibrated_posteriors_have_a_small_error():
    generator = torch.Generator().manual_seed(0)
    probabilities = (torch.randn(20000, 4, generator=generator) * 2).softmax(1)
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    confidence, predicted = probabilities.max(1)
    assert expected_calibration_error(confidence.numpy(), (predicted == labels).numpy()) < 0.015


def test_coverage_ends_at_the_accuracy_and_begins_with_the_surest():
    kept, accuracy = accuracy_by_coverage([0.5, 0.9, 0.7, 0.6], [False, True, True, False])
    assert kept.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert np.allclose(accuracy, [1, 1, 2 / 3, 0.5])


def test_the_picture(tmp_path):
    for confidence, correct in (([0.3, 0.8, 1.0], [True, False, True]), ([1.0], [False])):
        reliability_diagram(confidence, correct, tmp_path / "r.png")
        with Image.open(tmp_path / "r.png") as picture:
            assert picture.format == "PNG" and picture.width > 500
