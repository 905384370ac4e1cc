"""The incremental layers: each computes a layer in raster order and caches what later steps need.

In the u stream a step is a row [B, F, 1, W], in the ul stream a pixel of all images [1, F, B]. In the ul stream, the
contributions of the row above and of the u stream are known before the first pixel of a row and are computed for the
whole row at once. Half and quarter resolution are computed only at the pixels that reach them. Pixels are stored
channels before batch, so that halves and neighbours are contiguous views.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers.activation import concat_elu, concat_elu_into
from layers.blocks import ActivatedConv, GatedResidualBlock, SideInput
from layers.conv import (
    DownRightShiftedConv2d,
    DownRightShiftedDeconv2d,
    DownShiftedConv2d,
    DownShiftedDeconv2d,
)

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
    def few(self) -> bool:
        """Whether pixel products are stored batch first: in MKL 1.2 to 4 times as fast for batches below 16."""
        return self.batch < 16

    def zero_sums(self, width: int, channels: int) -> Tensor:
        """Accumulators [width, channels, B] of pixel products."""
        if self.few:
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


class RowConv:
    """Incremental `DownShiftedConv2d` (2x3) after concat_elu, row by row: [B, F, 1, W] -> [B, c_out, 1, W]."""

    def __init__(self, activated: ActivatedConv, place: Place):
        self.conv = FixedConv(*folded(activated.conv.conv, place), place, padding=(0, 1))
        self.rows = place.zero_rows(2, self.conv.weight.shape[1], place.width)  # above and current
        self.above, self.current = self.rows.split(1, dim=2)

    def __call__(self, x: Tensor) -> Tensor:
        self.above.copy_(self.current)
        concat_elu_into(self.current, x)
        return self.conv(self.rows)


class RowShrink:
    """Incremental `DownShiftedConv2d` of stride 2: a row, or None at odd rows, which complete no coarse row."""

    def __init__(self, shrink: DownShiftedConv2d, place: Place):
        self.conv = FixedConv(*folded(shrink.conv, place), place, stride=(2, 2), padding=(0, 1))
        self.place = place
        self.rows = place.zero_rows(2, self.conv.weight.shape[1], place.width)  # odd row above, even row

    def __call__(self, x: Tensor) -> Tensor | None:
        odd = self.place.row % 2
        self.rows[:, :, 1 - odd : 2 - odd].copy_(x)
        return None if odd else self.conv(self.rows)


class RowGrow:
    """Incremental `DownShiftedDeconv2d`: two fine rows per coarse row, the second from the cache.

    An even fine column 2j depends on coarse column j through the middle of the kernel's three columns; 2j + 1 depends
    on j and j + 1 through the last and the first. So a fine row is a two-column convolution with outputs per parity.
    """

    def __init__(self, grow: DownShiftedDeconv2d, place: Place):
        weight, bias = folded(grow.conv, place)
        first, middle, last = weight.permute(2, 3, 1, 0).unbind(1)  # [row, c_out, c_in] each
        of_left, of_right = (torch.cat(taps, dim=1) for taps in ((middle, last), (torch.zeros_like(first), first)))
        pairs = torch.stack((of_left, of_right), dim=3)
        self.convs = [FixedConv(pair[:, :, None], bias.repeat(2), place, padding=(0, 1)) for pair in pairs]
        self.place = place
        self.coarse = place.zero_rows(1, weight.shape[0], place.width // 2)

    def __call__(self, coarse: Tensor | None) -> Tensor:
        if coarse is not None:
            self.coarse.copy_(coarse)
        parities = self.convs[self.place.row % 2](self.coarse)[..., 1:]
        return parities.unflatten(1, (2, -1)).movedim(1, -1).flatten(3)


class RowSide:
    """`SideInput` of the u stream: a row of the skip connection."""

    def __init__(self, side: SideInput, place: Place, conv_in: RowConv):
        self.conv = FixedConv(*folded(side.nin.conv, place), place)

    def __call__(self, hidden: Tensor, skip: Tensor) -> Tensor:
        return hidden.add_(self.conv(concat_elu(skip)))


def pixel_weight(weight: Tensor, place: Place) -> Tensor:
    """[..., c_in, c_out] as [c_out, c_in], to multiply pixels [c_in, B]; stored transposed for small batches."""
    weight = weight.flatten(0, -2)
    return weight.contiguous().t() if place.few else weight.t().contiguous()


def row_of_pixels(pixels: Tensor) -> Tensor:
    """[W, c, B] as one map [1, c, W, B], channels last: the row above is convolved for all pixels of a row at once."""
    return pixels.transpose(0, 1)[None].contiguous(memory_format=torch.channels_last)


class PixelConv:
    """Incremental `DownRightShiftedConv2d` (2x2) after concat_elu, pixel by pixel: [1, F, B] -> [1, c_out, B], or its
    halves for the gated convolution.

    ``sums`` [W, c_out, B] holds the row's outputs. At the start of a row, the contribution of the row above is computed
    at once from the activations cached in ``pixels``. Each pixel then adds those of its left neighbour, of the skip
    connection (from `PixelSide`, if any) and of itself: these activations are adjacent, so this is one product.
    """

    def __init__(self, activated: ActivatedConv, place: Place):
        weight, bias = folded(activated.conv.conv, place)
        self.above = FixedConv(weight[:, :, 0, :, None], bias, place, padding=(1, 0))
        self.left, self.here = weight[:, :, 1].permute(2, 1, 0)  # [c_in, c_out] each
        self.from_skip = self.here[:0]  # [2F, c_out] with a skip connection
        self.place = place
        self.signs = place.like.new_tensor([1.0, -1.0]).view(2, 1, 1)  # x [1, F, B] times it is [2, F, B]
        self.weight: Tensor = None  # type: ignore[assignment]  # set by `lay_out`

    def lay_out(self) -> None:
        """Allocate the cache; its layout depends on whether there is a skip connection."""
        (c_in, c_out), width, skip = self.here.shape, self.place.width, len(self.from_skip)
        self.waits = skip > 0
        self.weight = pixel_weight(torch.cat((self.left, self.from_skip, self.here)), self.place)
        self.sums = self.place.zero_sums(width, c_out)
        stored = self.place.zeros(1 + width, skip + c_in)  # the first is the left padding
        self.pixels = stored[1:, skip:]
        # views are created once: at small batches they dominate the cost
        self.slots = self.pixels.unflatten(1, (2, -1)).unbind(0)
        if self.waits:
            self.skips = stored[1:, :skip].unflatten(1, (2, -1)).unbind(0)
        flat, stride = stored.flatten(0, 1), skip + c_in
        self.contexts = [flat[w * stride + skip : (w + 2) * stride] for w in range(width)]
        self.targets = self.sums.unbind(0)
        self.outs = self.sums.split(1)
        if c_out == c_in:  # the gated convolution
            self.outs = list(zip(*(half.split(1) for half in self.sums.chunk(2, dim=1)), strict=True))

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        w = self.place.column
        if w == 0:
            if self.weight is None:
                self.lay_out()
            from_above = self.above(row_of_pixels(self.pixels))
            self.sums.copy_(from_above[0, :, :-1].transpose(0, 1))
        F.elu_(torch.mul(x, self.signs, out=self.slots[w]))  # concat_elu
        if not self.waits:
            self.targets[w].addmm_(self.weight, self.contexts[w])
        return self.outs[w]

    def add_skip(self, skip: Tensor) -> None:
        """Add the skip connection's pixel [1, F, B], then compute the deferred product."""
        w = self.place.column
        F.elu_(torch.mul(skip, self.signs, out=self.skips[w]))
        self.targets[w].addmm_(self.weight, self.contexts[w])


