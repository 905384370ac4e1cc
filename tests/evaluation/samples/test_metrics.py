"""The cheap metrics of samples together."""

import pytest
import torch

from data import load_split
from evaluation.metrics import METRICS, SAMPLE_METRICS
from evaluation.samples.distances import frechet_distance, kernel_distance
from evaluation.samples.features import EfficientNetFeatures
from evaluation.samples.metrics import SampleMetrics


@pytest.fixture(scope="module")
def digits():
    return load_split("digits", "validation")


def test_the_metrics_are_those_of_the_parts(digits):
    real, samples, labels = digits.images[:40], digits.images[40:60], torch.tensor([0, 1] * 10)
    report = SampleMetrics(real, (3, 5)).measure(samples, labels)
    network = EfficientNetFeatures()
    ours, theirs = network(samples), network(real)
    assert tuple(report) == SAMPLE_METRICS and report.keys() < METRICS.keys()
    pooled = ours.pooled.numpy(), theirs.pooled.numpy()
    assert report["frechet_distance"] == pytest.approx(frechet_distance(*pooled))
    assert report["kernel_distance"] == pytest.approx(kernel_distance(*pooled))
    preferred = (ours.logits[:, 5] > ours.logits[:, 3]).long()
    assert report["class_agreement"] == (preferred == labels).double().mean().item()


def test_real_images_are_not_derailed_and_noise_is(digits):
    real = digits.images[:40]
    noise = torch.randint(0, 2, (10, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8) * 255
    metrics = SampleMetrics(real, None)
    alike = metrics.measure(real, digits.labels[:40])
    assert alike["derailed"] == 0 and alike["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert "class_agreement" not in alike
    mixed = metrics.measure(torch.cat([real[:10], noise]), digits.labels[:20])
    assert mixed["derailed"] == 0.5 and mixed["frechet_distance"] > 1
