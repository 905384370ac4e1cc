"""The pretrained checkpoints, which classify.py and generate.py take by default."""

import csv
import os

import pytest
from PIL import Image

from data import load_split
from evaluation.evaluate import evaluate
from evaluation.protocol import chosen_on, holds_out
from model import load_checkpoint
from model.checkpoint import PRETRAINED, PRETRAINED_SAMPLES
from model.temperature import sample_temperature


@pytest.mark.parametrize(("path", "accuracy"), [(PRETRAINED, 0.907), (PRETRAINED_SAMPLES, 0.897)])
def test_it_says_what_it_is(path, accuracy):
    net = load_checkpoint(path)
    assert net.class_names == ("burger", "panda", "koala", "pizza") and net.image_size == (32, 32)
    validation = net.metadata["validation"]
    assert validation["images"] == 519 and validation["accuracy"] >= accuracy and validation["bpd"] < 3.5
    assert net.metadata["temperature"] > 1 and net.metadata["settings"]["dataset"] == "cpen455"
    assert chosen_on(net) is None and not holds_out(net) and sample_temperature(None, net) == 0.9
    assert net.metadata["teacher"]["parameters"] == 971332
    assert os.path.getsize(path) < 20e6


def test_draw_and_label_with_no_checkpoint_named(script, tmp_path):
    drawn = script("generate.py", "--per_class", 1, "--classes", "pizza", "koala", "--out", tmp_path / "drawn")
    assert drawn.returncode == 0, drawn.stderr
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == ["koala_0001.png", "pizza_0001.png"]
    with Image.open(tmp_path / "drawn" / "pizza_0001.png") as image:
        assert image.size == (32, 32) and image.mode == "RGB"
    labelled = script("classify.py", tmp_path / "drawn", "--out", tmp_path / "labels.csv")
    assert labelled.returncode == 0, labelled.stderr
    with open(tmp_path / "labels.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["class_name"] for row in rows} <= {"burger", "panda", "koala", "pizza"} and len(rows) == 2
    assert all(0.25 <= float(row["confidence"]) <= 1 and 0 < float(row["bpd"]) < 8 for row in rows)


def test_each_script_takes_its_own(script):
    for name, default in (("classify.py", PRETRAINED), ("generate.py", PRETRAINED_SAMPLES)):
        assert f"checkpoint: {default}" in script(name, "--print_config").stdout.splitlines(), name


@pytest.mark.slow
@pytest.mark.parametrize("path", [PRETRAINED, PRETRAINED_SAMPLES])
def test_its_accuracy_is_what_it_says(cpen455, path):
    net = load_checkpoint(path)
    validation = net.metadata["validation"]
    evaluation = evaluate(net, load_split("cpen455", "validation", 32, cpen455), "fp32")
    assert abs(evaluation.accuracy - validation["accuracy"]) * 519 <= 1.0001
    assert evaluation.bpd == pytest.approx(validation["bpd"], abs=1e-3)
