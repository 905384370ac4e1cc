"""Labelling: lists on the command line, temperatures, truth from folders, rows."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import evaluation.scoring
from data import ImageSet
from evaluation.evaluate import evaluate
from evaluation.images import Images, images_of_uploads, true_label
from evaluation.predictions import class_probabilities, label_batch, predict
from evaluation.scoring import MirrorScorer, Scorer
from model import PixelCNN, load_checkpoint, save_checkpoint
from utils.errors import DataError


def test_the_innermost_folder_named_after_a_class_is_the_truth():
    root = Path("r")
    assert true_label(root / "dog" / "cat" / "x" / "1.png", root, ["dog", "cat"]) == 1
    assert true_label(root / "cat.png", root, ["dog", "cat"]) == -1
    assert true_label(Path("cat/1.png"), Path("cat"), ["dog", "cat"]) == -1  # the folder that was given is no class


@settings(max_examples=25)
@given(st.lists(st.booleans(), max_size=9), st.integers(1, 4))
def test_every_image_has_its_own_row_whatever_is_broken(broken, batch_size):
    torch.manual_seed(0)
    net = PixelCNN(1, 2, 1, 1, 2).eval()
    pixels = torch.randint(0, 256, (len(broken), 1, 4, 4), dtype=torch.uint8)

    def read(i):
        if broken[i]:
            raise DataError(f"no {i}")
        return pixels[i]

    images = Images([str(i) for i in range(len(broken))], [i % 2 for i in range(len(broken))], read)
    rows = list(predict(Scorer(net, "fp32", batch_size), images))
    alone = Scorer(net, "fp32", 1)(pixels)
    assert [row.name for row in rows] == [str(i) for i in range(len(broken))]
    for i, row in enumerate(rows):
        assert row.truth == i % 2
        if broken[i]:
            assert row.error == f"no {i}" and row.label == -1
        else:
            assert row.log_likelihoods == pytest.approx(alone[i].tolist(), rel=1e-5) and not row.error


def test_temperature_moves_the_confidence_and_nothing_else():
    torch.manual_seed(0)
    net = PixelCNN(1, 2, 1, 1, 3).eval()
    pixels = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8)
    images = Images([str(i) for i in range(6)], [-1] * 6, pixels.__getitem__)
    prior = torch.tensor([0.2, 0.3, 0.5])
    sure, unsure = (list(predict(Scorer(net, "fp32"), images, prior, t)) for t in (1.0, 50.0))
    for one, other in zip(sure, unsure, strict=True):
        assert (one.label, one.second, one.bpd, one.log_likelihoods) == (
            other.label, other.second, other.bpd, other.log_likelihoods
        )  # fmt: skip
        expected = ((torch.tensor(one.log_likelihoods) + prior.log()) / 50).softmax(0)
        assert other.confidence == pytest.approx(expected[one.label].item(), rel=1e-4)
        assert expected.argsort(descending=True)[:2].tolist() == [one.label, one.second]
    assert list(predict(Scorer(net, "fp32"), images, prior, start=4)) == sure[4:]


TIED = st.lists(st.lists(st.integers(-2, 0), min_size=3, max_size=3), min_size=1, max_size=5)


@settings(max_examples=50)
@given(TIED)
def test_of_equal_classes_the_first_is_the_label_and_the_next_the_second(scores):
    pixels = torch.zeros(len(scores), 1, 4, 4, dtype=torch.uint8)
    batch = label_batch(lambda _: torch.tensor(scores, dtype=torch.float32), pixels, None, 1.0)
    for row, fields in zip(scores, batch, strict=True):
        order = sorted(range(3), key=lambda i: (-row[i], i))
        assert [fields["label"], fields["second"]] == order[:2]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
@pytest.mark.parametrize("tta", [False, True])
def test_without_a_class_in_the_network_training_and_classification_say_the_same(precision, tta, monkeypatch):
    """The first class, not that of rounding; "auto" on a pretended machine with bf16."""
    torch.manual_seed(0)
    net = PixelCNN(1, 8, 2, 3, 10, fusion="none").eval()
    split = ImageSet(torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8), torch.arange(12) % 10, (), ())
    if precision == "auto":
        monkeypatch.setattr(evaluation.scoring, "pick_precision", lambda *_: "bf16")
    evaluated = evaluate(net, split, precision, batch_size=5)
    assert evaluated.predictions.tolist() == [0] * 12 and evaluated.accuracy == 2 / 12
    scorer = Scorer(net, precision, batch_size=7)
    assert not scorer.rescores  # in other batches than the rest
    images = Images([str(i) for i in range(12)], split.labels.tolist(), split.images.__getitem__)
    rows = list(predict(MirrorScorer(scorer) if tta else scorer, images))
    assert all((row.label, row.second, row.confidence) == (0, 1, pytest.approx(0.1)) for row in rows)
    (nats,) = {len(set(row.log_likelihoods)) for row in rows}
    assert nats == 1


def test_uploads_are_called_by_their_names_alone(tmp_path):
    torch.manual_seed(0)
    net = PixelCNN(1, 4, 1, 1, 2)
    save_checkpoint(tmp_path / "net.pt", net, image_size=(8, 8), class_names=("a", "b"), dataset="x")
    net = load_checkpoint(tmp_path / "net.pt")
    for name in ("bad.png", "gone.png"):
        (tmp_path / "bad.png").write_bytes(b"PK")
        images = images_of_uploads([tmp_path / name], net)
        assert images.names == [name] and images.truth == [-1]
        with pytest.raises(DataError, match=rf"^{name}: not a readable image") as error:
            images.read(0)
        assert str(tmp_path) not in str(error.value) and error.value.__context__ is None


def test_the_probability_of_each_class():
    torch.manual_seed(0)
    scorer = Scorer(PixelCNN(1, 4, 1, 1, 3), image_size=(8, 8))
    images = Images(["x"], [-1], lambda i: torch.zeros(1, 8, 8, dtype=torch.uint8))
    prior = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    (prediction,) = predict(scorer, images, prior, 2.0)
    probabilities = class_probabilities(prediction, prior, 2.0)
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities[prediction.label] == prediction.confidence == max(probabilities)
