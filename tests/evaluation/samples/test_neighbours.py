"""Precision, recall, density and coverage."""

import numpy as np
import pytest

from evaluation.metrics import wilson_interval
from evaluation.samples.neighbours import neighbourhoods


@pytest.mark.parametrize(("samples", "reference", "dims", "k"), [(60, 80, 10, 5), (90, 40, 3, 3), (50, 50, 200, 1)])
def test_the_metrics_are_those_of_prdc(samples, reference, dims, k):
    from prdc import compute_prdc

    rng = np.random.default_rng(dims)
    x, y = 0.9 * rng.standard_normal((samples, dims)), 0.1 + rng.standard_normal((reference, dims))
    found = neighbourhoods(x, y, k)
    assert found.means() == pytest.approx(compute_prdc(y, x, k))
    assert found.precision.shape == found.density.shape == (samples,)
    assert found.recall.shape == found.coverage.shape == (reference,)


def test_samples_inside_outside_and_with_a_mode_dropped():
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((40, 4)), rng.standard_normal((40, 4)) + 100
    both = np.concatenate([one, two])
    inside = {"precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}
    assert neighbourhoods(both, both).means() == pytest.approx(inside, rel=0.01)  # k-th neighbours are on the surface
    outside = {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}
    assert neighbourhoods(both + 1000, both).means() == outside
    dropped = neighbourhoods(one, both)
    assert dropped.means()["precision"] == 1.0
    assert dropped.recall.tolist() == dropped.coverage.tolist() == [True] * 40 + [False] * 40
    invented = neighbourhoods(both, one)
    assert invented.precision.tolist() == [True] * 40 + [False] * 40 and invented.means()["recall"] == 1.0


def test_outliers_of_the_reference_deceive_precision_more_than_density():
    rng = np.random.default_rng(1)
    reference = np.concatenate([rng.standard_normal((60, 2)), [[0.0, 30.0]]])  # one large ball
    around = rng.standard_normal((60, 2)) + np.array([0, 12])
    means = neighbourhoods(around, reference).means()
    assert means["precision"] == 1.0 and means["density"] == pytest.approx(1 / 5)
    assert means["coverage"] == pytest.approx(1 / 61)


def test_intervals():
    rng = np.random.default_rng(2)
    found = neighbourhoods(rng.standard_normal((200, 3)), 0.5 + rng.standard_normal((300, 3)))
    means, intervals = found.means(), found.intervals()
    assert intervals.keys() == means.keys()
    assert all(low < means[name] < high for name, (low, high) in intervals.items())
    assert intervals["recall"] == wilson_interval(int(found.recall.sum()), 300)
    low, high = intervals["density"]
    assert high - low == pytest.approx(2 * 1.96 * found.density.std() / np.sqrt(200), rel=0.1)


def test_too_few_images_are_refused():
    x = np.random.default_rng(3).standard_normal((6, 2))
    assert neighbourhoods(x, x).means()["precision"] == 1
    with pytest.raises(ValueError, match="5 samples and 6 reference images"):
        neighbourhoods(x[:5], x)
    with pytest.raises(ValueError, match="6 samples and 5 reference images"):
        neighbourhoods(x, x[:5])
