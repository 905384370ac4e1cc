"""Scores of labels, and the best of several reports."""

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from evaluation.metrics import (
    METRICS,
    best_key,
    best_report,
    classification_scores,
    mcnemar_test,
    ranking,
    wilson_interval,
)


@given(st.integers(1, 2000), st.data())
def test_wilson_interval(count, data):
    """(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n) with z = 1.96."""
    successes, z = data.draw(st.integers(0, count)), 1.959963984540054
    p, low, high = successes / count, *wilson_interval(successes, count)
    half = z * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    assert low == pytest.approx((p + z**2 / (2 * count) - half) / (1 + z**2 / count), abs=1e-9)
    assert high == pytest.approx((p + z**2 / (2 * count) + half) / (1 + z**2 / count), abs=1e-9)


def test_scores():
    scores = classification_scores([0, 0, 1, 1], [0, 0, 1, 0])
    assert scores.accuracy == 0.75 and scores.f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert scores.f1_per_class == {0: pytest.approx(0.8), 1: pytest.approx(2 / 3)}
    wrong = classification_scores([5], [2])
    assert (wrong.f1, wrong.balanced_accuracy, wrong.f1_per_class) == (0.0, 0.0, {2: 0.0, 5: 0.0})


def test_a_class_of_few_images_counts_like_the_others():
    scores = classification_scores([0] * 98 + [1, 1], [0] * 98 + [0, 1])
    assert scores.accuracy == 0.99 and scores.balanced_accuracy == 0.75
    assert classification_scores([0] * 9 + [1], [0] * 10).balanced_accuracy == 0.5  # all in one class


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_scores_are_those_of_scikit_learn_and_warn_of_nothing(pairs):
    truth, predicted = zip(*pairs, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = classification_scores(truth, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class, or of predicted classes without images
        assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, predicted))
        assert scores.f1 == pytest.approx(f1_score(truth, predicted, average="macro"))


REPORTS = [
    {"epoch": 1, "accuracy": 0.9, "balanced_accuracy": 0.5, "f1": 0.4, "val_bpd": 3.0},
    {"epoch": 2, "train_bpd": 3.0},
    {"epoch": 3, "accuracy": 0.8, "balanced_accuracy": 0.7, "f1": 0.5, "val_bpd": 3.5},
    {"epoch": 4, "accuracy": 0.8, "balanced_accuracy": 0.7, "f1": 0.6, "val_bpd": 3.2},
    {"epoch": 5, "accuracy": 0.1, "balanced_accuracy": 0.2, "f1": 0.1, "val_bpd": 2.0},
    {"epoch": 6, "accuracy": math.nan, "balanced_accuracy": math.nan, "f1": math.nan, "val_bpd": math.nan},
]


@pytest.mark.parametrize(
    ("best_metric", "epoch"), [("accuracy", 1), ("balanced_accuracy", 4), ("f1", 4), ("bpd", 5), ("last", 6)]
)
def test_the_best_epoch_is_that_of_the_metric_and_of_bits_per_dim_in_a_tie(best_metric, epoch):
    key, goal = best_key(best_metric)
    assert best_report(REPORTS, key, goal)["epoch"] == epoch
    by_rank = max((r for r in REPORTS if "accuracy" in r), key=lambda r: ranking(r, key, goal))
    assert by_rank["epoch"] == epoch


def test_what_is_no_number_is_the_worst():
    for key, metric in METRICS.items():
        worst, bad = ranking({key: math.nan}, key, metric.goal), ranking({key: 1.0}, key, metric.goal)
        assert worst < bad and not worst > worst


def test_reports_of_older_runs_have_a_best_epoch():
    older = [{"epoch": 1, "accuracy": 0.5, "val_bpd": 3.0}, {"epoch": 2, "accuracy": 0.6, "val_bpd": 3.0}]
    assert best_report(older, "accuracy", "maximize")["epoch"] == 2 and best_report(older, "f1", "maximize") is None


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3, as the next three
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_of_an_accuracy_is_the_published_one(correct, n, low, high):
    assert wilson_interval(correct, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    mirrored = wilson_interval(n - correct, n)
    assert mirrored == (pytest.approx(1 - high, abs=5e-5), pytest.approx(1 - low, abs=5e-5))


def test_titles_name_the_images():
    assert METRICS["accuracy"].of("held-out") == "held-out accuracy" and METRICS["fid"].of("validation") == "FID"


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (121, 59, 4.434449263755163e-06),  # the exact test in the documentation of statsmodels
        (59, 121, 4.434449263755163e-06),
        (1, 9, 22 / 1024),  # 2 (1 + 10) / 2^10
        (4, 4, 1),
        (0, 0, 1),
    ],
)
def test_the_exact_test_of_mcnemar(only_first, only_second, p):
    assert mcnemar_test(only_first, only_second) == pytest.approx(p, rel=1e-9)
