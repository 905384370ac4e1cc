import pytest
import torch

from model import Sampler, image_generators, mixture_log_prob, sample, to_levels, to_unit
from model.mixture import split

every_method = pytest.mark.parametrize("method", ["full", "incremental"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def make_constant_net(make_net):
    """A network whose every pixel has the same mixture [10K] or [3K], whatever it sees."""

    def make(mixture, **settings):
        net = make_net(**settings)
        with torch.no_grad():
            net.head.conv.parametrizations.weight.original0.zero_()
            net.head.conv.bias.copy_(mixture)
        return net

    return make


@every_method
@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_size_asked_for(make_net, device, channels, method):
    net = make_net(image_channels=channels).to(device)
    images = sample(net, torch.tensor([0, 2, 1]), (4, 8), generator(), method)
    assert images.shape == (3, channels, 4, 8)
    assert images.dtype == torch.uint8
    assert images.device.type == device.type
    assert not images.requires_grad
    assert images.unique().numel() > 10


@every_method
def test_same_seed_same_images(make_net, method):
    net, labels = make_net(), torch.tensor([0, 1])
    first = sample(net, labels, (4, 4), generator(1), method)
    torch.rand(7)  # torch's own generator is not drawn on
    assert torch.equal(sample(net, labels, (4, 4), generator(1), method), first)
    assert not torch.equal(sample(net, labels, (4, 4), generator(2), method), first)
    assert not torch.equal(first[0], first[1])


@every_method
def test_without_a_generator_torch_is_drawn_on(make_net, method):
    net, labels = make_net(), torch.tensor([0])
    torch.manual_seed(3)
    first, second = (sample(net, labels, (4, 4), method=method) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(sample(net, labels, (4, 4), method=method), first)
    assert not torch.equal(first, second)


@every_method
def test_an_image_does_not_depend_on_its_batch(make_net, method):
    net, labels = make_net(), torch.tensor([0, 1, 2, 0, 1])
    together = sample(net, labels, (8, 4), image_generators(7, 0, 5), method)
    parts = [(0, 1), (1, 3), (4, 1)]
    for first, count in parts:
        part = sample(net, labels[first : first + count], (8, 4), image_generators(7, first, count), method)
        assert torch.equal(part, together[first : first + count])
    assert not torch.equal(together[0], together[3])  # of one class, yet two images


def test_each_image_of_each_seed_has_randomness_of_its_own():
    draws = [
        tuple(torch.rand(4, generator=g).tolist())
        for seed in (0, 1, 2, 123456789)
        for g in image_generators(seed, 0, 50)
    ]
    assert len(set(draws)) == len(draws)


@every_method
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_comes_from_the_network_of_the_pixels_before(make_net, channels, method):
    """Nearly cold, a pixel is the rounded mean of its likeliest component, given the pixels drawn before it."""
    net, labels = make_net(image_channels=channels), torch.tensor([0, 1, 2])
    images = sample(net, labels, (8, 12), generator(), method, temperature=1e-6)
    assert images.flatten(1).float().std(dim=1).min() > 1
    x = to_unit(images)
    with torch.no_grad():
        logits, means, _, coefficients = split(net(x, labels), channels)
    top = logits.argmax(dim=1)[:, None, None].expand(-1, channels, -1, -1, -1)
    mean = means.gather(2, top).squeeze(2)
    if channels == 3:
        c = coefficients.gather(2, top).squeeze(2)
        mean[:, 1] += c[:, 0] * x[:, 0]
        mean[:, 2] += c[:, 1] * x[:, 0] + c[:, 2] * x[:, 1]
    assert torch.equal(to_levels(mean), images)


@every_method
def test_pixels_follow_the_mixture_independently(make_constant_net, assert_drawn_from, method):
    mixture = torch.tensor([0.3, -0.5, -0.7, 0.9, -2.0, -2.5])
    net = make_constant_net(mixture, image_channels=1, num_classes=1)
    images = sample(net, torch.zeros(2000, dtype=torch.long), (4, 4), generator(), method)
    levels = to_unit(torch.arange(256)).view(256, 1, 1)
    masses = mixture_log_prob(levels, mixture.view(1, 6, 1).expand(256, -1, -1)).exp()
    assert_drawn_from(images.flatten().long().bincount(minlength=256), masses)
    pixels = to_unit(images).flatten(1)  # 16 pixels of each of 2000 images
    correlations = pixels.T.corrcoef() - torch.eye(16)
    assert correlations.abs().max() < 5 / 2000**0.5
    assert pixels.corrcoef().fill_diagonal_(0).mean().abs() < 5 / (16 * 2000) ** 0.5  # nor do the images agree


@every_method
@pytest.mark.parametrize("image_size", [(6, 8), (8, 6), (0, 8), (8, -4), (2, 2)])
def test_image_size_must_divide_by_four(make_net, image_size, method):
    with pytest.raises(ValueError, match="image_size"):
        sample(make_net(), torch.tensor([0]), image_size, method=method)


@every_method
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(make_net, temperature, method):
    with pytest.raises(ValueError, match="temperature"):
        sample(make_net(), torch.tensor([0]), (4, 4), method=method, temperature=temperature)


def test_method_must_be_known(make_net):
    with pytest.raises(ValueError, match="method"):
        sample(make_net(), torch.tensor([0]), (4, 4), method="fast")


@every_method
def test_there_must_be_one_generator_an_image(make_net, method):
    for count in (1, 3):
        with pytest.raises(ValueError, match="generator"):
            sample(make_net(), torch.tensor([0, 1]), (4, 4), image_generators(0, 0, count), method)


@every_method
def test_row_by_row_are_the_same_images(make_net, method):
    net, labels = make_net(), torch.tensor([0, 1])
    expected = sample(net, labels, (8, 4), generator(), method)
    sampler = Sampler(net, (8, 4), method)
    rows = [images.clone() for images in sampler.rows_of(labels, generator())]
    assert len(rows) == 8 and torch.equal(rows[-1], expected)
    for row, images in enumerate(rows, 1):
        assert torch.equal(images[:, :, :row], expected[:, :, :row])
    left = sampler.rows_of(labels, generator(1))
    next(left)
    assert torch.is_inference_mode_enabled() is False and not torch.is_autocast_enabled("cpu")
    left.close()
    assert torch.equal(sampler(labels, generator()), expected)  # the state of what was left is discarded
