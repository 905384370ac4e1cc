"""The hybrid objective against its definition."""

import json
import math

import pytest
import torch

import pcnn_train
from model import PixelCNN, log_likelihood, mixture_log_prob
from tests.training.steps import batches, make_step
from training.objective import candidate_classes, hybrid_loss, likelihood_images
from training.settings import TrainSettings
from training.trainer import Trainer
from utils.script import run_script

TINY = (
    "--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --batch_size 256 --dropout 0.1 --precision fp32 "
    "--fid_samples 0 --sampling_interval 0 --max_epochs 1 --device cpu"
).split()


def naive(net, images, labels, classes, weight, temperature):
    """The definition, an image and a class at a time."""
    nll, cross_entropy = 0.0, 0.0
    for image, label, candidates in zip(images, labels, classes, strict=True):
        scores = [net_log_likelihood(net, image[None], y) / temperature for y in candidates]
        true = net_log_likelihood(net, image[None], label)
        nll = nll - true / (image.numel() * math.log(2)) / len(images)
        evidence = sum(torch.exp(score - true / temperature) for score in scores)
        cross_entropy = cross_entropy + torch.log(evidence) / len(images)
    return nll + weight * cross_entropy


def net_log_likelihood(net, image, label):
    x = (image.double() - 127.5) / 127.5
    return mixture_log_prob(x, net(x, torch.tensor([int(label)])))[0]


def test_label_smoothing_moves_a_share_of_the_target_to_all_classes():
    log_p = torch.tensor([[-10.0, -12.0, -11.0], [-7.0, -3.0, -9.0]])
    posterior = torch.log_softmax(log_p.double() / 2, dim=1)
    target = torch.tensor([0.7 + 0.3 / 3, 0.1, 0.1], dtype=torch.float64)
    loss, bpd, plain = hybrid_loss(log_p, (1, 8, 8), 0.7, 2.0, label_smoothing=0.3)
    smoothed = -(target * posterior).sum(dim=1).mean().item()
    assert loss.item() == pytest.approx(bpd.item() + 0.7 * smoothed, rel=1e-6)
    assert plain.item() == pytest.approx(-posterior[:, 0].mean().item(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_cross_entropy_may_be_against_a_teacher_s_posterior(smoothing):
    log_p = torch.tensor([[-10.0, -12.0, -11.0], [-7.0, -3.0, -9.0]])
    target = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.9, 0.0]])
    loss, bpd, plain = hybrid_loss(log_p, (1, 8, 8), 0.7, 2.0, smoothing, target=target)
    posterior = torch.log_softmax(log_p.double() / 2, dim=1)
    smoothed = (1 - smoothing) * target.double() + smoothing / 3
    assert loss.item() == pytest.approx(bpd.item() - 0.7 * (smoothed * posterior).sum(dim=1).mean().item(), rel=1e-6)
    assert plain.item() == pytest.approx(-posterior[:, 0].mean().item(), rel=1e-6), "against the labels"


def test_label_smoothing_reaches_the_loss():
    losses = []
    for smoothing in (0.0, 0.3):
        step, (batch,) = make_step(discriminative_weight=0.5, label_smoothing=smoothing, dropout=0.0), batches(1)
        loss, parts = step.loss(*batch)
        losses.append(loss.item() - (parts[0] + 0.5 * parts[1]).item())
    assert losses[0] == pytest.approx(0, abs=1e-6) and abs(losses[1]) > 1e-3


def test_a_share_of_each_batch_counts_in_the_cross_entropy_alone():
    log_p = torch.tensor([[-10.0, -12.0], [-7.0, -3.0], [-9.0, -8.0]])
    both, bpd, cross_entropy = hybrid_loss(log_p, (1, 8, 8), 0.7, 2.0, images=2)
    assert bpd.item() == pytest.approx(8.5 / 64 / math.log(2), rel=1e-6)
    assert torch.equal(cross_entropy, hybrid_loss(log_p, (1, 8, 8), 0.7, 2.0)[2])
    assert both.item() == pytest.approx((bpd + 0.7 * cross_entropy).item(), rel=1e-6)


def test_the_share_reaches_the_loss():
    """bits/dim are those of the first images, the cross-entropy that of all."""
    (batch,) = batches(1)
    images, labels = batch
    rest = len(images) - round(len(images) / 2)
    parts, first, whole = (
        make_step(discriminative_weight=0.5, dropout=0.0, discriminative_share=share).loss(images[:n], labels[:n])[1]
        for share, n in ((0.5, len(images)), (0.0, rest), (0.0, len(images)))
    )
    assert parts[0].item() == pytest.approx(first[0].item(), rel=1e-5)
    assert parts[1].item() == pytest.approx(whole[1].item(), rel=1e-5)
    assert 0 < rest < len(images)


