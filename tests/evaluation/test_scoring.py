"""Scores in batches: precision, folded weights, memory that runs out."""

import pytest
import torch

import evaluation.scoring
from evaluation.scoring import Scorer
from model import PixelCNN, class_log_likelihoods, log_likelihood
from utils.errors import UserError
from utils.precision import cpu_has_bf16, pick_precision

CPU = torch.device("cpu")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return PixelCNN(1, 8, 2, 1, 3)


@pytest.fixture
def images():
    return torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)


def test_scores_are_the_network_s_without_dropout(net, images):
    expected = class_log_likelihoods(net.eval(), images)
    for batch_size in (1, 3, 100):
        torch.testing.assert_close(Scorer(net.train(), "fp32", batch_size)(images), expected, rtol=1e-5, atol=1e-3)
    assert net.training and net.head.conv.weight.requires_grad  # the network is as it was
    assert Scorer(net)(images[:0]).shape == (0, 3)


def test_bf16_is_close_and_differs(net, images):
    exact, rough = (Scorer(net, precision)(images) for precision in ("fp32", "bf16"))
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0.01, atol=0)


def test_auto_decides_in_fp32_between_classes_that_are_close(net, images, monkeypatch):
    """With 16 bits for the rest: a pretended machine that has them natively."""
    exact, rough = Scorer(net, "fp32")(images), Scorer(net, "bf16")(images)
    monkeypatch.setattr(evaluation.scoring, "pick_precision", lambda *_: "bf16")
    gaps = (rough.amax(1, keepdim=True) - rough).sort(dim=1).values
    monkeypatch.setattr(evaluation.scoring, "CLOSE", gaps[:, 1].median().item())  # some images are close, some not
    scores = Scorer(net, "auto")(images)
    close = rough.amax(1, keepdim=True) - rough < evaluation.scoring.CLOSE
    again = close & (close.sum(1, keepdim=True) > 1)
    assert 0 < again.any(1).sum() < len(images)
    torch.testing.assert_close(scores[again], exact[again], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(scores[~again], rough[~again], rtol=0, atol=0)
    assert not torch.allclose(scores[~again], exact[~again], rtol=1e-6)
    monkeypatch.setattr(evaluation.scoring, "CLOSE", 1e9)
    torch.testing.assert_close(Scorer(net, "auto")(images), exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_batches_halve_when_memory_runs_out(net, images, monkeypatch, error):
    sizes = []

    def limited(net, batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise error
        return class_log_likelihoods(net, batch)

    monkeypatch.setattr(evaluation.scoring, "class_log_likelihoods", limited)
    scorer = Scorer(net, "fp32", batch_size=7)
    torch.testing.assert_close(scorer(images), class_log_likelihoods(net.eval(), images), rtol=1e-5, atol=1e-3)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert scorer.batch_size == 1


def test_where_nothing_fits_there_is_one_line(net, images, monkeypatch):
    def none(net, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(evaluation.scoring, "class_log_likelihoods", none)
    with pytest.raises(UserError, match="8x8"):
        Scorer(net, "fp32")(images)


def test_other_errors_pass(net, images, monkeypatch):
    def wrong(net, batch):
        raise RuntimeError("shapes")

    monkeypatch.setattr(evaluation.scoring, "class_log_likelihoods", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        Scorer(net, "fp32")(images)


def test_precision():
    assert pick_precision("fp32", CPU) == "fp32" and pick_precision("bf16", CPU) == "bf16"
    assert pick_precision("auto", CPU) == ("bf16" if cpu_has_bf16() else "fp32")
    with pytest.raises(UserError, match="fp16"):
        pick_precision("fp16", CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_memory_really_runs_out(net):
    images = torch.zeros(2**20, 1, 8, 8, dtype=torch.uint8)
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        scorer = Scorer(net.cuda(), "fp32", batch_size=2**20)
        assert scorer(images).shape == (2**20, 3) and scorer.batch_size < 2**20
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_where_no_classes_are_close_the_network_runs_once(net, images, monkeypatch):
    monkeypatch.setattr(evaluation.scoring, "pick_precision", lambda *_: "bf16")
    monkeypatch.setattr(evaluation.scoring, "CLOSE", -1.0)
    monkeypatch.setattr(evaluation.scoring, "log_likelihood", lambda *_: pytest.fail("scored again"))
    torch.testing.assert_close(Scorer(net, "auto")(images), Scorer(net, "bf16")(images))


@pytest.mark.parametrize(
    ("size", "classes", "expected"), [((8, 8), 10, 51), ((32, 32), 4, 8), ((64, 64), 4, 2), ((64, 32), 1000, 1)]
)
def test_default_batches_hold_the_same_memory_at_any_size(size, classes, expected):
    assert Scorer(PixelCNN(1, 4, 1, 1, classes), image_size=size).batch_size == expected


def test_close_classes_share_batches_when_scored_again(net, monkeypatch):
    """An image of an untrained network is close to all classes."""
    sizes = []

    def counted(net, images, labels):
        sizes.append(len(labels))
        return log_likelihood(net, images, labels)

    monkeypatch.setattr(evaluation.scoring, "pick_precision", lambda *_: "bf16")
    monkeypatch.setattr(evaluation.scoring, "CLOSE", 1e9)
    monkeypatch.setattr(evaluation.scoring, "log_likelihood", counted)
    Scorer(net, "auto", batch_size=20)(torch.zeros(20, 1, 8, 8, dtype=torch.uint8))
    assert sizes == [30, 30]
