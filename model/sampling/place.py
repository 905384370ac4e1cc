"""Position and cache of an incremental convolution, and a convolution with a constant weight."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]


@dataclass
class Place:
    """Position and cache of an incremental convolution."""

    level: int  # 0 full, 1 half, 2 quarter resolution
    batch: int
    width: int  # of the map at this level
    like: Tensor  # device and dtype of the cache
    row: int = 0
    column: int = 0
    state: list[Tensor] = field(default_factory=list)  # cached tensors

    def clear(self) -> None:
        """Zero the cache in place, for new images."""
        if self.state:
            torch._foreach_zero_(self.state)

    def remembered(self, *shape: int) -> Tensor:
        """A new cached tensor of zeros."""
        self.state.append(self.like.new_zeros(shape))
        return self.state[-1]

    def move(self, row: int, column: int) -> None:
        """Move to a pixel of the image."""
        self.row, self.column = row >> self.level, column >> self.level

    def zeros(self, *shape: int) -> Tensor:
        """Cached pixels [..., B], channels before batch."""
        return self.remembered(*shape, self.batch)

    @property
    def batch_first(self) -> bool:
        """Whether pixel products are stored batch first: in MKL 1.2 to 4 times as fast for batches below 16."""
        return self.batch < 16

    def zero_sums(self, width: int, channels: int) -> Tensor:
        """Accumulators [width, channels, B] of pixel products."""
        if self.batch_first:
            return self.remembered(width, self.batch, channels).transpose(1, 2)
        return self.zeros(width, channels)

    def zero_rows(self, count: int, channels: int, width: int) -> Tensor:
        """Cached rows [B, C, count, W], channels last."""
        return self.remembered(self.batch, count, width, channels).permute(0, 3, 1, 2)


def folded(conv: nn.Conv2d | nn.ConvTranspose2d, place: Place) -> tuple[Tensor, Tensor]:
    """Weight with its norm folded in, and bias: copies, unaffected by later training steps."""
    return conv.weight.to(place.like, copy=True), conv.bias.to(place.like, copy=True)  # type: ignore[union-attr]


def on_onednn(device: torch.device) -> bool:
    """Whether convolutions on the device use oneDNN."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available()


class FixedConv:
    """`torch.nn.functional.conv2d` with a constant weight, for channels-last maps of one shape.

    For batches on a CPU the weight is packed for oneDNN once, with the operators that ``torch.compile`` uses. Packing
    in every call takes 10 to 50 % of the time of a convolution of 16 rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor, place: Place, stride: Pair = (1, 1), padding: Pair = (0, 0)):
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias, self.stride, self.padding = bias, stride, padding
        # rows of a single image are too small to benefit
        self.packs = place.batch > 1 and weight.dtype == torch.float32 and on_onednn(weight.device)
        self.packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packs:
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, (1, 1), 1, x.shape
            )
            self.rest = self.bias, self.padding, self.stride, (1, 1), 1, "none", (), None
        return torch.ops.mkldnn._convolution_pointwise.default(x, self.packed, *self.rest)
