"""The network's stepping twin: the same blocks and the same U-Net, computed once, in raster order.

Everything in PixelCNN++ is causal, so each value need be computed only once. The twin is a copy of the network's
two streams in which every convolution is replaced by one that steps and remembers: in the u stream a step is a
row, in the ul stream a pixel. The code of the blocks and of the U-Net is the network's own (`layers.blocks`,
`model.pixelcnn.Stream`): it runs on rows [B, F, 1, W] and on pixels [B, F] as it does on maps [B, F, H, W].
What a convolution of the ul stream adds from the row above, and what the u stream says to the ul stream, is
known for a whole row before its first pixel and is computed for the row at once. Half and quarter resolution
step only where a pixel lands on them. Pixels [B, F] are stored [F, B], which BLAS multiplies several times as fast.
Drawing an image so costs about one forward pass, not H * W.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers import (
    ActivatedConv,
    DownRightShiftedConv2d,
    DownRightShiftedDeconv2d,
    DownShiftedConv2d,
    DownShiftedDeconv2d,
    GatedResidualBlock,
    SideInput,
    concat_elu,
)
from model.pixelcnn import NR_RESOLUTIONS, PixelCNN, Stream

__all__ = ["SteppingTwin"]

Steps = dict[type, Callable[..., nn.Module]]


@dataclass
class Place:
    """Where a stepping convolution stands."""

    level: int  # 0 full, 1 half, 2 quarter resolution
    batch: int
    width: int  # of the map at this level
    like: Tensor  # device and dtype of the state
    row: int = 0
    column: int = 0

    def move(self, row: int, column: int) -> None:
        """Go to a pixel of the image."""
        self.row, self.column = row >> self.level, column >> self.level

    @property
    def signs(self) -> Tensor:
        return self.like.new_tensor([1.0, -1.0]).view(2, 1, 1)

    def zeros(self, *shape: int) -> Tensor:
        """[..., B], a pixel's channels before its batch."""
        return self.like.new_zeros(*shape, self.batch)

    def zero_rows(self, count: int, channels: int, width: int) -> Tensor:
        """[B, C, count, W], stored channels last."""
        return self.like.new_zeros(self.batch, count, width, channels).permute(0, 3, 1, 2)


def as_matrix(row: Tensor) -> Tensor:
    """[B, F, 1, W] -> [B, W, F], a view."""
    return row.squeeze(2).transpose(1, 2)


def folded(conv: nn.Conv2d | nn.ConvTranspose2d, place: Place) -> tuple[Tensor, Tensor]:
    """Weight with its norm folded in, and bias."""
    return conv.weight.to(place.like), conv.bias.to(place.like)


class RowConv(nn.Module):
    """Steps a `DownShiftedConv2d` (2x3) a row at a time, after concat_elu: [B, F, 1, W] -> [B, c_out, 1, W]."""

    def __init__(self, activated: ActivatedConv, place: Place):
        super().__init__()
        weight, self.bias = folded(activated.conv.conv, place)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.rows = place.zero_rows(2, weight.shape[1], place.width)  # above and current

    def forward(self, x: Tensor) -> Tensor:
        self.rows[:, :, 0].copy_(self.rows[:, :, 1])
        self.rows[:, :, 1:].copy_(concat_elu(x))
        return F.conv2d(self.rows, self.weight, self.bias, padding=(0, 1))


class RowShrink(nn.Module):
    """Steps a `DownShiftedConv2d` of stride 2: a row, or None after the odd rows, where no coarse row ends."""

    def __init__(self, shrink: DownShiftedConv2d, place: Place):
        super().__init__()
        weight, self.bias = folded(shrink.conv, place)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.place = place
        self.rows = place.zero_rows(2, weight.shape[1], place.width)  # odd row above, even row

    def forward(self, x: Tensor) -> Tensor | None:
        odd = self.place.row % 2
        self.rows[:, :, 1 - odd : 2 - odd].copy_(x)
        return None if odd else F.conv2d(self.rows, self.weight, self.bias, stride=2, padding=(0, 1))


