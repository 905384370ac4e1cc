"""The incremental sampler computes what the network computes."""

import pytest
import torch

from layers import FUSIONS
from model import image_generators, sample, to_unit
from model.sampling.incremental import SteppingTwin


def stepped(net, images, labels):
    """The mixture's parameters of every pixel by the twin, fed the given images: [B, 10K or 3K, H, W]."""
    x = to_unit(images)
    twin = SteppingTwin(net, len(x), x.shape[3])
    twin.begin(labels)
    rows = []
    for i in range(x.shape[2]):
        pixels = []

        def choose(params, j, i=i, pixels=pixels):
            pixels.append(params)
            return x[:, :, i, j]

        twin.start_row(i)
        twin.row(choose)
        rows.append(torch.stack(pixels, dim=2))
    return torch.stack(rows, dim=2)


@pytest.mark.parametrize("batch, size", [(2, (8, 8)), (17, (16, 16)), (2, (20, 12)), (16, (32, 32))])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
@torch.inference_mode()
def test_outputs_equal_the_network_s(make_net, device, fusion, channels, batch, size):
    """From 16 images on products are stored in another way."""
    net = make_net(fusion=fusion, image_channels=channels, nr_resnet=1 + (size == (8, 8))).to(device)
    images = torch.randint(0, 256, (batch, channels, *size), dtype=torch.uint8, device=device)
    labels = torch.arange(2, 2 + batch, device=device) % net.num_classes
    expected = net(to_unit(images), labels)
    assert expected.std() > 0.01
    torch.testing.assert_close(stepped(net, images, labels), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (8, 12)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_same_noise_same_images(make_net, device, fusion, channels, size):
    check_same_noise_same_images(make_net, device, fusion, channels, size)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(20, 12), (32, 32)])
def test_same_noise_same_larger_images(make_net, device, size):
    check_same_noise_same_images(make_net, device, "early+middle", 3, size)


def check_same_noise_same_images(make_net, device, fusion, channels, size):
    """But for rounding at the edges of bins; here none falls on one."""
    net, labels = make_net(fusion=fusion, image_channels=channels).to(device), torch.tensor([0, 1, 2])
    both = [sample(net, labels, size, image_generators(3, 0, 3), method) for method in ("full", "incremental")]
    assert (both[0] == both[1]).float().mean() > 0.99


@torch.inference_mode()
def test_a_single_image(make_net, device):
    """Its weights are not packed."""
    net, labels = make_net(nr_resnet=2).to(device), torch.tensor([1], device=device)
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, device=device)
    torch.testing.assert_close(stepped(net, images, labels), net(to_unit(images), labels), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_weights_that_are_not_packed_say_the_same(make_net, device, monkeypatch):
    """As where there is no oneDNN."""
    net, labels = make_net().to(device), torch.tensor([2, 0], device=device)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, device=device)
    expected = stepped(net, images, labels)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    torch.testing.assert_close(stepped(net, images, labels), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["full", "incremental"])
def test_autocast_changes_nothing(make_net, method):
    """Sums in 16 bits would cost nats."""
    net, labels = make_net(), torch.tensor([0, 1])
    plain = sample(net, labels, (8, 8), image_generators(0, 0, 2), method)
    with torch.autocast("cpu", torch.bfloat16):
        cast = sample(net, labels, (8, 8), image_generators(0, 0, 2), method)
    assert torch.equal(plain, cast)


@pytest.mark.parametrize("method", ["full", "incremental"])
def test_kept_rows_are_kept_and_heard(make_net, method):
    net, labels = make_net(), torch.tensor([0, 1])
    top = torch.randint(0, 256, (2, 3, 5, 8), dtype=torch.uint8)
    completed = sample(net, labels, (8, 8), image_generators(1, 0, 2), method, keep=top)
    assert torch.equal(completed[:, :, :5], top)
    other = sample(net, labels, (8, 8), image_generators(1, 0, 2), method, keep=255 - top)
    assert not torch.equal(completed[:, :, 5:], other[:, :, 5:])
    full = sample(net, labels, (8, 8), image_generators(1, 0, 2), "full", keep=top)
    assert (completed == full).float().mean() > 0.99


def test_too_many_kept_rows(make_net):
    with pytest.raises(ValueError, match="keep"):
        sample(make_net(), torch.tensor([0]), (8, 8), keep=torch.zeros(1, 3, 9, 8, dtype=torch.uint8))
