"""Agreement of another network with the classes asked for."""

import torch

from data import DATASETS
from data.cpen455 import CLASS_NAMES
from evaluation.samples.agreement import class_agreement


def test_the_largest_logit_among_the_classes_decides():
    logits = torch.zeros(3, 1000)
    logits[:, 7] = 9.0  # no class of the data set
    logits[0, 3], logits[1, 5], logits[2, 5] = 1.0, 1.0, 1.0
    assert class_agreement(logits, torch.tensor([0, 1, 0]), (3, 5)).tolist() == [True, True, False]


def test_each_class_of_a_data_set_has_its_imagenet_class():
    classes = DATASETS["cpen455"].imagenet_classes
    assert len(set(classes)) == len(CLASS_NAMES) and all(0 <= label < 1000 for label in classes)
    assert DATASETS["digits"].imagenet_classes is None
