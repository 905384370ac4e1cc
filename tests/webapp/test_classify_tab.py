import csv
from dataclasses import replace

import pytest
import torch
from PIL import Image

import classify
from evaluation.prediction_file import read_csv
from model import class_log_likelihoods, save_checkpoint
from utils.errors import UserError
from webapp.classify import MAX_PHOTOS, Classifier


@pytest.fixture
def classifier(net, turns):
    return Classifier(net, turns)


@pytest.fixture
def photos(tmp_path):
    """Two photos, and between them a file that is none."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    for number, name in enumerate(("a.png", "c.png")):
        pixels = torch.randint(0, 256, (20, 30, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / name)
    (folder / "b.png").write_bytes(b"PK\3\4")
    return [folder / name for name in ("a.png", "b.png", "c.png")]


def test_the_csv_is_that_of_classify_py(classifier, net, photos, tmp_path, monkeypatch):
    checkpoint = tmp_path / "net.pt"
    save_checkpoint(checkpoint, net, image_size=(8, 8), class_names=net.class_names, dataset="folder")
    monkeypatch.chdir(photos[0].parent)
    flags = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "theirs.csv")]
    assert classify.main([*flags, "a.png", "b.png", "c.png"]) == 1
    *_, result = classifier.classify(photos)
    with open(result.file, newline="") as ours, open(tmp_path / "theirs.csv", newline="") as theirs:
        assert list(csv.reader(ours)) == list(csv.reader(theirs))
    assert [row["path"] for row in read_csv(result.file)] == ["a.png", "b.png", "c.png"]


def test_no_error_tells_where_uploads_lie(classifier, photos, tmp_path):
    *_, result = classifier.classify([photos[1]])
    assert result.predictions[0].error == "b.png: not a readable image (cannot identify image file 'b.png')"
    assert str(tmp_path) not in result.file.read_text()


def test_progress_photo_by_photo(classifier, photos):
    counts = [(len(result.images), len(result.predictions)) for result in classifier.classify(photos)]
    assert counts == [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2), (3, 3), (3, 3)]


def test_probabilities_are_calibrated(classifier, net, photos, turns):
    *_, result = classifier.classify(photos[:1])
    probabilities = classifier.probabilities(result.predictions[0])
    assert list(probabilities) == list(net.class_names)
    assert sum(probabilities.values()) == pytest.approx(1)
    assert max(probabilities.values()) == pytest.approx(result.predictions[0].confidence)
    classifier.temperature = 1e6
    assert max(classifier.probabilities(result.predictions[0]).values()) == pytest.approx(1 / 3, abs=0.01)


def test_a_map_sums_to_the_log_likelihood_ratio(classifier, net, photos):
    *_, result = classifier.classify(photos[:1])
    picture, nats = classifier.map(result.images[0], 2, 0)
    scores = class_log_likelihoods(net, result.images[0][None])[0]
    assert nats == pytest.approx(float(scores[2] - scores[0]), abs=0.05)
    assert picture.width == picture.height >= 256


def test_uploads_are_removed_also_where_there_are_too_many(classifier, photos, monkeypatch):
    forgotten = []
    monkeypatch.setattr("webapp.classify.forget", forgotten.extend)
    list(classifier.classify(photos))
    assert forgotten == photos
    with pytest.raises(UserError, match="photos are too many at a time; drop at most"):
        list(classifier.classify(["x.png"] * (MAX_PHOTOS + 1)))
    assert len(forgotten) == len(photos) + MAX_PHOTOS + 1
    work = classifier.classify(photos)
    next(work)
    work.close()  # a cancellation
    assert forgotten[-3:] == photos


def test_a_cancelled_classification_leaves_nothing(classifier, photos, own_files):
    work = classifier.classify(photos)
    while not next(work).predictions:
        pass
    assert list(own_files.rglob("predictions.csv.partial"))
    work.close()
    assert [path.name for path in own_files.iterdir()] == ["uploads"]


def test_words_are_safe_in_html(classifier, photos):
    *_, result = classifier.classify(photos[:1])
    text = classifier.verdict(replace(result.predictions[0], label=1, typicality=0.001))
    assert "&lt;b&gt;dog" in text and "<b>" not in text
    assert "like nothing the network has seen" in text
    assert "role='alert'" not in classifier.verdict(replace(result.predictions[0], typicality=0.5))
