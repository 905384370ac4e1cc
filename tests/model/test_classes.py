"""Weights for other classes: what has the same name is taken over."""

import pytest
import torch

from layers import FUSIONS
from model import PixelCNN, copy_weights, match_classes

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_names_are_compared_in_one_form():
    assert match_classes(("owl", COMPOSED, "Cat"), ("cat", DECOMPOSED, "owl")) == {0: 2, 1: 1}
    assert match_classes(("a",), ("b",)) == {}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_class_keeps_its_distribution_under_another_number(make_net, fusion):
    source = make_net(fusion=fusion)
    settings = source.settings | {"num_classes": 4}
    net = PixelCNN(**settings)
    copy_weights(net, source, {1: 2, 3: 0})
    net.eval()
    x = 2 * torch.rand(2, 3, 8, 8) - 1
    with torch.no_grad():
        for ours, theirs in ((1, 2), (3, 0)):
            expected = source(x, torch.tensor([theirs, theirs]))
            torch.testing.assert_close(net(x, torch.tensor([ours, ours])), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fusion", "names"),
    [
        ("early", ["u_init.conv", "ul_init_above.conv", "ul_init_left.conv"]),
        ("middle", ["fusion.embed"]),
        ("film", ["fusion.table"]),
        ("late", ["late.table"]),
    ],
)
def test_what_other_classes_use_stays_as_it_is(make_net, fusion, names):
    source = make_net(fusion=fusion)
    net = make_net(fusion=fusion, num_classes=4)
    before = {name: net.get_submodule(name).weight.detach().clone() for name in names}
    copy_weights(net, source, {1: 2, 3: 0})
    for name in names:
        weight, theirs = net.get_submodule(name).weight, source.get_submodule(name).weight
        if fusion == "early":
            torch.testing.assert_close(weight[:, :4], theirs[:, :4])
            torch.testing.assert_close(weight[:, [5, 7]], theirs[:, [6, 4]])
            torch.testing.assert_close(weight[:, [4, 6]], before[name][:, [4, 6]])
        else:
            assert torch.equal(weight[[1, 3]], theirs[[2, 0]])
            assert torch.equal(weight[[0, 2]], before[name][[0, 2]])
