"""concat_elu and dropout: the elementwise work of a block, in as few passes over memory as eager PyTorch allows."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["concat_elu", "dropout"]


class _ConcatELU(torch.autograd.Function):
    """Keeps only its output for the backward pass, from which the gradient follows."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        channels = x.shape[1]
        out = x.new_empty(x.shape[0], 2 * channels, *x.shape[2:])
        out[:, :channels].copy_(x)
        torch.neg(x, out=out[:, channels:])
        F.elu_(out)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        grad = torch.ops.aten.elu_backward(grad, 1, 1, 1, True, out)  # True: from the output, not the input
        positive, negative = grad.chunk(2, dim=1)
        return positive - negative


def concat_elu(x: Tensor) -> Tensor:
    """elu(x) and elu(-x) side by side: [B, C, ...] -> [B, 2C, ...] (Salimans et al. 2017, appendix)."""
    if torch.compiler.is_compiling():  # the compiler fuses the plain form
        return F.elu(torch.cat((x, -x), dim=1))
    return _ConcatELU.apply(x)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`torch.nn.functional.dropout`, with cheap randomness on the CPU: 16 bits a value, p to the nearest 1/65536."""
    if not training or p == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    dropped = min(round(p * 2**16), 2**16 - 1)  # of the 65536 values of 16 bits
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    keep = bits[: x.numel()].view(x.shape) >= dropped - 2**15
    return x * keep.to(x.dtype).mul_(2**16 / (2**16 - dropped))
