import pytest
import torch
from torch import nn

from layers import FUSIONS, GatedResidualBlock
from model import PixelCNN, data_dependent_init, log_likelihood


@pytest.fixture
def batch():
    return torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8) % 3


def conv_statistics(net, images, labels):
    """The mean and the deviation of every convolution's output, by channel: {name: (mean, std)}."""
    statistics = {}
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, out, name=name: statistics.update({name: (out.mean((0, 2, 3)), out.std((0, 2, 3)))})
        )
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.no_grad():
        log_prob = log_likelihood(net, images, labels)
    for hook in hooks:
        hook.remove()
    return statistics, log_prob


@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_convolution_has_the_promised_statistics(make_net, batch, fusion):
    net = make_net(nr_filters=6, fusion=fusion)
    data_dependent_init(net, *batch)
    last_of_block = {
        f"{name}.conv_out.conv.conv" for name, module in net.named_modules() if isinstance(module, GatedResidualBlock)
    }
    statistics, log_prob = conv_statistics(net, *batch)
    assert last_of_block < statistics.keys()
    for name, (mean, std) in statistics.items():
        goal = 0.1 if name in last_of_block else 1.0
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-3 * goal, msg=name)
        torch.testing.assert_close(std, torch.full_like(std, goal), rtol=5e-3, atol=0, msg=name)
    assert log_prob.isfinite().all()


def test_it_is_done_once(make_net, batch):
    net = make_net()
    data_dependent_init(net, *batch)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    dark = (batch[0] // 8, batch[1])
    statistics, _ = conv_statistics(net, *dark)
    assert (statistics["u_init.conv"][1] < 0.9).all()  # another batch is no longer rescaled
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_left_as_it_was(batch, training):
    net = PixelCNN(1, 4, 2, num_classes=3).train(training)
    data_dependent_init(net, *batch)
    assert all(module.training == training for module in net.modules())


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.full((1, 3, 4, 4), 255)], ids=["black", "tiny"])
def test_batches_that_hardly_vary_leave_finite_weights(images):
    net = PixelCNN(1, 4, 2, num_classes=3).eval()
    images, labels = images.byte(), torch.zeros(len(images), dtype=torch.long)
    data_dependent_init(net, images, labels)
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert log_likelihood(net, images, labels).isfinite().all()
