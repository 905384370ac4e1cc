"""The network's stepping twin: the same blocks and the same U-Net, computed once, in raster order.

Everything in PixelCNN++ is causal, so each value need be computed only once. The twin has the network's two streams
with every convolution replaced by one that steps and remembers (`model.sampling.stepping`): in the u stream a step is a
row, in the ul stream a pixel. The code of the blocks and of the U-Net is the network's own (`layers.blocks`,
`model.pixelcnn.Stream`): it runs on rows [B, F, 1, W] and on pixels [1, F, B] as it does on maps [B, F, H, W].
Drawing an image so costs about one forward pass, not H * W.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from layers import GatedResidualBlock
from model.pixelcnn import NR_RESOLUTIONS, PixelCNN, Stream
from model.sampling.stepping import PIXELWISE, ROWWISE, FixedConv, Place, SteppingBlock, folded, pixel_weight

__all__ = ["SteppingTwin"]


class SteppingStream:
    """A stream whose convolutions step; what its lists hold is one entry a resolution."""

    __call__: Callable[..., tuple[Tensor, dict[int, Tensor]]] = Stream.forward
    unet: Callable[..., Tensor] = Stream.unet

    def __init__(self, stream: Stream, steps: Sequence[type], places: Sequence[Place]):
        conv, side, shrink, grow = steps

        def blocks(levels: Iterable[Iterable[GatedResidualBlock]]) -> list[list[SteppingBlock]]:
            return [
                [SteppingBlock(block, conv, side, place) for block in level]
                for level, place in zip(levels, places, strict=True)
            ]

        self.up, self.down = blocks(stream.up), blocks(stream.down)
        self.shrink = [shrink(module, place) for module, place in zip(stream.shrink, places, strict=False)]
        self.grow = [grow(module, place) for module, place in zip(stream.grow, places, strict=False)]


class SteppingTwin:
    """The network, computed a pixel at a time for a batch of images. ``begin(labels)``, then for each row in turn
    ``start_row(i)`` and ``row(choose)``.

    Its state is a few rows of every map, in fp32 and in the same memory for all batches. Weights are folded when it is
    made, so make a new one after training steps.

    Args:
        net: the network.
        batch: images, B.
        width: of the images, W.
    """

    def __init__(self, net: PixelCNN, batch: int, width: int):
        self.net = net
        like = torch.empty(0, device=next(net.parameters()).device)
        self.places = places = [Place(level, batch, width >> level, like) for level in range(NR_RESOLUTIONS)]
        here = places[0]
        self.u_stream = SteppingStream(net.u_stream, ROWWISE, places)
        self.ul_stream = SteppingStream(net.ul_stream, PIXELWISE, places)
        self.u_init = FixedConv(*folded(net.u_init.conv, here), here, padding=(0, 1))
        weight, bias = folded(net.ul_init_above.conv, here)
        left, self.left_bias = folded(net.ul_init_left.conv, here)
        left_above, left_here = left.squeeze(3).unbind(2)  # [F, c_in] each
        # the pixel above and to the left is seen by both
        both = torch.cat((weight[..., :1] + left_above[..., None, None], weight[..., 1:]), dim=3)
        self.init_above = FixedConv(both, bias, here, padding=(0, 1))
        self.channels = net.image_channels
        self.left_here = pixel_weight(left_here[:, : self.channels].t(), here)
        self.left_constants = left_here[:, self.channels :].t()  # [1 + C_y or 1, F]
        head, head_bias = folded(net.head.conv, here)
        self.head, self.head_bias = pixel_weight(head.flatten(1).t(), here), head_bias[:, None]
        self.above = here.zero_rows(2, weight.shape[1], width)  # the two image rows above; zero outside
        self.drawn = here.zeros(width, self.channels)
        self.has_above = like.new_zeros(1)  # 0 in the first row, then 1; in memory, as a CUDA graph reads it
        self.class_tensors: list[Tensor] = []

    def begin(self, labels: Tensor) -> None:
        """Start new images, one for each of the labels, int64 [B]."""

        def pixelwise(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[:, :, 0, 0].t().contiguous()[None]

        for place in self.places:
            place.clear()
        here = self.places[0]
        u_conditions, ul_conditions = self.net.conditions(labels, here.like.dtype)
        ul_conditions = [(pixelwise(scale), pixelwise(shift)) for scale, shift in ul_conditions]
        blank = here.like.new_zeros(here.batch, 1, here.width, self.channels).permute(0, 3, 1, 2)
        # the ones channel and the one-hot maps of a row
        constants = self.net.join_class(blank, labels)[:, self.channels :]
        left_known = torch.addmm(self.left_bias, constants[:, :, 0, 0], self.left_constants)  # [B, F]
        left_known = left_known[:, :, None, None].repeat(1, 1, 1, here.width)
        left_known[..., 0] = 0  # nothing is to the left of the first pixel
        pairs = (*u_conditions, *ul_conditions)
        class_tensors = [constants, left_known, *(x for pair in pairs for x in pair if x is not None)]
        if self.class_tensors:
            for kept, new in zip(self.class_tensors, class_tensors, strict=True):
                kept.copy_(new)
            return
        self.class_tensors = class_tensors
        self.constants, self.left_known = constants, left_known
        self.u_conditions, self.ul_conditions = u_conditions, ul_conditions

    def start_row(self, row: int) -> None:
        """Go to the start of row number ``row``."""
        self.move(row, 0)
        if row < 2:
            self.has_above.fill_(row)

    def move(self, row: int, column: int) -> None:
        for place in self.places:
            place.move(row, column)

    def row(self, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Step through a row: ``choose(params, column)`` turns parameters [B, 10K or 3K] into the pixel [B, C] in
        [-1, 1]. Returns the row [B, C, W], which the next call overwrites. What it does depends on the number of the
        row modulo 4 alone."""
        # above the first row is nothing: what the shifts move in is zero, not the bias
        u = self.u_init(self.above).mul_(self.has_above)
        known = self.init_above(self.above[:, :, 1:]).mul_(self.has_above)
        known += self.left_known
        _, u_features = self.u_stream(u, self.u_conditions)
        pixels = known.squeeze(2).permute(2, 1, 0).contiguous()  # [W, F, B]
        inputs, drawn = pixels.unbind(0), self.drawn.unbind(0)
        for column, ul in enumerate(pixels.split(1)):
            self.move(self.places[0].row, column)
            if column:
                inputs[column].addmm_(self.left_here, drawn[column - 1])
            ul, _ = self.ul_stream(ul, self.ul_conditions, u_features)
            params = torch.addmm(self.head_bias, self.head, F.elu_(ul)[0])
            drawn[column].copy_(choose(params.t(), column).t())
        row = self.drawn.permute(2, 1, 0)
        self.above[:, :, 0].copy_(self.above[:, :, 1])
        self.above[:, : self.channels, 1].copy_(row)
        self.above[:, self.channels :, 1:].copy_(self.constants)
        return row
