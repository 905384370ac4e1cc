"""Distances of features, against closed forms and pytorch-fid's own function."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from evaluation.fid_statistics import gaussian
from evaluation.samples.distances import (
    Distances,
    Reference,
    frechet_distance,
    jackknife_interval,
    kernel_distance,
)


def draw(seed: int, count: int, dims: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return shift + scale * rng.standard_normal((count, dims)) @ rng.standard_normal((dims, dims))


def test_frechet_distance_of_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20000, 3)) * [1.0, 2.0, 0.5] + [0.5, 0.0, -1.0]
    y = rng.standard_normal((30000, 3)) * [2.0, 2.0, 1.5]
    # |m1 - m2|^2 + the squared differences of the standard deviations
    assert frechet_distance(x, y) == pytest.approx(1.25 + 1.0 + 0.0 + 1.0, rel=0.02)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y), rel=1e-9)


@pytest.mark.parametrize(("samples", "reference"), [(90, 200), (200, 90), (90, 90)])
def test_frechet_distance_is_that_of_pytorch_fid_with_more_images_than_dimensions(samples, reference):
    from pytorch_fid.fid_score import calculate_frechet_distance

    x, y = draw(1, samples, 16, shift=1.0), draw(2, reference, 16, scale=2.0)
    expected = calculate_frechet_distance(*gaussian(x), *gaussian(y))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("samples", "reference"), [(12, 15), (15, 12), (12, 90), (90, 12)])
def test_frechet_distance_is_exact_with_fewer_images_than_dimensions(samples, reference):
    x, y = draw(3, samples, 40), draw(4, reference, 40, shift=0.5)
    (mean, sigma), (other, theirs) = gaussian(x), gaussian(y)
    roots = np.sqrt(np.linalg.eigvals(sigma @ theirs).astype(complex)).real.sum()
    expected = ((mean - other) ** 2).sum() + np.trace(sigma) + np.trace(theirs) - 2 * roots
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_a_set_has_no_frechet_distance_to_itself():
    for count in (10, 60):
        x = draw(5, count, 20)
        assert abs(frechet_distance(x, x)) < 1e-10 * x.var(axis=0).sum()
        assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-10 * x.var(axis=0).sum())


def test_kernel_distance_is_unbiased():
    """Of (xy + 1)^3 in one dimension it is (m3 - n3)^2 + 3 (m2 - n2)^2 + 3 (m1 - n1)^2, m and n the moments."""
    rng = np.random.default_rng(6)
    for mean, deviation in ((0.0, 1.0), (0.3, 0.8)):
        draws = [
            kernel_distance(mean + deviation * rng.standard_normal((6, 1)), rng.standard_normal((9, 1)))
            for _ in range(3000)
        ]
        square, cube = mean**2 + deviation**2, mean**3 + 3 * mean * deviation**2
        expected = cube**2 + 3 * (square - 1) ** 2 + 3 * mean**2
        assert abs(np.mean(draws) - expected) < 4 * np.std(draws) / np.sqrt(len(draws))
        assert min(draws) < 0


def test_kernel_distance_is_the_mean_over_pairs():
    x, y = draw(7, 5, 3), draw(8, 4, 3)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    among = [np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    between = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(sum(among) - 2 * between)


def test_distances_of_chosen_samples_are_those_of_their_features():
    x, y = draw(9, 30, 12), draw(10, 2000, 12)
    distances, chosen = Distances(x, Reference(y)), np.array([4, 28, 0, 11, 17])
    assert distances.frechet(chosen) == pytest.approx(frechet_distance(x[chosen], y))
    assert distances.kernel(chosen) == pytest.approx(kernel_distance(x[chosen], y))


def test_a_set_of_one_image_is_refused():
    x = draw(11, 5, 3)
    with pytest.raises(ValueError, match="1 images"):
        frechet_distance(x[:1], x)
    with pytest.raises(ValueError, match="1 images"):
        frechet_distance(x, x[:1])
    with pytest.raises(ValueError, match="2 images"):
        jackknife_interval(Distances(x[:2], x).frechet, 2)


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(12).standard_normal(15)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert jackknife_interval(lambda chosen: values[chosen].mean(), 15) == pytest.approx(tuple(expected))


def test_the_size_of_a_group_is_no_variance():
    """47 samples make groups of two and three; of a bias of 1 / N nothing is left."""
    assert jackknife_interval(lambda chosen: 3 + 5 / len(chosen), 47) == pytest.approx((3 + 5 / 47, 3 + 5 / 47))


@pytest.mark.parametrize("distance", ["frechet", "kernel"])
def test_intervals_cover_the_expected_distance(distance):
    """95 % by design, of 200 draws with fewer images than dimensions; see docs/log.md for more."""
    rng = np.random.default_rng(13)
    reference = Reference(rng.standard_normal((40, 60)))
    values, intervals = [], []
    for _ in range(200):
        measure = getattr(Distances(1.2 * rng.standard_normal((30, 60)) + 0.1, reference), distance)
        values.append(measure())
        intervals.append(jackknife_interval(measure, 30))
    covered = np.mean([low <= np.mean(values) <= high for low, high in intervals])
    assert 0.9 < covered <= 1
    half = np.mean([high - low for low, high in intervals]) / 2
    assert half < 2 * 1.96 * np.std(values)  # not by being wide


def test_samples_of_equal_number_per_class_have_a_shorter_interval():
    rng, labels = np.random.default_rng(14), np.arange(60) % 3
    x = rng.standard_normal((60, 10)) + 3 * labels[:, None]
    measure = Distances(x, rng.standard_normal((50, 10))).frechet
    (low, high), (lowest, highest) = (jackknife_interval(measure, 60, given) for given in (labels, None))
    assert high - low < 0.5 * (highest - lowest)
