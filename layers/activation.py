"""Elementwise operations of a residual block, with few memory passes and exponentials in eager PyTorch."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = tuple[int, int, int, int]  # columns left and right, rows above and below, as of F.pad


def concat_elu_into(out: Tensor, x: Tensor) -> None:
    """Write concat_elu of x [B, C, ...] to ``out`` [B, 2C, ...]."""
    positive, negative = out.chunk(2, dim=1)
    both_elus_into(positive, negative, x)


def both_elus_into(positive: Tensor, negative: Tensor, x: Tensor) -> None:
    """Write elu(x) to ``positive`` and elu(-x) to ``negative``, each like x.

    They share one exponential: they are max(x, e) and max(-x, e) with e = exp(-|x|) - 1.
    """
    minus = torch.neg(x)
    e = torch.minimum(x, minus).expm1_()
    torch.maximum(x, e, out=positive)
    torch.maximum(minus, e, out=negative)


def _concat_elu(parts: Sequence[Tensor], padding: Padding | None = None) -> Tensor:
    """concat_elu of ``parts`` joined along channels, zero-padded, each value written once."""
    x, channels = parts[0], sum(part.shape[1] for part in parts)
    last = x.dim() == 4 and all(part.is_contiguous(memory_format=torch.channels_last) for part in parts)
    layout = torch.channels_last if last else torch.contiguous_format
    rest = list(x.shape[2:])
    if padding:
        left, right, above, below = padding
        rest = [above + rest[0] + below, left + rest[1] + right]
    out = torch.empty((x.shape[0], 2 * channels, *rest), dtype=x.dtype, device=x.device, memory_format=layout)
    inside = out
    if padding:
        height, width = rest
        for border in (out[:, :, :above], out[:, :, height - below :], out[..., :left], out[..., width - right :]):
            border.zero_()
        inside = out[:, :, above : height - below, left : width - right]
    positive, negative = inside.chunk(2, dim=1)
    sizes = [part.shape[1] for part in parts]
    for part, plus, minus in zip(parts, positive.split(sizes, dim=1), negative.split(sizes, dim=1), strict=True):
        both_elus_into(plus, minus, part)
    return out


class _ConcatELU(torch.autograd.Function):
    """Saves only its output for the backward pass; the gradient follows from it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = _concat_elu((x,))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        grad = torch.ops.aten.elu_backward(grad, 1, 1, 1, True, out)  # True: out is elu's output
        positive, negative = grad.chunk(2, dim=1)
        return positive - negative


def concat_elu(*parts: Tensor, padding: Padding | None = None) -> Tensor:
    """elu(x) and elu(-x) side by side: [B, C, ...] -> [B, 2C, ...] (Salimans et al. 2017, appendix).

    x is ``parts`` joined along channels, and the output is zero-padded by ``padding``, which needs [B, C, H, W]. Under
    autocast the output has the dtype of the convolution that follows.
    """
    device = parts[0].device.type
    if torch.is_autocast_enabled(device):
        low = torch.get_autocast_dtype(device)
        parts = tuple(part.to(low) if part.dtype == torch.float32 else part for part in parts)
    if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _concat_elu(parts, padding)
    x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    # the compiler fuses the plain form
    out = F.elu(torch.cat((x, -x), dim=1)) if torch.compiler.is_compiling() else _ConcatELU.apply(x)
    return F.pad(out, padding) if padding else out


class _GatedResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, update: Tensor) -> Tensor:
        ctx.save_for_backward(update)
        value, gate = update.chunk(2, dim=1)
        return torch.addcmul(x, value, gate.sigmoid())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (update,) = ctx.saved_tensors
        return grad, torch.ops.aten.glu_backward(grad.to(update.dtype), update, 1)  # under autocast x is fp32


def gated_residual(x: Tensor, update: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """x + a * sigmoid(b) for the halves a and b of ``update``: [B, C, ...] and [B, 2C, ...] -> [B, C, ...].

    Without gradients ``update`` may be the pair (a, b), [B, C, ...] each; both are overwritten, a by the result.
    """
    if isinstance(update, tuple):  # from the incremental sampler, where call overhead dominates
        value, gate = update
        return torch.addcmul(x, value, gate.sigmoid_(), out=value)
    # the compiler fuses the plain form; without gradients it is equally fast
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return x + F.glu(update, dim=1)
    return _GatedResidual.apply(x, update)


@torch.library.custom_op("pixelcnn::random_bits", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def random_bits(count: int) -> Tensor:
    """Uniform int16 [count] on the CPU, by its global generator; an operator, as the compiler draws slowly."""
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return bits.view(torch.int16)[:count]


@random_bits.register_fake
def _(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.int16)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`torch.nn.functional.dropout` with cheap random numbers on the CPU: 16 bits per value, p rounded to 1/65536."""
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = min(round(p * 2**16), 2**16 - 1)  # of the 65536 16-bit values
    keep = random_bits(x.numel()).view(x.shape) >= dropped - 2**15
    return x * keep.to(x.dtype).mul_(2**16 / (2**16 - dropped))
