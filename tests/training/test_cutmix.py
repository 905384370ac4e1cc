"""CutMix of the images that count in the cross-entropy alone."""

import pytest
import torch

from tests.training.steps import batches, make_step
from training.cutmix import cutmix
from training.objective import candidate_classes, hybrid_loss, mixed_labels


def numbered(count: int, height: int, width: int) -> torch.Tensor:
    """Images of one value each, their number: [count, 1, height, width]."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, height, width)


def test_each_image_gets_a_rectangle_of_the_one_before_it():
    torch.manual_seed(0)
    images, labels = numbered(200, 8, 16), torch.arange(200) % 3
    before = images.clone()
    mixed, others, kept = cutmix(images, labels, 80, 1.0)
    assert torch.equal(images, before), "not in place"
    assert torch.equal(mixed[:80], images[:80]) and torch.equal(others[:80], labels[:80]) and (kept[:80] == 1).all()
    assert torch.equal(others[80:], labels[79:-1]) and mixed.dtype == torch.uint8
    for number in range(80, 200):
        pasted = mixed[number, 0] == number - 1
        assert ((mixed[number, 0] == number) | pasted).all()
        rows, columns = pasted.any(1), pasted.any(0)
        assert torch.equal(pasted, rows[:, None] & columns), "a rectangle"
        assert (rows.int().diff().abs().sum() <= 2) and (columns.int().diff().abs().sum() <= 2)
        assert kept[number].item() == pytest.approx(1 - pasted.float().mean().item(), abs=1e-6)


def test_the_rectangles_areas_and_places():
    """Uniform areas u with sides in proportion to the image's; the centre is anywhere, and what is outside is cut."""
    torch.manual_seed(0)
    count, side = 20000, 64
    mixed, _, kept = cutmix(numbered(2, side, side)[torch.arange(count) % 2], torch.zeros(count).long(), 1, 1.0)
    pasted = (mixed[1:, 0] != (torch.arange(1, count) % 2)[:, None, None]).float()
    # of a side s the part inside is s - s^2 / 4 on average over centres; its square, on average over a uniform s^2
    mean = sum(((s - s * s / 4) ** 2) for s in (torch.arange(1000) / 1000).sqrt().tolist()) / 1000
    assert (1 - kept[1:]).mean().item() == pytest.approx(mean, abs=0.006)
    rows = pasted.mean((0, 2))
    torch.testing.assert_close(rows, rows.flip(0), atol=0.02, rtol=0)
    torch.testing.assert_close(rows, pasted.mean((0, 1)), atol=0.02, rtol=0)
    assert rows[side // 2] > rows[0] + 0.1, "the middle is covered more often"


def test_the_probability_is_the_share_of_images_that_are_changed():
    torch.manual_seed(0)
    images, labels = numbered(2, 8, 8)[torch.arange(4000) % 2], torch.arange(4000) % 2
    mixed, others, kept = cutmix(images, labels, 1, 0.25)
    assert 0.22 < (others != labels).float().mean() < 0.28
    assert torch.equal(kept < 1, (mixed != images).flatten(1).any(1)) and ((kept < 1) <= (others != labels)).all()
    mixed, others, kept = cutmix(images, labels, 1, 0.0)
    assert torch.equal(mixed, images) and torch.equal(others, labels) and (kept == 1).all()


@pytest.mark.parametrize("negatives", [1, 2, 3])
def test_the_class_of_the_rectangle_is_the_first_wrong_one(negatives):
    torch.manual_seed(0)
    labels, others = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    for _ in range(20):
        classes = candidate_classes(labels, 4, negatives, others)
        assert torch.equal(classes[:, 0], labels) and (classes.sort(dim=1).values.diff(dim=1) > 0).all()
        assert torch.equal(classes[labels != others, 1], others[labels != others])
    kept = torch.rand(16)
    mixed = mixed_labels(classes, others, kept)
    expected = torch.zeros(16, 4).scatter_(1, labels[:, None], kept[:, None])
    expected = expected.scatter_add(1, others[:, None], 1 - kept[:, None])
    torch.testing.assert_close(mixed, expected.gather(1, classes))
    torch.testing.assert_close(mixed.sum(1), torch.ones(16))


def test_the_cross_entropy_is_against_mixed_labels_or_a_teacher():
    log_p = torch.tensor([[-10.0, -12.0, -11.0], [-7.0, -3.0, -9.0]])
    labels, target = torch.tensor([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.9, 0.0]])
    posterior = torch.log_softmax(log_p / 2, dim=1)
    by_labels, by_teacher = (-(p * posterior).sum(1).mean().item() for p in (labels, target))
    loss, bpd, reported = hybrid_loss(log_p, (1, 8, 8), 0.7, 2.0, labels=labels)
    assert reported.item() == pytest.approx(by_labels) and loss.item() == pytest.approx(bpd.item() + 0.7 * by_labels)
    loss, bpd, reported = hybrid_loss(log_p, (1, 8, 8), 0.7, 2.0, labels=labels, target=target)
    assert reported.item() == pytest.approx(by_labels) and loss.item() == pytest.approx(bpd.item() + 0.7 * by_teacher)


def test_it_reaches_the_loss_of_a_step():
    """bits/dim are of the first images as they are; the cross-entropy is of what cutmix returns."""
    ((images, labels),) = batches(1)
    flags = {"discriminative_weight": 0.5, "discriminative_share": 0.5, "dropout": 0.0}
    step, plain = make_step(cutmix_prob=1.0, **flags), make_step(**flags)
    step.net.eval(), plain.net.eval()
    torch.manual_seed(5)
    _, parts = step.loss(images, labels)
    _, without = plain.loss(images, labels)
    assert parts[0].item() == pytest.approx(without[0].item(), rel=1e-6)
    torch.manual_seed(5)
    mixed, others, kept = cutmix(images, labels, 2, 1.0)
    assert (kept[2:] < 1).any()
    scores = torch.stack([step.log_likelihood(mixed, torch.full_like(labels, y)) for y in range(3)], 1)
    posterior = torch.log_softmax(scores / step.settings.posterior_temperature, 1)
    own, other = (posterior.gather(1, y[:, None])[:, 0] for y in (labels, others))
    assert parts[1].item() == pytest.approx(-(kept * own + (1 - kept) * other).mean().item(), rel=1e-4)


def test_a_teacher_sees_the_images_as_they_were_mixed():
    ((images, labels),) = batches(1)
    seen = []
    step = make_step(cutmix_prob=1.0, discriminative_weight=0.5, discriminative_share=0.5)
    step.teacher = lambda images, classes: (seen.append(images), torch.full(classes.shape, 1 / 3))[1]
    torch.manual_seed(5)
    step.loss(images, labels)
    torch.manual_seed(5)
    assert torch.equal(seen[0], cutmix(images, labels, 2, 1.0).images) and not torch.equal(seen[0], images)
