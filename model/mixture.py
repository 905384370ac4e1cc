"""The discretized mixture of logistics: exact likelihood and sampling (Salimans et al. 2017, section 2.1-2.2).

An 8-bit value is a level 0..255, or x = (level - 127.5) / 127.5 in [-1, 1]. Its bin extends by 1/255 to each
side; level 0 takes all mass below and level 255 all above, so the masses of the 256 levels sum to 1.
Parameters are [B, 10K, ...] for C = 3 (K logits shared by the channels; then for R, G and B in turn K means,
K log-scales, K coupling coefficients) and [B, 3K, ...] for C = 1 (K logits, K means, K log-scales).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_BIN = 1 / 255
HALF, HALF_RANGE = torch.tensor(0.5), torch.tensor(127.5)  # tensors: a Python scalar costs as much as its arithmetic
MIN_LOG_SCALE = -7.0
MAX_LOG_SCALE = 80.0  # above, exp(-log_scale) underflows in fp32 and the gradient is non-finite


def to_unit(levels: Tensor) -> Tensor:
    """Levels 0..255 -> float in [-1, 1], (level - 127.5) / 127.5."""
    return (levels.float() - 127.5) / 127.5


def to_levels(x: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8, the nearest level; the inverse of `to_unit`."""
    return (x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def params_per_component(channels: int) -> int:
    """Parameters per mixture component: 10 for three channels, 3 for one."""
    return 10 if channels == 3 else 1 + 2 * channels


def split(params: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """params [B, 10K or 3K, ...] -> logits [B, K, ...]; means, log-scales, coefficients [B, C, K, ...]."""
    k = params.shape[1] // params_per_component(channels)
    logits, rest = params[:, :k], params[:, k:]
    rest = rest.unflatten(1, (channels, -1, k))
    means, log_scales = rest[:, :, 0], rest[:, :, 1].clamp(MIN_LOG_SCALE, MAX_LOG_SCALE)
    return logits, means, log_scales, rest[:, :, 2].tanh() if channels == 3 else None


def mixture_log_prob(x: Tensor, params: Tensor) -> Tensor:
    """log p(image) in nats, exact: x float [B, C, ...] in [-1, 1], params [B, 10K or 3K, ...] -> [B]."""
    return pixel_log_prob(x, params).flatten(1).sum(1)


def pixel_log_prob(x: Tensor, params: Tensor) -> Tensor:
    """log p(pixel | previous pixels) in nats: x float [B, C, ...] in [-1, 1], params [B, 10K or 3K, ...] -> [B, ...].

    The mass of an inner bin is s(a) - s(b) with a = (x - m + 1/255) / scale and b = (x - m - 1/255) / scale,
    computed as log s(a) + log s(-b) + log(1 - exp(-(a - b))), where a - b = (2/255) / scale is never a
    difference of large numbers.
    """
    logits, means, log_scales, coefficients = split(params, x.shape[1])
    if coefficients is not None:
        r, g = x[:, 0, None], x[:, 1, None]
        means = torch.stack(
            (
                means[:, 0],
                means[:, 1] + coefficients[:, 0] * r,
                means[:, 2] + coefficients[:, 1] * r + coefficients[:, 2] * g,
            ),
            dim=1,
        )
    x = x.unsqueeze(2)  # [B, C, 1, ...] against [B, C, K, ...]
    inverse_scale = torch.exp(-log_scales)
    centred = x - means
    log_below_top = F.logsigmoid((centred + HALF_BIN) * inverse_scale)  # log s(a)
    log_above_bottom = F.logsigmoid((HALF_BIN - centred) * inverse_scale)  # log s(-b)
    log_width = torch.log(-torch.expm1(-2 * HALF_BIN * inverse_scale))
    lowest, highest = x < -0.999, x > 0.999
    log_mass = torch.where(
        lowest,
        log_below_top,
        torch.where(highest, log_above_bottom, log_below_top + log_above_bottom + log_width),
    )
    return torch.logsumexp(log_mass.sum(1) + F.log_softmax(logits, dim=1), dim=1)


def mixture_noise(uniform: Tensor, components: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Noise for `mixture_sample` from ``uniform`` [B, K + C, ...] in [0, 1): Gumbel [B, K, ...] for the choice
    of component and logistic [B, C, ...] for the values.

    A temperature below 1 sharpens the choice (as logits / T would) and narrows the logistics (scale * T).
    """
    gumbel = -torch.log(-torch.log(uniform[:, :components]))
    return temperature * gumbel, temperature * torch.logit(uniform[:, components:])


def mixture_sample(params: Tensor, gumbel: Tensor, logistic: Tensor) -> Tensor:
    """An exact sample of the discretized model: params [B, 10K or 3K] -> x [B, C] in [-1, 1] on the 8-bit grid.

    Selects the component by Gumbel-max with ``gumbel`` [B, K], then samples each channel's logistic with
    ``logistic`` [B, C], rounded to the grid before the next channel is conditioned on it.
    """
    k, channels = gumbel.shape[1], logistic.shape[1]
    kinds = 3 if channels == 3 else 2  # mean, log-scale, coefficient
    # gumbel first: the sum takes its memory layout, in which argmax is faster
    choice = (gumbel + params[:, :k]).argmax(dim=1).view(-1, 1, 1, 1).expand(-1, channels, kinds, 1)
    chosen = params[:, k:].view(-1, channels, kinds, k).gather(3, choice).squeeze(3)
    means, log_scales, *coefficients = chosen.unbind(2)  # [B, C] each
    scale = log_scales.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE).exp_()
    values = torch.addcmul(means, scale, logistic).mul_(HALF_RANGE)  # level - 127.5, before rounding
    if channels == 1:
        return on_grid_(values).div_(HALF_RANGE)
    to_g, r_to_b, g_to_b = coefficients[0].tanh().unbind(1)
    r, g, b = values.unbind(1)
    on_grid_(r)
    on_grid_(g.addcmul_(to_g, r))
    on_grid_(b.addcmul_(r_to_b, r).addcmul_(g_to_b, g))
    return values.div_(HALF_RANGE)


def on_grid_(values: Tensor) -> Tensor:
    """Round to the nearest of -127.5, -126.5, ... 127.5, in place."""
    return values.floor_().add_(HALF).clamp_(-127.5, 127.5)
