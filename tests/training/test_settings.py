"""The settings of a training run."""

from typing import get_args, get_type_hints

from data import DATASETS
from training.settings import TrainSettings, tagged


def test_choices_are_those_of_the_code():
    assert set(get_args(get_type_hints(TrainSettings)["dataset"])) == set(DATASETS)


def test_tags():
    free, machine, folder = map(tagged, ("free", "machine", "folder"))
    assert folder == {"save_dir", "run_dir", "sample_dir"} and folder < machine & free
    assert machine - free == {"load_params", "teacher"}  # other networks, which a run depends on
    assert {"lr", "seed", "batch_size", "precision", "dataset", "fusion"}.isdisjoint(free | machine)
