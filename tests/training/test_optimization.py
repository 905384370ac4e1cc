"""Learning rate per step, optimiser, moving average."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.optimization import MovingAverage, lr_factor, make_optimizer
from training.settings import TrainSettings


def test_decay_is_per_step():
    factor = lr_factor(TrainSettings(lr_decay=0.9), total_steps=100)
    assert [factor(step) for step in range(3)] == pytest.approx([1, 0.9, 0.81])


def test_warmup_rises_linearly_then_decays():
    factor = lr_factor(TrainSettings(lr_decay=1.0, warmup=4), total_steps=100)
    assert [factor(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_cosine_ends_at_zero():
    factor = lr_factor(TrainSettings(lr_schedule="cosine"), total_steps=10)
    assert factor(0) == 1 and factor(5) == pytest.approx(0.5) and factor(10) == pytest.approx(0)
    assert all(factor(i) > factor(i + 1) for i in range(10))


def test_optimizer_follows_the_original_recipe():
    net = nn.Linear(2, 2)
    settings = TrainSettings(lr=0.1, lr_decay=0.5, weight_decay=0.01)
    optimizer, scheduler = make_optimizer(net, settings, total_steps=10)
    group = optimizer.param_groups[0]
    assert group["betas"] == (0.95, 0.9995) and group["weight_decay"] == 0.01 and group["lr"] == 0.1
    for _ in range(3):
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr()[0] == pytest.approx(0.1 * 0.5**3)


def test_moving_average_by_hand():
    """Its decay is (1 + n) / (10 + n) until that exceeds the one asked for."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 0.0)
    ema = MovingAverage(net, 0.5)
    expected = 0.0
    for n, value in enumerate([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]):
        nn.init.constant_(net.weight, value)
        ema.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = value if n == 0 else decay * expected + (1 - decay) * value
        assert ema.net.weight.item() == pytest.approx(expected)


def test_moving_average_is_the_library_s():
    """Of `torch.optim.swa_utils`, for a decay that does not grow."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    ours, theirs = MovingAverage(net, 0.05), AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.05))
    for _ in range(5):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += torch.randn_like(parameter)
        ours.update()
        theirs.update_parameters(net)
    for average, expected in zip(ours.net.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(average, expected)
    assert ours.updates == 5 and not ours.net.training and not next(ours.net.parameters()).requires_grad
