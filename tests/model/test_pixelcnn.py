from collections import Counter

import pytest
import torch

from layers import FUSIONS, GatedResidualBlock
from model import PixelCNN, load_starter_checkpoint, to_unit


def silence_one_hot(net):
    """Zero the weights that meet the one-hot maps."""
    with torch.no_grad():
        for layer in (net.u_init, net.ul_init_above, net.ul_init_left):
            weight = layer.conv.weight.clone()
            weight[:, net.image_channels + 1 :] = 0
            layer.conv.weight = weight


def heeds_the_class(net):
    x = torch.rand(1, net.image_channels, 8, 8) * 2 - 1
    outputs = [net(x, torch.tensor([label])) for label in range(net.num_classes)]
    return all(not torch.allclose(outputs[0], other, rtol=0, atol=1e-5) for other in outputs[1:])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("size", [16, 32])
def test_output_is_the_starter_codes(starter_path, golden, device, fusion, size):
    data = golden("starter_r1_f8_m3")
    net = load_starter_checkpoint(starter_path, num_classes=4, fusion=fusion).to(device)
    x = to_unit(data[f"images_{size}"]).to(device)
    for labels in ([0, 3, 1], [2, 2, 0]):
        with torch.no_grad():
            params = net(x, torch.tensor(labels[: len(x)], device=device))
        torch.testing.assert_close(params.cpu(), data[f"params_{size}"], rtol=0, atol=1e-4)


def test_parameter_count():
    net = PixelCNN(nr_resnet=2, nr_filters=80, nr_logistic_mix=10, num_classes=4, fusion="early+middle")
    assert sum(parameter.numel() for parameter in net.parameters()) == 6_050_281


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(4, 4), (8, 12), (20, 8), (16, 16)])
def test_output_shape(make_net, channels, size):
    net = make_net(image_channels=channels, nr_logistic_mix=5)
    params = net(torch.zeros(2, channels, *size), torch.tensor([0, 2]))
    assert params.shape == (2, 50 if channels == 3 else 15, *size)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nr_resnet", 0),
        ("nr_filters", 0),
        ("nr_logistic_mix", 0),
        ("num_classes", 0),
        ("image_channels", 2),
        ("fusion", "later"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
    ],
)
def test_settings_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        PixelCNN(**{name: value})


