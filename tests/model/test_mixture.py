import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.mixture import (
    mixture_log_prob,
    mixture_noise,
    mixture_sample,
    params_per_component,
    to_levels,
    to_unit,
)

reproducible = settings(deadline=None, max_examples=40, derandomize=True)


def draw(params, uniform, channels, temperature=1.0):
    """params [B, 10K or 3K], uniform [B, K + C] -> x [B, C]."""
    return mixture_sample(params, *mixture_noise(uniform, uniform.shape[1] - channels, temperature))


def exact_unit(levels):
    """Levels as [-1, 1] in float64, which `to_unit` does not give."""
    return (2 * levels.double() - 255) / 255


def level_masses(mean, log_scale):
    """Masses of the 256 levels by plain differences of the logistic CDF: [...] -> float64 [..., 256]."""
    edges = (torch.arange(1, 256, dtype=torch.float64) * 2 - 256) / 255
    scale = log_scale.clamp(min=-7).exp()
    below = torch.sigmoid((edges - mean[..., None]) / scale[..., None])
    ends = torch.zeros_like(mean)[..., None]
    return torch.cat((ends, below, ends + 1), dim=-1).diff(dim=-1)


def next_channel_masses(params, *earlier):
    """The mixture's p(earlier levels, next channel's level) of one RGB pixel, [10K] -> [256], independently made."""
    k = len(params) // 10
    weight = params[:k].softmax(0)
    means, log_scales, coefficients = params[k:].view(3, 3, k).unbind(1)
    c = coefficients.tanh()
    r, g = [*((2 * level - 255) / 255 for level in earlier), 0, 0][:2]
    means = torch.stack((means[0], means[1] + c[0] * r, means[2] + c[1] * r + c[2] * g))
    masses = level_masses(means, log_scales)  # [3, K, 256]
    for channel, level in enumerate(earlier):
        weight = weight * masses[channel, :, level]
    return weight @ masses[len(earlier)]


@st.composite
def pixel_params(draw, channels):
    """Float64 parameters [10K] or [3K] of one pixel: ordinary ones and extreme ones."""
    k = draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    params = torch.randn(params_per_component(channels) * k, generator=generator, dtype=torch.float64)
    params[:k] *= draw(st.sampled_from([1, 30]))
    by_channel = params[k:].view(channels, -1, k)
    by_channel[:, 0] *= draw(st.sampled_from([0.1, 1, 50]))
    by_channel[:, 1] += draw(st.floats(-20, 20))
    if channels == 3:
        by_channel[:, 2] *= draw(st.sampled_from([0, 1, 20]))
    return params


def test_to_levels_inverts_to_unit():
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_unit(levels)
    assert x.dtype == torch.float32
    assert (x[0], x[255]) == (-1, 1)
    torch.testing.assert_close(x.double(), exact_unit(levels), rtol=0, atol=1e-7)
    assert to_levels(x).dtype == torch.uint8
    assert torch.equal(to_levels(x), levels)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("name", ["mixture_rgb_k5", "mixture_gray_k5"])
