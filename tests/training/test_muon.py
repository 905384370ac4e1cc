"""Muon against its definition and torch's own."""

import pytest
import torch
from torch import nn

from model import PixelCNN
from training.muon import Muon, orthogonalized
from training.optimization import hidden_weights, make_optimizer, restore_optimizer
from training.settings import TrainSettings

SETTINGS = {"lr": 0.1, "betas": (0.95, 0.9995), "weight_decay": 0.0, "fused": True}


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 5, 5)])
def test_singular_values_become_about_one_and_the_vectors_stay(shape):
    matrices = torch.randn(shape)
    got = orthogonalized(matrices)
    assert got.shape == shape and got.dtype == torch.float32
    for matrix, ours in zip(matrices, got, strict=True):
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.mT @ ours @ vh.mT  # the diagonal holds the singular values
        values = inner.diagonal()
        assert (values > 0.3).all() and (values < 1.3).all()
        assert (inner - values.diag()).abs().max() < 0.05


def weights(*shapes):
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def test_matrices_are_updated_as_by_torch():
    """With the step size of AdamW, which torch calls match_rms_adamw."""
    ours = weights((4, 6), (4, 6), (7, 3))
    start = [weight.detach().clone() for weight in ours]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    muon = Muon(ours, ours, **SETTINGS | {"weight_decay": 2.0})
    library = torch.optim.Muon(
        theirs, lr=0.1, weight_decay=2.0, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        muon.step()
        library.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        # torch iterates in bf16 everywhere
        torch.testing.assert_close(one - before, other - before, rtol=0.05, atol=0.02)


def test_other_weights_are_updated_by_adamw():
    ours = weights((4, 6), (5,))
    alone = nn.Parameter(ours[1].detach().clone())
    muon, adamw = Muon(ours, ours[:1], **SETTINGS), torch.optim.AdamW([alone], **SETTINGS)
    for _ in range(3):
        ours[0].grad, ours[1].grad = torch.randn(4, 6), torch.randn(5)
        alone.grad = ours[1].grad.clone()
        muon.step()
        adamw.step()
    assert torch.equal(ours[1], alone)
    assert muon.state[ours[0]].keys() == {"step", "momentum_buffer"}


def test_a_non_finite_gradient_changes_nothing():
    ours = weights((4, 6), (4, 6), (5,))
    muon = Muon(ours, ours[:2], **SETTINGS | {"weight_decay": 0.1})
    for weight in ours:
        weight.grad = torch.randn(weight.shape)
    muon.step()
    before = [weight.detach().clone() for weight in ours]
    moments = [muon.state[weight]["momentum_buffer"].clone() for weight in ours[:2]]
    for weight in ours:
        weight.grad = torch.full(weight.shape, float("nan"))
    muon.found_inf = torch.tensor(1.0)
    muon.step()
    assert all(torch.equal(weight, old) for weight, old in zip(ours, before, strict=True))
    assert all(torch.equal(muon.state[w]["momentum_buffer"], m) for w, m in zip(ours[:2], moments, strict=True))
    for weight in ours:
        weight.grad = torch.randn(weight.shape)
    muon.found_inf = torch.tensor(0.0)
    muon.step()
    assert not any(torch.equal(weight, old) for weight, old in zip(ours, before, strict=True))


def test_hidden_weights_are_the_convolutions_between_feature_maps():
    net = PixelCNN(1, 4, 2, fusion="early+film+late")
    hidden = {id(weight) for weight in hidden_weights(net)}
    names = {name for name, weight in net.named_parameters() if id(weight) in hidden}
    expected = {
        name
        for name, weight in net.named_parameters()
        if name.endswith("original1") and not name.startswith(("u_init", "ul_init", "head"))
    }
    assert names == expected and len(names) > 40


def test_its_state_is_restored():
    settings = TrainSettings(optimizer="muon", nr_filters=4, lr=0.01)
    nets = [PixelCNN(1, 4, 2, image_channels=1) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    (one, _), (other, schedule) = (make_optimizer(net, settings, 10) for net in nets)
    for net, optimizer in zip(nets, (one, other), strict=True):
        torch.manual_seed(3)
        for weight in net.parameters():
            weight.grad = torch.randn(weight.shape)
        if optimizer is one:
            one.step()
    saved = one.state_dict()
    number, biased = next((n, s) for n, s in saved["state"].items() if "exp_avg" in s)
    wrong = {"step": biased["step"], "momentum_buffer": biased["exp_avg"]}
    with pytest.raises(ValueError, match=f"parameter {number} is not that of this network"):
        restore_optimizer(other, schedule, saved | {"state": saved["state"] | {number: wrong}}, 1)
    restore_optimizer(other, schedule, saved, 1)
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        kept, restored = one.state[ours], other.state[theirs]
        assert kept.keys() == restored.keys() and all(torch.equal(kept[key], restored[key]) for key in kept)