class PixelShrink:
    """Incremental `DownRightShiftedConv2d` of stride 2: a pixel, or None where no coarse pixel is complete."""

    def __init__(self, shrink: DownRightShiftedConv2d, place: Place):
        weight, bias = folded(shrink.conv, place)
        self.above = FixedConv(weight[:, :, 0, :, None], bias, place, stride=(2, 1))
        self.here = pixel_weight(weight[:, :, 1].permute(2, 1, 0), place)
        self.place = place
        self.pixels = place.zeros(place.width + 1, weight.shape[1])
        self.slots = self.pixels[1:].split(1)
        self.pairs = [self.pixels[w : w + 2].flatten(0, 1) for w in range(place.width)]
        self.sums = place.zero_sums(place.width // 2, len(bias))

    def __call__(self, x: Tensor) -> Tensor | None:
        row, w = self.place.row, self.place.column
        if w == 0 and row % 2 == 0:
            self.sums.copy_(self.above(row_of_pixels(self.pixels[:-1]))[0].transpose(0, 1))
        self.slots[w].copy_(x)
        if row % 2 or w % 2:
            return None
        return self.sums[w // 2].addmm_(self.here, self.pairs[w])[None]


class PixelGrow:
    """Incremental `DownRightShiftedDeconv2d`: four fine pixels per coarse pixel, cached until used."""

    def __init__(self, grow: DownRightShiftedDeconv2d, place: Place):
        weight, bias = folded(grow.conv, place)
        c_out = weight.shape[1]
        self.weight = pixel_weight(weight.permute(0, 2, 3, 1).flatten(1), place)  # [(row, column, c_out), c_in]
        self.bias = bias.repeat(4)[:, None]
        self.place = place
        fine = place.zero_sums(place.width // 2, 4 * c_out)
        self.slots = fine.unbind(0)
        parts = fine.unflatten(1, (2, 2, c_out))
        self.parts = [[parts[w // 2, row, w % 2][None] for w in range(place.width)] for row in range(2)]

    def __call__(self, coarse: Tensor | None) -> Tensor:
        row, w = self.place.row, self.place.column
        if coarse is not None:
            torch.addmm(self.bias, self.weight, coarse[0], out=self.slots[w // 2])
        return self.parts[row % 2][w]


class PixelSide:
    """`SideInput` of the ul stream: the u stream's row, known before its first pixel, and possibly a skip connection.

    Both are added to the sums of the block's first convolution, the u stream's for the whole row at once.
    """

    def __init__(self, side: SideInput, place: Place, conv_in: PixelConv):
        weight, bias = folded(side.nin.conv, place)
        parts = weight.flatten(1).unflatten(1, (2, -1, len(bias)))  # [F, sign, side, channel]
        self.from_u = FixedConv(parts[:, :, 0].flatten(1)[:, :, None, None], bias, place)
        self.place, self.conv_in = place, conv_in
        conv_in.from_skip = parts[:, :, 1:].permute(1, 2, 3, 0).flatten(0, 2)

    def __call__(self, hidden: Tensor, u: Tensor, *skip: Tensor) -> Tensor:
        if self.place.column == 0:
            self.conv_in.sums += self.from_u(concat_elu(u)).squeeze(2).permute(2, 1, 0)
        if skip:
            self.conv_in.add_skip(skip[0])
        return hidden


class SteppingBlock:
    """A block of incremental convolutions. It shares the network's code, without the overhead of module calls."""

    __call__ = GatedResidualBlock.forward

    def __init__(self, block: GatedResidualBlock, conv: type, side: type, place: Place):
        self.index = block.index
        self.conv_in, self.conv_out = conv(block.conv_in, place), conv(block.conv_out, place)
        self.side = block.side and side(block.side, place, self.conv_in)


ROWWISE = RowConv, RowSide, RowShrink, RowGrow
PIXELWISE = PixelConv, PixelSide, PixelShrink, PixelGrow