@pytest.mark.parametrize(
    ("weight", "share", "batch", "count"),
    [
        (0.0, 0.5, 16, 16),
        (0.1, 0.0, 16, 16),
        (0.1, 0.5, 16, 8),
        (0.1, 0.75, 10, 2),
        (0.1, 0.99, 16, 1),
        (1.0, 0.5, 1, 1),
    ],
)
def test_how_many_images_count_in_the_likelihood(weight, share, batch, count):
    settings = TrainSettings(discriminative_weight=weight, discriminative_share=share)
    assert likelihood_images(settings, batch) == count


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_and_gradients_are_the_definition_s(channels):
    torch.manual_seed(0)
    net = PixelCNN(1, 4, 2, channels, 3).double().eval()
    images = torch.randint(0, 256, (3, channels, 8, 8), dtype=torch.uint8)
    labels = torch.tensor([2, 0, 2])
    classes = candidate_classes(labels, 3, 2)
    expected = naive(net, images, labels, classes, 0.7, 5.0)
    expected.backward()
    gradients = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    x = (images.double() - 127.5) / 127.5
    log_p = mixture_log_prob(
        x.repeat_interleave(3, dim=0), net(x.repeat_interleave(3, dim=0), classes.flatten())
    ).view_as(classes)
    loss, bpd, cross_entropy = hybrid_loss(log_p, (channels, 8, 8), 0.7, 5.0)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert loss.item() == pytest.approx(bpd.item() + 0.7 * cross_entropy.item(), rel=1e-12)
    for ours, theirs in zip((p.grad for p in net.parameters()), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def trainer(tmp_path, name, **more):
    settings = {"dataset": "digits", "nr_resnet": 1, "nr_filters": 8, "nr_logistic_mix": 2, "precision": "fp32"}
    return Trainer(TrainSettings(**settings, **more, device="cpu", run_dir=str(tmp_path / name)))


def test_the_trainer_s_loss_is_that_of_separate_calls(tmp_path):
    """All classes in one pass, in float32, as a step takes it."""
    ours = trainer(tmp_path, "run", discriminative_weight=0.5, posterior_temperature=3.0)
    images, labels = next(ours.batches.epoch(1))
    ours.net.eval()
    loss, parts = ours.step.loss(images, labels)
    scores = torch.stack([log_likelihood(ours.net, images, torch.full_like(labels, y)) for y in range(10)], 1)
    true = scores.gather(1, labels[:, None]).mean()
    cross_entropy = torch.nn.functional.cross_entropy(scores / 3.0, labels)
    assert parts[0].item() == pytest.approx(-true.item() / (64 * math.log(2)), rel=1e-5)
    assert parts[1].item() == pytest.approx(cross_entropy.item(), rel=1e-4)
    assert loss.item() == pytest.approx(parts[0].item() + 0.5 * parts[1].item(), rel=1e-6)


def test_weight_0_is_exactly_the_plain_loss(tmp_path):
    from model.likelihood import bits_per_dim

    ours = trainer(tmp_path, "run", discriminative_weight=0.0)
    ours.net.train()
    images, labels = next(ours.batches.epoch(1))
    torch.manual_seed(3)
    loss, _ = ours.step.loss(images, labels)
    loss.backward()
    gradients = [p.grad.clone() for p in ours.net.parameters()]
    ours.net.zero_grad()
    torch.manual_seed(3)
    plain = bits_per_dim(-log_likelihood(ours.net, images, labels).mean(), (1, 8, 8))
    plain.backward()
    assert torch.equal(loss, plain)
    assert all(torch.equal(p.grad, g) for p, g in zip(ours.net.parameters(), gradients, strict=True))


def test_negatives_are_distinct_uniform_and_never_the_true_class():
    torch.manual_seed(0)
    labels = torch.arange(5).repeat(4000)
    classes = candidate_classes(labels, 5, 2)
    assert classes.shape == (20000, 3) and torch.equal(classes[:, 0], labels)
    assert (classes.sort(dim=1).values.diff(dim=1) > 0).all()
    for label in range(5):
        counts = classes[labels == label][:, 1:].flatten().bincount(minlength=5)
        assert counts[label] == 0
        others = counts[counts > 0].double()
        # 8000 draws over 4 classes: 2000 each, with a deviation below 32
        assert len(others) == 4 and (others - 2000).abs().max() < 5 * 32


def test_all_negatives_are_all_classes():
    """The order of the wrong classes does not matter to the loss."""
    torch.manual_seed(0)
    labels = torch.tensor([3, 0, 1])
    classes = candidate_classes(labels, 4, 3)
    assert (classes.sort(dim=1).values == torch.arange(4)).all()
    scores = torch.randn(3, 4, dtype=torch.float64) * 30
    cross_entropy = hybrid_loss(scores.gather(1, classes), (1, 8, 8), 1.0, 20.0)[2]
    assert cross_entropy.item() == pytest.approx(torch.nn.functional.cross_entropy(scores / 20, labels).item())


def test_a_hybrid_run_reports_both_parts(tmp_path):
    folder = tmp_path / "run"
    flags = ["--discriminative_weight", "0.1", "--negatives", "2", "--run_dir", str(folder)]
    assert pcnn_train.main([*TINY, *flags]) == 0
    report = json.loads((folder / "metrics.jsonl").read_text())
    assert 0 < report["train_cross_entropy"] < 2 * math.log(3) and 0 < report["train_bpd"] < 9


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("--discriminative_weight 0.1 --negatives 10", "--negatives 10"),
        ("--discriminative_weight -1", "discriminative_weight"),
        ("--posterior_temperature 0", "posterior_temperature"),
    ],
)
def test_mistakes_are_one_line(flags, word, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: pcnn_train.main([*TINY, *flags.split(), "--run_dir", str(tmp_path / "run")]))
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and word in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
