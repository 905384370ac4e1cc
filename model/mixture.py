"""The discretized mixture of logistics: exact likelihood and exact draws (Salimans et al. 2017, section 2.1-2.2).

A value of 8 bits is a level 0..255, or x = (level - 127.5) / 127.5 in [-1, 1]; its bin reaches 1/255 to each
side, level 0 takes all mass below and level 255 all above, so the masses of the 256 levels sum to 1.
Parameters are [B, 10K, ...] for C = 3 (K logits shared by the channels; then for R, G and B in turn K means,
K log-scales, K coupling coefficients) and [B, 3K, ...] for C = 1 (K logits, K means, K log-scales).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mixture_log_prob", "mixture_sample", "params_per_component", "to_levels", "to_unit"]

HALF_BIN = 1 / 255
MIN_LOG_SCALE = -7.0


def to_unit(levels: Tensor) -> Tensor:
    """Levels 0..255 -> float in [-1, 1], (level - 127.5) / 127.5."""
    return (levels.float() - 127.5) / 127.5


def to_levels(x: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8, the nearest level; the inverse of `to_unit`."""
    return (x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def params_per_component(channels: int) -> int:
    """Numbers a mixture component takes: 10 for three channels, 3 for one."""
    return 10 if channels == 3 else 1 + 2 * channels


def split(params: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """params [B, 10K or 3K, ...] -> logits [B, K, ...]; means, log-scales, coefficients [B, C, K, ...]."""
    k = params.shape[1] // params_per_component(channels)
    logits, rest = params[:, :k], params[:, k:]
    rest = rest.unflatten(1, (channels, -1, k))
    means, log_scales = rest[:, :, 0], rest[:, :, 1].clamp(min=MIN_LOG_SCALE)
    return logits, means, log_scales, rest[:, :, 2].tanh() if channels == 3 else None


def mixture_log_prob(x: Tensor, params: Tensor) -> Tensor:
    """log p(image) in nats, exact: x float [B, C, ...] in [-1, 1], params [B, 10K or 3K, ...] -> [B].

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
    log_prob = torch.logsumexp(log_mass.sum(1) + F.log_softmax(logits, dim=1), dim=1)  # [B, ...]
    return log_prob.flatten(1).sum(1)


def mixture_sample(params: Tensor, uniform: Tensor, channels: int, temperature: float = 1.0) -> Tensor:
    """An exact draw of the discrete model: params [B, 10K or 3K, ...] -> x [B, C, ...] in [-1, 1] on the 8-bit grid.

    The component by Gumbel-max, then for each channel a logistic, rounded to the grid before the next channel
    hears of it. ``uniform`` [B, K + C, ...] in [0, 1) is the randomness. A temperature below 1 sharpens the choice
    of component (logits / T) and narrows the logistics (scale * T).
    """
    logits, means, log_scales, coefficients = split(params, channels)
    k = logits.shape[1]
    gumbel = -torch.log(-torch.log(uniform[:, :k]))
    choice = (logits / temperature + gumbel).argmax(dim=1, keepdim=True).unsqueeze(1)  # [B, 1, 1, ...]
    choice = choice.expand(-1, channels, *choice.shape[2:])
    mean, log_scale = means.gather(2, choice).squeeze(2), log_scales.gather(2, choice).squeeze(2)
    noise = torch.logit(uniform[:, k:]) * log_scale.exp() * temperature  # [B, C, ...]

    def round_to_grid(x: Tensor) -> Tensor:
        return ((x * 127.5 + 127.5).round().clamp(0, 255) - 127.5) / 127.5

    if coefficients is None:
        return round_to_grid(mean + noise)
    c = coefficients.gather(2, choice).squeeze(2)
    r = round_to_grid(mean[:, 0] + noise[:, 0])
    g = round_to_grid(mean[:, 1] + c[:, 0] * r + noise[:, 1])
    b = round_to_grid(mean[:, 2] + c[:, 1] * r + c[:, 2] * g + noise[:, 2])
    return torch.stack((r, g, b), dim=1)
