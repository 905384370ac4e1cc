"""The incremental layers of the ul stream: a step is a pixel of all images [1, F, B].

Each computes a layer in raster order and caches what later pixels need. The contributions of the row above and of the
u stream are known before the first pixel of a row and are computed for the whole row at once. Half and quarter
resolution are computed only at the pixels that reach them. Pixels are stored channels before batch, so that halves and
neighbours are contiguous views.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from layers.activation import concat_elu
from layers.blocks import ActivatedConv, SideInput
from layers.conv import DownRightShiftedConv2d, DownRightShiftedDeconv2d
from model.sampling.place import FixedConv, Place, folded


def pixel_weight(weight: Tensor, place: Place) -> Tensor:
    """[..., c_in, c_out] as [c_out, c_in], to multiply pixels [c_in, B]; stored transposed for small batches."""
    weight = weight.flatten(0, -2)
    return weight.contiguous().t() if place.batch_first else weight.t().contiguous()


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


PIXELWISE = PixelConv, PixelSide, PixelShrink, PixelGrow
