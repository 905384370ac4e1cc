import math

import pytest
import torch

from layers import (
    DownRightShiftedConv2d,
    DownShiftedConv2d,
    GatedResidualBlock,
    SideInput,
    concat_elu,
    dropout,
    gated_residual,
)

NR_FILTERS = 4


def test_concat_elu():
    x = torch.tensor([[[2.0]], [[-1.0]]])  # [B, C, H] = [2, 1, 1]
    expected = torch.tensor([[[2.0], [math.expm1(-2)]], [[math.expm1(-1)], [1.0]]])
    torch.testing.assert_close(concat_elu(x), expected)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("padding", [None, (1, 1, 1, 0), (1, 0, 1, 0), (0, 2, 0, 3)])
@pytest.mark.parametrize("sizes", [[3], [2, 3]])
def test_concat_elu_of_several_parts_is_padded_with_zeros(sizes, padding, layout, grad):
    parts = [torch.randn(2, size, 4, 5).to(memory_format=layout) for size in sizes]
    with torch.set_grad_enabled(grad):
        out = concat_elu(*parts, padding=padding)
    x = torch.cat(parts, dim=1)
    expected = torch.nn.functional.pad(torch.nn.functional.elu(torch.cat((x, -x), dim=1)), padding or (0, 0, 0, 0))
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=layout)


def test_side_input_joins_the_sides_in_order():
    side = SideInput(NR_FILTERS, 2)
    first, second = torch.randn(2, 1, NR_FILTERS, 3, 3).unbind()
    weight, bias = side.nin.conv.weight[:, :, 0, 0], side.nin.conv.bias
    joined = torch.cat((first, second), dim=1)
    both_signs = torch.nn.functional.elu(torch.cat((joined, -joined), dim=1))
    expected = torch.einsum("oc,bchw->bohw", weight, both_signs) + bias[:, None, None]
    hidden = torch.randn_like(first)
    torch.testing.assert_close(side(hidden, first, second), hidden + expected)


@pytest.mark.parametrize("conv", [DownShiftedConv2d, DownRightShiftedConv2d])
@pytest.mark.parametrize("nr_sides", [0, 1, 2])
def test_block_adds_a_gated_update_then_the_class(conv, nr_sides):
    block = GatedResidualBlock(conv, NR_FILTERS, nr_sides, dropout=0.5).eval()
    x, *sides = torch.randn(1 + nr_sides, 2, NR_FILTERS, 5, 5).unbind()
    scale, shift = torch.randn(2, 2, NR_FILTERS).unbind()
    hidden = block.conv_in.conv(concat_elu(x))
    if nr_sides:
        hidden = block.side(hidden, *sides)
    update, gate = block.conv_out.conv(concat_elu(hidden)).chunk(2, dim=1)
    plain = x + update * torch.sigmoid(gate)
    torch.testing.assert_close(block(x, sides, (None, None)), plain)
    expected = plain * scale[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(block(x, sides, (scale[:, :, None, None], shift[:, :, None, None])), expected)


def test_dropout_acts_while_training_only():
    x = torch.randn(2, NR_FILTERS, 5, 5)
    block = GatedResidualBlock(DownShiftedConv2d, NR_FILTERS, 0, dropout=0.5)
    still = block.eval()(x, [], (None, None))
    assert torch.equal(still, block(x, [], (None, None)))
    block.train()
    draws = torch.stack([block(x, [], (None, None)) for _ in range(8)])
    assert all(not torch.equal(draw, still) for draw in draws)
    assert not torch.equal(draws[0], draws[1])
    block.conv_out.dropout = 0.0
    assert torch.equal(block(x, [], (None, None)), still)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_activations_equal_their_definitions(dtype):
    x = (10 * torch.randn(3, 4, 5, 5)).to(dtype)
    x[0, 0, 0] = torch.tensor([0.0, 300.0, -300.0, math.inf, -math.inf])
    torch.testing.assert_close(concat_elu(x), torch.nn.functional.elu(torch.cat((x, -x), dim=1)))
    update = torch.randn(3, 8, 5, 5).to(dtype)
    expected = x + torch.nn.functional.glu(update, dim=1)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(gated_residual(x, update.requires_grad_(grad)), expected)


def test_gradients_of_the_activations():
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    update = torch.randn(2, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(concat_elu, (x,))
    assert torch.autograd.gradcheck(gated_residual, (x, update))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1e-7, 1 - 1e-7])
def test_dropout_keeps_the_mean_and_drops_its_share(p):
    x = torch.ones(500, 400)
    out = dropout(x, p, True)
    assert (out == 0).double().mean() == pytest.approx(p, abs=6 * (p * (1 - p) / x.numel()) ** 0.5 + 1e-4)
    kept = out[out > 0]
    assert len(kept.unique()) <= 1 and (p > 0.99 or kept[0] == pytest.approx(1 / (1 - p), rel=1e-3))
    assert dropout(x, p, False) is x
    columns = (out == 0).double()
    if 0.05 < p < 0.95:  # neighbours are dropped independently
        assert abs(torch.corrcoef(torch.stack((columns[:, :-1].flatten(), columns[:, 1:].flatten())))[0, 1]) < 0.015
    torch.manual_seed(0)
    first = dropout(x, 0.5, True)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.5, True), first)


def test_compiled_dropout_draws_as_eager_dropout():
    """Masks of equal shape in one graph are not taken for one."""

    def twice(x):
        return dropout(x, 0.5, True), dropout(x, 0.5, True)

    values, found = torch.ones(16, 20), []
    for function in (twice, torch.compile(twice, backend="aot_eager_decomp_partition", fullgraph=True)):
        x = values.clone().requires_grad_()
        torch.manual_seed(0)
        first, second = function(x)
        (first.sum() + 3 * second.sum()).backward()
        found.append((first, second, x.grad))
    for eager, compiled in zip(*found, strict=True):
        assert torch.equal(eager, compiled)
    assert not torch.equal(found[1][0], found[1][1])
    assert torch.equal(found[1][2], found[1][0].detach() + 3 * found[1][1].detach())
