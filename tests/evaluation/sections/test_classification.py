import math

import pytest
import torch

from evaluation.sections.classification import accuracy_and_calibration, classification_metrics, compare
from evaluation.sections.report import Report

TRUTH = torch.tensor([0] * 10 + [1] * 10)


@pytest.fixture
def scores():
    """16 of 20 right: 9 of class 0 and 7 of class 1, with log-odds of 4 nats; the wrong ones have 1 nat."""
    predicted = torch.tensor([0] * 9 + [1] + [1] * 7 + [0] * 3)
    odds = torch.where(predicted == TRUTH, 4.0, 1.0)
    return odds[:, None] * torch.nn.functional.one_hot(predicted, 2).double()


def test_metrics_of_known_scores(scores):
    metrics, confidence = classification_metrics(scores, TRUTH, ("cat", "dog"))
    sure, unsure = (1 / (1 + math.exp(-odds)) for odds in (4, 1))
    assert metrics["images"] == 20 and metrics["accuracy"] == 0.8 and metrics["balanced_accuracy"] == pytest.approx(0.8)
    assert metrics["accuracy_low"] == pytest.approx(0.5840, abs=1e-4)  # Wilson's interval of 16 of 20
    assert metrics["accuracy_high"] == pytest.approx(0.9193, abs=1e-4)
    assert metrics["f1_cat"] == pytest.approx(18 / 22) and metrics["f1_dog"] == pytest.approx(14 / 18)
    assert metrics["negative_log_posterior"] == pytest.approx(-0.8 * math.log(sure) - 0.2 * math.log(1 - unsure))
    assert metrics["calibration_error"] == pytest.approx(0.8 * (1 - sure) + 0.2 * unsure, abs=1e-6)
    assert metrics["accuracy_at_coverage_0.8"] == 1 and metrics["accuracy_at_coverage_0.5"] == 1
    assert len(confidence) == 20


def test_the_temperature_of_an_image_does_not_depend_on_its_own_label(scores):
    _, confidence = classification_metrics(scores, TRUTH, ("cat", "dog"))
    for image in (0, 13):
        labels = TRUTH.clone()
        labels[image] = 1 - labels[image]
        assert classification_metrics(scores, labels, ("cat", "dog"))[1][image] == confidence[image]


def test_a_class_without_images_or_predictions_has_no_f1(scores):
    metrics, _ = classification_metrics(
        torch.cat([scores, torch.full((20, 1), -50.0, dtype=torch.float64)], 1), TRUTH, ("cat", "dog", "fox")
    )
    assert metrics["f1_fox"] is None and metrics["f1_cat"] == pytest.approx(18 / 22)


def test_two_networks_are_compared_on_the_same_images():
    report = Report(None, "Evaluation")
    first = torch.tensor([True] * 9 + [False] * 3).numpy()
    second = torch.tensor([True] * 4 + [False] * 5 + [True] + [False] * 2).numpy()
    compare({"a": first, "b": second}, report)
    assert report.tables["mcnemar"][1] == ("a", "b", "5", "1", "0.219")  # 2 (1 + 6) / 2^6
    assert report.metrics["a/classification/mcnemar_p_b"] == pytest.approx(14 / 64)


def test_accuracy_and_calibration_at_a_temperature(scores):
    accuracy, error = accuracy_and_calibration(scores, TRUTH, 1 / math.log(3))  # the wrong ones are sure to 0.75
    assert accuracy == 0.8 and error == pytest.approx(0.8 * (1 - 81 / 82) + 0.2 * 0.75, abs=1e-6)