def gradients_by_pixel(net, height, width):
    """How the output at pixel i moves with the input at pixel j: [pixels i, C, pixels j], float64."""
    pixels = height * width
    x = torch.rand(1, net.image_channels, height, width, dtype=torch.float64) * 2 - 1
    x = x.repeat(pixels, 1, 1, 1).requires_grad_()  # image i is asked about pixel i
    out = net(x, torch.full((pixels,), 1)).flatten(2)
    at_own_pixel = out[torch.arange(pixels), :, torch.arange(pixels)]
    mixed = at_own_pixel @ torch.randn(out.shape[1], dtype=torch.float64)
    (gradients,) = torch.autograd.grad(mixed.sum(), x)
    return gradients.flatten(2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_output_sees_earlier_pixels_only(make_net, fusion, channels):
    height, width = 8, 12
    net = make_net(fusion=fusion, image_channels=channels).double()
    gradients = gradients_by_pixel(net, height, width)
    i, j = torch.arange(height * width)[:, None], torch.arange(height * width)
    sees = (gradients != 0).transpose(1, 2)  # [pixels i, pixels j, C]
    assert not sees[j >= i].any()  # the pixel itself, all its channels, and every later one: exactly nothing
    near = (i // width - j // width <= 2) & ((i % width - j % width).abs() <= 2) & (j < i)
    assert sees[near].all()  # no blind spot: left, above, above-left, above-right and a ring more


def test_output_sees_far_pixels(make_net):
    sees = (gradients_by_pixel(make_net(nr_resnet=2).double(), 16, 16) != 0).all(dim=1)
    for row, column, rows_seen in [(8, 8, 8), (15, 15, 15), (15, 0, 14)]:
        assert sees[16 * row + column, : 16 * rows_seen].all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_class_matters_unless_it_is_left_out(make_net, fusion):
    assert heeds_the_class(make_net(fusion=fusion)) == (fusion != "none")


@pytest.mark.parametrize(
    ("fusion", "one_hot", "alpha", "heeds"),
    [
        ("early", False, None, False),
        ("middle", None, 0.0, False),
        ("early+middle", False, 0.0, False),
        ("early+middle", True, 0.0, True),
        ("early+middle", False, 1.0, True),
    ],
)
def test_class_enters_by_the_one_hot_and_by_alpha_alone(make_net, fusion, one_hot, alpha, heeds):
    net = make_net(fusion=fusion)
    if one_hot is False:
        silence_one_hot(net)
    if alpha is not None:
        torch.nn.init.constant_(net.fusion.alpha, alpha)
    assert heeds_the_class(net) == heeds


def test_film_ignores_the_class_until_it_is_trained():
    assert not heeds_the_class(PixelCNN(1, 4, 2, num_classes=3, fusion="film").eval())


def test_late_fusion_is_at_the_coarsest_resolution_of_both_streams_and_before_the_head(make_net):
    net = make_net(nr_resnet=2, fusion="late")
    with torch.no_grad():
        net.late.table.weight.zero_()
    assert not heeds_the_class(net)
    u, ul = net.u_stream, net.ul_stream
    blocks = [*(block for stream in (u, ul) for block in stream.modules() if isinstance(block, GatedResidualBlock))]
    at = [blocks[index] for index in net.late.blocks]
    assert at == [u.up[2][1], ul.up[2][1], ul.down[0][2]]


def test_early_fusion_reaches_every_first_layer(make_net):
    net = make_net(fusion="early")
    seen = {}

    def note(layer, inputs):
        seen[layer] = inputs[0]

    layers = {net.u_init, net.ul_init_above, net.ul_init_left}
    for layer in layers:
        layer.register_forward_pre_hook(note)
    x = torch.rand(2, 3, 8, 8)
    net(x, torch.tensor([2, 0]))
    expected = torch.zeros(2, 7, 8, 8)
    expected[:, :3], expected[:, 3] = x, 1
    expected[0, 4 + 2] = expected[1, 4 + 0] = 1
    assert seen.keys() == layers
    assert all(torch.equal(joined, expected) for joined in seen.values())


def test_embedding_is_added_after_every_block_of_both_streams(make_net):
    net = make_net(nr_resnet=2, fusion="middle").double()
    labels = torch.tensor([2, 0])
    added = (net.fusion.alpha * net.fusion.embed(labels))[:, :, None, None]
    seen = Counter()

    def watch(name, level):
        def check(block, inputs, out):
            x, sides, _ = inputs
            torch.testing.assert_close(out - block.forward(x, sides, (None, None)), added.expand_as(out))
            assert out.shape[2:] == (16 >> level, 8 >> level)
            seen[name] += 1

        return check

    for name, module in net.named_modules():
        if isinstance(module, GatedResidualBlock):
            place = name.rpartition(".")[0]  # "u_stream.up.0", say
            module.register_forward_hook(watch(place, int(place[-1])))
    net(torch.rand(2, 3, 16, 8, dtype=torch.float64), labels)
    one_stream = {"up.0": 2, "up.1": 2, "up.2": 2, "down.0": 3, "down.1": 3, "down.2": 2}
    assert seen == {f"{stream}.{way}": n for stream in ("u_stream", "ul_stream") for way, n in one_stream.items()}


def test_images_of_a_batch_do_not_meet(make_net):
    net = make_net()
    x, labels = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])
    together = net(x, labels)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], labels[i : i + 1]), together[i : i + 1])


def test_every_parameter_is_trained(make_net):
    net = make_net().train()
    net(torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])).square().sum().backward()
    unused = [name for name, p in net.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    assert unused == []
