from types import SimpleNamespace

import pytest
import torch

from evaluation.sections.report import Report
from evaluation.sections.samples import DrawnFolder
from evaluation.sections.summary import describe, summary_table


def network(select_on: str | None, hold_out: bool = False, best_metric: str = "accuracy", **metadata):
    """A stand-in for a PixelCNN++ of a run, or for a baseline without ``select_on``."""
    net = torch.nn.Linear(3, 4)
    settings = {"select_on": select_on, "hold_out": hold_out, "best_metric": best_metric}
    net.metadata = {"settings": settings, **metadata}
    return SimpleNamespace(net=net, name="net", path="net.pt", sha256="0" * 64, generative=select_on is not None)


@pytest.mark.parametrize(
    ("select_on", "split", "words"),
    [
        ("validation", "validation", "epoch chosen on the validation images, which are judged here"),
        ("holdout", "validation", "epoch chosen on the holdout images"),
        ("holdout", "holdout", "which are judged here"),
        ("validation", "holdout", "it was trained on the images that are judged here"),
        ("holdout", "train", "it was trained on the images that are judged here"),
        (None, "validation", "last epoch"),
        (None, "holdout", "last epoch; **it was trained on the images that are judged here"),
    ],
)
def test_a_report_says_what_its_images_were_used_for(select_on, split, words):
    text = describe([network(select_on)], [], SimpleNamespace(judged=range(7), split=split, dataset="digits"))
    assert words in text and "7 " in text and "16 parameters" in text
    assert ("trained on" in text) == ("trained on" in words)


def test_a_baseline_without_the_held_out_images_is_judged_by_them():
    images = SimpleNamespace(judged=range(7), split="holdout", dataset="digits")
    assert "trained on" not in describe([network(None, hold_out=True)], [], images)


def test_a_network_of_the_last_epoch_is_not_optimistic():
    images = SimpleNamespace(judged=range(7), split="validation", dataset="digits")
    text = describe([network("validation", best_metric="last")], [], images)
    assert "last epoch" in text and "optimistic" not in text and "chosen" not in text


def test_a_report_says_that_a_network_had_a_teacher():
    images = SimpleNamespace(judged=range(7), split="validation", dataset="digits")
    texts = [describe([network("holdout", **more)], [], images) for more in ({}, {"teacher": {"parameters": 7}})]
    assert ["distilled" in text for text in texts] == [False, True]


def test_a_report_names_the_folders_of_samples():
    labels = torch.tensor([0, 1, -1])
    folder = DrawnFolder("theirs", "some/theirs", torch.zeros(3, 1, 4, 4, dtype=torch.uint8), labels, [])
    text = describe([], [folder], SimpleNamespace(judged=range(7), split="validation", dataset="digits"))
    assert "- theirs: 3 images of some/theirs, 1 of unknown class" in text


def test_the_table_has_what_was_measured():
    report = Report(None, "Evaluation")
    report.metric("net", "classification", {"accuracy": 0.86321, "f1": 0.5})
    report.metric("png", "likelihood", {"bpd": 6.678})
    report.metric("other", "unseen", {"auroc_digits_confidence": 0.1})
    assert summary_table(report).splitlines() == [
        "|  | accuracy | bits/dim |",
        "| --- | --- | --- |",
        "| net | 0.8632 |  |",
        "| png |  | 6.678 |",
    ]