def test_golden_likelihood(golden, device, name, dtype, tolerance):
    data = golden(name)
    x = exact_unit(data["levels"]).to(device, dtype)
    log_prob = mixture_log_prob(x, data["params"].to(device, dtype))
    assert log_prob.dtype == dtype
    torch.testing.assert_close(-log_prob.double().cpu(), data["nll_exact"], rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@reproducible
@given(params=pixel_params(1))
def test_gray_levels_sum_to_one(dtype, params):
    x = exact_unit(torch.arange(256)).to(dtype).view(256, 1, 1)
    log_prob = mixture_log_prob(x, params.to(dtype).view(1, -1, 1).expand(256, -1, 1))
    assert abs(log_prob.double().exp().sum() - 1) < 1e-5


@reproducible
@given(params=pixel_params(1))
def test_gray_masses_are_those_of_the_logistic_mixture(params):
    log_prob = mixture_log_prob(exact_unit(torch.arange(256)).view(256, 1, 1), params.view(1, -1, 1).expand(256, -1, 1))
    logits, means, log_scales = params.view(3, -1)
    expected = logits.softmax(0) @ level_masses(means, log_scales)
    torch.testing.assert_close(log_prob.exp(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("channel", [0, 1, 2])
@reproducible
@given(params=pixel_params(3), high=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_levels_of_one_channel_sum_to_one_where_the_others_are_certain(channel, params, high):
    means, log_scales, _ = params[len(params) // 10 :].view(3, 3, -1).unbind(1)
    levels = torch.tensor([255 * up for up in high]).repeat(256, 1)
    for other in {0, 1, 2} - {channel}:
        means[other] = 1000 if high[other] else -1000
        log_scales[other] = 0
    levels[:, channel] = torch.arange(256)
    log_prob = mixture_log_prob(to_unit(levels).unsqueeze(2), params.float().view(1, -1, 1).expand(256, -1, 1))
    assert abs(log_prob.double().exp().sum() - 1) < 1e-5


@reproducible
@given(params=pixel_params(3), seed=st.integers(0, 2**31))
def test_summing_out_blue_leaves_the_mixture_of_red_and_green(params, seed):
    k = len(params) // 10
    uniform = torch.rand(1, k + 3, generator=torch.Generator().manual_seed(seed))
    r, g = to_levels(draw(params[None], uniform, 3))[0, :2].tolist()  # where there is some mass
    levels = torch.tensor([[r, g, b] for b in range(256)])
    log_prob = mixture_log_prob(exact_unit(levels).unsqueeze(2), params.view(1, -1, 1).expand(256, -1, 1))
    expected = next_channel_masses(params, r, g)
    torch.testing.assert_close(log_prob.exp(), expected, rtol=1e-7, atol=1e-11)
    torch.testing.assert_close(log_prob.exp().sum(), next_channel_masses(params, r)[g], rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("coefficient", [0, 1, 2])
def test_each_coefficient_couples_its_pair_of_channels(coefficient):
    params = torch.zeros(10, dtype=torch.float64)  # one component
    params[1:].view(3, 3)[coefficient, 2] = 0.5

    def conditional_masses(channel, other, other_level):
        """Masses of the levels of ``channel`` given ``other``, with the third channel at 128."""
        levels = torch.full((256, 3), 128)
        levels[:, channel] = torch.arange(256)
        levels[:, other] = other_level
        log_prob = mixture_log_prob(exact_unit(levels).unsqueeze(2), params.view(1, -1, 1).expand(256, -1, 1))
        return log_prob.softmax(0)

    pair = [(1, 0), (2, 0), (2, 1)][coefficient]
    for channel, other in itertools.permutations(range(3), 2):
        dark, light = (conditional_masses(channel, other, level) for level in (20, 230))
        assert torch.allclose(dark, light) == ({channel, other} != set(pair)), (channel, other)
    x = exact_unit(torch.arange(256))
    dark, light = (conditional_masses(*pair, level) @ x for level in (20, 230))
    assert light > dark  # a positive coefficient pulls the channel after the earlier one


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("log_scale", [-20.0, -7.0, 0.0, 20.0])
@pytest.mark.parametrize("far", [1.0, 100.0, 1e4])
def test_likelihood_and_gradients_are_finite_at_extremes(channels, log_scale, far):
    k = 3
    levels = torch.tensor([0, 1, 127, 254, 255])
    batch = torch.cartesian_prod(*[levels] * channels).view(-1, channels, 1)
    params = torch.randn(len(batch), params_per_component(channels) * k, 1)
    params[:, :k] *= far
    by_channel = params[:, k:].view(len(batch), channels, -1, k)
    by_channel[:, :, 0] *= far
    by_channel[:, :, 1] = log_scale
    params.requires_grad_()
    x = to_unit(batch).requires_grad_()
    log_prob = mixture_log_prob(x, params)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert (log_prob <= 0).all()
    assert params.grad.isfinite().all()
    assert x.grad.isfinite().all()
    assert (params.grad != 0).any()


@pytest.mark.parametrize(
    ("means", "log_scales"),
    [
        ((-0.5, 0.1, 0.6), (-2.0, -3.0, -1.0)),
        ((-0.2, 0.0, 0.02), (-6.0, -5.0, -4.5)),
        ((-1.1, 0.98, 1.0), (-3.0, -4.0, -2.0)),
    ],
    ids=["wide", "narrow", "at the ends"],
)
def test_gray_samples_follow_the_masses(assert_drawn_from, means, log_scales):
    draws = 100_000
    params = torch.tensor([[0.3, -0.5, 0.8, *means, *log_scales]])
    x = draw(params.expand(draws, -1), torch.rand(draws, 4), 1)
    counts = to_levels(x).flatten().long().bincount(minlength=256)
    masses = mixture_log_prob(to_unit(torch.arange(256)).view(256, 1, 1), params[:, :, None].expand(256, -1, 1)).exp()
    assert_drawn_from(counts, masses)


def test_rgb_samples_follow_the_joint_masses(assert_drawn_from):
    """Red reaches the end of the range; green and blue lie where red and green draw them."""
    draws = 200_000
    logits, red, green, blue = (0.3, -0.2), (0.96, 0.99), (0.1, -0.4), (0.2, 0.3)
    log_scales, coefficients = (-4.6, -5.2), ((1.0, 0.6), (-2.0, -0.7), (2.0, 1.5))
    by_channel = [
        [mean, log_scales, coefficient] for mean, coefficient in zip((red, green, blue), coefficients, strict=True)
    ]
    params = torch.cat((torch.tensor(logits), torch.tensor(by_channel).flatten()))[None]
    levels = to_levels(draw(params.expand(draws, -1), torch.rand(draws, 5), 3)).long()
    assert (levels[:, 0] == 255).float().mean() > 0.1

    low, size = levels.amin(0), levels.amax(0) - levels.amin(0) + 1
    strides = torch.stack((size[1] * size[2], size[2], torch.ones_like(size[0])))
    box = torch.cartesian_prod(*(torch.arange(n) for n in size.tolist()))
    log_prob = mixture_log_prob(to_unit(box + low).unsqueeze(2), params[:, :, None].expand(len(box), -1, 1))
    counts = ((levels - low) @ strides).bincount(minlength=len(box))
    assert abs(log_prob.double().exp().sum() - 1) < 1e-3
    assert_drawn_from(counts, log_prob.exp())


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_levels_whatever_the_uniforms(channels):
    k = 2
    ends = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1 - 2**-24])] * (k + channels))
    for log_scale in (-20.0, 0.0, 20.0):
        params = torch.randn(len(ends), params_per_component(channels) * k)
        params[:, k:].view(len(ends), channels, -1, k)[:, :, 1] = log_scale
        x = draw(params, ends, channels)
        assert x.shape == (len(ends), channels)
        assert torch.equal(to_unit(to_levels(x)), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_low_temperature_concentrates(channels):
    k, draws = 3, 2000
    params = torch.randn(1, params_per_component(channels) * k).expand(draws, -1)
    uniform = torch.rand(draws, k + channels)
    spread = [draw(params, uniform, channels, temperature).std(0).mean() for temperature in (1.0, 0.3, 1e-4)]
    assert spread[0] > spread[1] > spread[2]
    coldest = draw(params, uniform, channels, 1e-4)
    assert len(coldest.unique(dim=0)) <= 2**channels  # at most the levels to each side of the likeliest mean
    top = params[0, :k].argmax()
    mean = params[0, k + top].clamp(-1, 1)
    assert (coldest[:, 0] - mean).abs().max() <= 1 / 255 + 2e-3


@pytest.mark.parametrize("log_scale", [-1000.0, 0.0, 79.0, 100.0, 1000.0])
def test_gradients_are_finite_whatever_the_scale(log_scale):
    params = torch.tensor([0.0, 0.3, log_scale]).view(1, 3, 1).expand(256, -1, -1).clone().requires_grad_()
    mixture_log_prob(to_unit(torch.arange(256)).view(256, 1, 1), params).sum().backward()
    assert params.grad.isfinite().all()
