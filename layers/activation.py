"""Elementwise operations of a residual block, with few memory passes and exponentials in eager PyTorch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def concat_elu_into(out: Tensor, x: Tensor) -> None:
    """Write concat_elu of x [B, C, ...] to ``out`` [B, 2C, ...].

    elu(x) and elu(-x) share one exponential: they are max(x, e) and max(-x, e) with e = exp(-|x|) - 1.
    """
    positive, negative = out.chunk(2, dim=1)
    minus = torch.neg(x)
    e = torch.minimum(x, minus).expm1_()
    torch.maximum(x, e, out=positive)
    torch.maximum(minus, e, out=negative)


def _concat_elu(x: Tensor) -> Tensor:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    shape = (x.shape[0], 2 * x.shape[1], *x.shape[2:])
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    concat_elu_into(out, x)
    return out


class _ConcatELU(torch.autograd.Function):
    """Saves only its output for the backward pass; the gradient follows from it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = _concat_elu(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        grad = torch.ops.aten.elu_backward(grad, 1, 1, 1, True, out)  # True: out is elu's output
        positive, negative = grad.chunk(2, dim=1)
        return positive - negative


def concat_elu(x: Tensor) -> Tensor:
    """elu(x) and elu(-x) side by side: [B, C, ...] -> [B, 2C, ...] (Salimans et al. 2017, appendix).

    Under autocast the output has the dtype of the convolution that follows.
    """
    if torch.is_autocast_enabled(x.device.type) and x.dtype == torch.float32:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if torch.compiler.is_compiling():  # the compiler fuses the plain form
        return F.elu(torch.cat((x, -x), dim=1))
    return _ConcatELU.apply(x) if torch.is_grad_enabled() else _concat_elu(x)


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
