"""What a run prints of its classes and its best epoch."""

import torch

from data import ImageSet
from training.progress import best_line, class_counts, epoch_line


def test_classes_are_in_order_with_their_counts():
    labels = torch.tensor([0] * 16 + [2] * 3)
    split = ImageSet(torch.zeros(19, 1, 4, 4), labels, ("1", "10", "2"), ("x",) * 19)
    assert class_counts(split) == "1: 16, 10: 0, 2: 3"
    many = ImageSet(torch.zeros(19, 1, 4, 4), labels, tuple(str(i) for i in range(1000)), ("x",) * 19)
    assert class_counts(many).endswith(", 19: 0 and 980 more classes of 0 to 0 images")


def test_the_best_epoch_is_told_by_its_metric():
    assert best_line("f1", (0.5, -3.25), "validation") == "best validation macro F1 0.5000 (at 3.250 bits/dim)"
    assert best_line("last", (7, -3.25), "held-out") == "best.pt is of epoch 7, the last, with 3.250 held-out bits/dim"
    assert best_line("bpd", (-3.25, -3.25), "held-out") == "best held-out bits/dim 3.250"


def test_the_line_of_an_epoch_names_the_images():
    scores = {"val_bpd": 3.5, "accuracy": 0.5, "balanced_accuracy": 0.4, "f1": 0.3}
    report = {"epoch": 1, "train_bpd": 3.6, "lr": 0.1, "seconds": 2.0, **scores}
    shown = "epoch 1/2  train 3.600  held-out 3.500 bits/dim, accuracy 0.5000 (balanced 0.4000), macro F1 0.3000"
    assert epoch_line(report, 2, "held-out") == f"{shown}  lr 1.00e-01  2.0 s"