class RowGrow(nn.Module):
    """Steps a `DownShiftedDeconv2d`: two fine rows from each coarse row, the second from what it remembers."""

    def __init__(self, grow: DownShiftedDeconv2d, place: Place):
        super().__init__()
        weight, self.bias = folded(grow.conv, place)
        self.weights = weight[:, :, :1], weight[:, :, 1:]
        self.place = place
        self.coarse = place.zero_rows(1, weight.shape[0], place.width // 2)

    def forward(self, coarse: Tensor | None) -> Tensor:
        if coarse is not None:
            self.coarse.copy_(coarse)
        weight = self.weights[self.place.row % 2]
        return F.conv_transpose2d(self.coarse, weight, self.bias, stride=(1, 2), output_padding=(0, 1))[..., 1:-1]


class RowSide(nn.Module):
    """`SideInput` of the u stream: a row from rows."""

    def __init__(self, side: SideInput, place: Place):
        super().__init__()
        self.weight, self.bias = folded(side.nin.conv, place)

    def forward(self, hidden: Tensor, *sides: Tensor) -> Tensor:
        return hidden + F.conv2d(concat_elu(torch.cat(sides, dim=1)), self.weight, self.bias)


def pixel_weight(weight: Tensor, place: Place) -> Tensor:
    """[..., c_in, c_out] as [c_out, c_in], which multiplies pixels [c_in, B]; for a single pixel stored by c_in."""
    weight = weight.flatten(0, -2)
    return weight.contiguous().t() if place.batch == 1 else weight.t().contiguous()


def batch_innermost(x: Tensor) -> Tensor:
    """[B, F, ...] as [B, F], stored as pixels are."""
    return x.flatten(1).t().contiguous().t()


def activate(x: Tensor, signs: Tensor, out: Tensor) -> None:
    """concat_elu of pixels x [B, F] into ``out`` [2, F, B]; ``signs`` is [1, -1] as [2, 1, 1]."""
    F.elu_(torch.mul(x.t(), signs, out=out))


class PixelConv(nn.Module):
    """Steps a `DownRightShiftedConv2d` (2x2) a pixel at a time, after concat_elu: [B, F] -> [B, c_out].

    ``sums`` [W, c_out, B] holds the row's outputs. When a row starts, it gets what the row above adds, all at once,
    from the activations kept in ``pixels``; then each pixel adds what it says to itself and to its right neighbour.
    """

    def __init__(self, activated: ActivatedConv, place: Place):
        super().__init__()
        weight, bias = folded(activated.conv.conv, place)
        (c_out, c_in), width = weight.shape[:2], place.width
        above_left, above, left, here = weight.permute(2, 3, 0, 1).flatten(0, 1)
        self.above = torch.cat((above_left, above))
        self.bias = bias[:, None]
        self.place, self.signs = place, place.signs
        self.pixels = place.zeros(width, c_in)
        self.sums = place.zeros(width, c_out)
        # views are made once: at small batches they cost most
        self.activations = self.pixels.unbind(0)
        self.slots = [pixel.unflatten(0, (2, -1)) for pixel in self.activations]
        self.outs = [out.t() for out in self.sums.unbind(0)]
        self.targets = [self.sums[w : w + 2].flatten(0, 1) for w in range(width)]
        both, last = (pixel_weight(torch.cat(taps).t(), place) for taps in ((here, left), (here,)))
        self.weights = [both] * (width - 1) + [last]

    def forward(self, x: Tensor) -> Tensor:
        w = self.place.column
        if w == 0:
            row = self.pixels.transpose(0, 1).flatten(1)  # [c_in, W B]: one large product, not W small ones
            from_above = torch.mm(self.above, row).unflatten(1, (len(self.sums), -1)).transpose(0, 1)
            above_left, above = from_above.chunk(2, dim=1)
            torch.add(above, self.bias, out=self.sums)
            self.sums[1:] += above_left[:-1]
        activate(x, self.signs, self.slots[w])
        self.targets[w].addmm_(self.weights[w], self.activations[w])
        return self.outs[w]


class PixelShrink(nn.Module):
    """Steps a `DownRightShiftedConv2d` of stride 2: a pixel, or None where no coarse pixel ends."""

    def __init__(self, shrink: DownRightShiftedConv2d, place: Place):
        super().__init__()
        weight, bias = folded(shrink.conv, place)
        above, here = weight.permute(2, 3, 1, 0)  # [left and right, c_in, c_out]
        self.above, self.here = above.flatten(0, 1).t().contiguous(), pixel_weight(here, place)
        self.bias = bias[:, None]
        self.place = place
        self.pixels = place.zeros(place.width + 1, weight.shape[1])

    def forward(self, x: Tensor) -> Tensor | None:
        row, w = self.place.row, self.place.column
        if w == 0 and row % 2 == 0:
            pairs = self.pixels[:-1].unflatten(0, (-1, 2)).flatten(1, 2)  # [W / 2, 2 c_in, B]
            known = torch.addmm(self.bias, self.above, pairs.transpose(0, 1).flatten(1))
            self.known = known.unflatten(1, (len(pairs), -1)).transpose(0, 1)
        self.pixels[w + 1].copy_(x.t())
        if row % 2 or w % 2:
            return None
        return torch.addmm(self.known[w // 2], self.here, self.pixels[w : w + 2].flatten(0, 1)).t()


class PixelGrow(nn.Module):
    """Steps a `DownRightShiftedDeconv2d`: four fine pixels from each coarse one, kept until their turn."""

    def __init__(self, grow: DownRightShiftedDeconv2d, place: Place):
        super().__init__()
        weight, bias = folded(grow.conv, place)
        c_out = weight.shape[1]
        self.weight = pixel_weight(weight.permute(0, 2, 3, 1).flatten(1), place)  # [(row, column, c_out), c_in]
        self.bias = bias.repeat(4)[:, None]
        self.place = place
        self.fine = place.zeros(place.width // 2, 4 * c_out)
        self.slots = self.fine.unbind(0)
        parts = self.fine.unflatten(1, (2, 2, c_out))
        self.parts = [[parts[w // 2, row, w % 2].t() for w in range(place.width)] for row in range(2)]

    def forward(self, coarse: Tensor | None) -> Tensor:
        row, w = self.place.row, self.place.column
        if coarse is not None:
            self.slots[w // 2].copy_(torch.addmm(self.bias, self.weight, coarse.t()))
        return self.parts[row % 2][w]


class PixelSide(nn.Module):
    """`SideInput` of the ul stream: the u stream's row, known before the row's first pixel, and a skipped pixel.

    ``sums`` are the outputs of the convolution that it adds to; what u says goes there for the whole row at once.
    """

    def __init__(self, side: SideInput, place: Place, sums: Tensor):
        super().__init__()
        weight, self.bias = folded(side.nin.conv, place)
        nr_filters = len(self.bias)
        parts = weight.flatten(1).t().unflatten(0, (2, -1, nr_filters))  # sign, side, channel
        self.from_u = parts[:, 0].flatten(0, 1).contiguous()
        self.from_skip = pixel_weight(parts[:, 1:].flatten(0, 2), place)
        self.place, self.signs, self.sums = place, place.signs, sums
        self.skip = place.zeros(2, nr_filters)
        self.skip_flat = self.skip.flatten(0, 1)

    def forward(self, hidden: Tensor, u: Tensor, *skip: Tensor) -> Tensor:
        if self.place.column == 0:  # hidden is the first of the sums
            from_u = torch.matmul(as_matrix(concat_elu(u)), self.from_u).add_(self.bias)
            self.sums += from_u.permute(1, 2, 0)
        if skip:
            activate(skip[0], self.signs, self.skip)
            hidden.t().addmm_(self.from_skip, self.skip_flat)
        return hidden


def pixel_block(block: GatedResidualBlock, place: Place) -> nn.Module:
    """A block of the ul stream, whose side input adds to the sums of its first convolution."""
    twin = copy.copy(block)
    conv_in, conv_out = PixelConv(block.conv_in, place), PixelConv(block.conv_out, place)
    side = block.side and PixelSide(block.side, place, conv_in.sums)
    twin.__dict__ |= {"conv_in": conv_in, "side": side, "conv_out": conv_out}  # found faster than a module's children
    twin._modules = {}
    return twin


ROWWISE = {ActivatedConv: RowConv, SideInput: RowSide, DownShiftedConv2d: RowShrink, DownShiftedDeconv2d: RowGrow}
PIXELWISE = {
    ActivatedConv: PixelConv,
    GatedResidualBlock: pixel_block,
    DownRightShiftedConv2d: PixelShrink,
    DownRightShiftedDeconv2d: PixelGrow,
}


def stepping(module: nn.Module, steps: Steps, place: Place) -> nn.Module:
    """A copy of ``module`` in which the convolutions named in ``steps`` step; everything else keeps its code."""
    if type(module) in steps:
        return steps[type(module)](module, place)
    twin = copy.copy(module)
    twin._modules = {name: child and stepping(child, steps, place) for name, child in module._modules.items()}
    return twin


def stepping_stream(stream: Stream, steps: Steps, places: list[Place]) -> Stream:
    """A stepping copy of a stream; what its module lists hold is one entry a resolution."""
    twin = copy.copy(stream)
    twin._modules = {
        name: nn.ModuleList(stepping(module, steps, places[level]) for level, module in enumerate(levels))
        for name, levels in stream.named_children()
    }
    return twin


class SteppingTwin:
    """The network, computed a pixel at a time for a batch of labels.

    Its state is a few rows of every map. Weights are folded when it is made, so make a new one after training steps.

    Args:
        net: the network, in eval mode.
        labels: int64 [B].
        width: of the images, W.
        dtype: of weights and feature maps; the mixture's parameters come out as float32.
    """

    def __init__(self, net: PixelCNN, labels: Tensor, width: int, dtype: torch.dtype = torch.float32):
        like = torch.empty(0, device=labels.device, dtype=dtype)
        self.places = places = [Place(level, len(labels), width >> level, like) for level in range(NR_RESOLUTIONS)]
        here = places[0]
        self.u_stream = stepping_stream(net.u_stream, ROWWISE, places)
        self.ul_stream = stepping_stream(net.ul_stream, PIXELWISE, places)
        self.u_conditions, ul_conditions = net.conditions(labels, dtype)
        self.ul_conditions = [tuple(x if x is None else batch_innermost(x) for x in pair) for pair in ul_conditions]
        self.u_init = folded(net.u_init.conv, here)
        self.init_above = folded(net.ul_init_above.conv, here)
        left, self.left_bias = folded(net.ul_init_left.conv, here)
        self.left_above, left_here = left.squeeze(3).permute(2, 1, 0)  # [c_in, F] each
        self.channels = net.image_channels
        self.left_here = pixel_weight(left_here[: self.channels], here)
        head, head_bias = folded(net.head.conv, here)
        self.head, self.head_bias = pixel_weight(head.flatten(1).t(), here), head_bias[:, None]
        inside = net.join_class(here.zero_rows(1, self.channels, width), labels)
        self.constants = inside[:, self.channels :]  # the ones channel and the one-hot maps of a row
        self.left_constant = torch.matmul(self.constants[:, :, 0, 0], left_here[self.channels :])
        self.above = here.zero_rows(2, inside.shape[1], width)  # the two image rows above; zero outside
        self.drawn = here.zeros(width, self.channels)

    def move(self, row: int, column: int) -> None:
        for place in self.places:
            place.move(row, column)

    def row(self, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Step through a row: ``choose(params, column)`` turns parameters [B, 10K or 3K] into the pixel [B, C] in
        [-1, 1]. Returns the row [B, C, W], which the next call overwrites."""
        known_left = torch.matmul(as_matrix(self.above[:, :, 1:]), self.left_above)
        known_left += self.left_bias + self.left_constant.unsqueeze(1)
        u = F.conv2d(self.above, *self.u_init, padding=(0, 1))
        known = as_matrix(F.conv2d(self.above[:, :, 1:], *self.init_above, padding=(0, 1)))
        if self.places[0].row == 0:  # nothing is above: what the shifts move in is zero, not the bias
            u, known = torch.zeros_like(u), torch.zeros_like(known)
        known[:, 1:] += known_left[:, :-1]
        _, u_features = self.u_stream(u, self.u_conditions)
        pixels = known.permute(1, 2, 0).contiguous().unbind(0)  # [F, B] each
        drawn = self.drawn.unbind(0)
        for column, ul in enumerate(pixels):
            self.move(self.places[0].row, column)
            if column:
                ul = torch.addmm(ul, self.left_here, drawn[column - 1])
            ul, _ = self.ul_stream(ul.t(), self.ul_conditions, u_features)
            params = torch.addmm(self.head_bias, self.head, F.elu(ul).t()).t().float()
            drawn[column].copy_(choose(params, column).t())
        row = self.drawn.permute(2, 1, 0)
        self.above[:, :, 0].copy_(self.above[:, :, 1])
        self.above[:, : self.channels, 1].copy_(row)
        self.above[:, self.channels :, 1:].copy_(self.constants)
        self.move(self.places[0].row + 1, 0)
        return row
