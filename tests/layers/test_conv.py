import pytest
import torch

from layers import (
    DownRightShiftedConv2d,
    DownRightShiftedDeconv2d,
    DownShiftedConv2d,
    DownShiftedDeconv2d,
    NetworkInNetwork,
)

HEIGHT, WIDTH = 6, 8

# a layer of 3 to 5 channels; the rows and the columns of the input that its output at (i, j) may see, and sees
LAYERS = {
    "1x1": (lambda: NetworkInNetwork(3, 5), lambda i, j: ({i}, {j})),
    "down": (lambda: DownShiftedConv2d(3, 5), lambda i, j: ({i - 1, i}, {j - 1, j, j + 1})),
    "down, shifted": (
        lambda: DownShiftedConv2d(3, 5, shift_down=True),
        lambda i, j: ({i - 2, i - 1}, {j - 1, j, j + 1}),
    ),
    "down 1x3, shifted": (
        lambda: DownShiftedConv2d(3, 5, (1, 3), shift_down=True),
        lambda i, j: ({i - 1}, {j - 1, j, j + 1}),
    ),
    "down, stride 2": (
        lambda: DownShiftedConv2d(3, 5, stride=2),
        lambda i, j: ({2 * i - 1, 2 * i}, {2 * j - 1, 2 * j, 2 * j + 1}),
    ),
    "down, transposed": (lambda: DownShiftedDeconv2d(3, 5), lambda i, j: ({i // 2}, {j // 2, (j + 1) // 2})),
    "down-right": (lambda: DownRightShiftedConv2d(3, 5), lambda i, j: ({i - 1, i}, {j - 1, j})),
    "down-right 2x1, shifted": (
        lambda: DownRightShiftedConv2d(3, 5, (2, 1), shift_right=True),
        lambda i, j: ({i - 1, i}, {j - 1}),
    ),
    "down-right, stride 2": (
        lambda: DownRightShiftedConv2d(3, 5, stride=2),
        lambda i, j: ({2 * i - 1, 2 * i}, {2 * j - 1, 2 * j}),
    ),
    "down-right, transposed": (lambda: DownRightShiftedDeconv2d(3, 5), lambda i, j: ({i // 2}, {j // 2})),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_output_sees_exactly_its_pixels(name):
    make_layer, seen = LAYERS[name]
    layer = make_layer().double()
    x = torch.randn(1, 3, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    assert out.shape[1] == 5
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            mixed = out[0, :, i, j] @ torch.randn(5, dtype=torch.float64)
            (grad,) = torch.autograd.grad(mixed, x, retain_graph=True)
            rows, columns = seen(i, j)
            expected = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
            for row in rows & set(range(HEIGHT)):
                for column in columns & set(range(WIDTH)):
                    expected[:, row, column] = True
            assert torch.equal(grad[0] != 0, expected), f"output ({i}, {j})"


@pytest.mark.parametrize(
    ("names", "size"),
    [
        (["1x1", "down", "down, shifted", "down 1x3, shifted", "down-right", "down-right 2x1, shifted"], (6, 8)),
        (["down, stride 2", "down-right, stride 2"], (3, 4)),
        (["down, transposed", "down-right, transposed"], (12, 16)),
    ],
)
def test_output_size(names, size):
    for name in names:
        make_layer, _ = LAYERS[name]
        assert make_layer()(torch.randn(2, 3, HEIGHT, WIDTH)).shape == (2, 5, *size), name


@pytest.mark.parametrize("name", LAYERS)
def test_weight_norm_is_per_output_channel(name):
    make_layer, _ = LAYERS[name]
    layer = make_layer()
    torch.nn.init.zeros_(layer.conv.bias)
    x = torch.randn(2, 3, HEIGHT, WIDTH)
    before = layer(x)
    gain = layer.conv.parametrizations.weight.original0
    assert gain.numel() == 5
    with torch.no_grad():
        gain.view(-1)[2] *= 3
    torch.testing.assert_close(layer(x), before * torch.tensor([1, 1, 3, 1, 1]).view(5, 1, 1))


@pytest.mark.parametrize("name", LAYERS)
def test_weight_norm_forgets_the_length_of_the_direction(name):
    make_layer, _ = LAYERS[name]
    layer = make_layer()
    x = torch.randn(2, 3, HEIGHT, WIDTH)
    before = layer(x)
    with torch.no_grad():
        layer.conv.parametrizations.weight.original1 *= 7
    torch.testing.assert_close(layer(x), before)
