"""The network's stepping twin: the same blocks and the same U-Net, computed once, in raster order.

Everything in PixelCNN++ is causal, so each value need be computed only once. The twin has the network's two streams
with every convolution replaced by one that steps and remembers (`layers.stepping`): in the u stream a step is a row, in
the ul stream a pixel. The code of the blocks and of the U-Net is the network's own (`layers.blocks`,
`model.pixelcnn.Stream`): it runs on rows [B, F, 1, W] and on pixels [1, F, B] as it does on maps [B, F, H, W].
Drawing an image so costs about one forward pass, not H * W.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers.stepping import PIXELWISE, ROWWISE, FixedConv, Place, SteppingBlock, folded, pixel_weight
from model.pixelcnn import NR_RESOLUTIONS, PixelCNN, Stream

__all__ = ["SteppingTwin"]


class SteppingStream:
    """A stream whose convolutions step; what its lists hold is one entry a resolution."""

    __call__, unet = Stream.forward, Stream.unet

    def __init__(self, stream: Stream, steps: Sequence[type], places: Sequence[Place]):
        conv, side, shrink, grow = steps

        def blocks(levels: nn.ModuleList) -> list[list[SteppingBlock]]:
            return [
                [SteppingBlock(block, conv, side, place) for block in level]
                for level, place in zip(levels, places, strict=True)
            ]

        self.up, self.down = blocks(stream.up), blocks(stream.down)
        self.shrink = [shrink(module, place) for module, place in zip(stream.shrink, places, strict=False)]
        self.grow = [grow(module, place) for module, place in zip(stream.grow, places, strict=False)]


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
        self.u_stream = SteppingStream(net.u_stream, ROWWISE, places)
        self.ul_stream = SteppingStream(net.ul_stream, PIXELWISE, places)
        self.u_conditions, ul_conditions = net.conditions(labels, dtype)
        self.ul_conditions = [
            tuple(x if x is None else x[:, :, 0, 0].t().contiguous()[None] for x in pair) for pair in ul_conditions
        ]
        self.u_init = FixedConv(*folded(net.u_init.conv, here), here, padding=(0, 1))
        weight, bias = folded(net.ul_init_above.conv, here)
        left, left_bias = folded(net.ul_init_left.conv, here)
        left_above, left_here = left.squeeze(3).unbind(2)  # [F, c_in] each
        # the pixel above and to the left is seen by both
        both = torch.cat((weight[..., :1] + left_above[..., None, None], weight[..., 1:]), dim=3)
        self.init_above = FixedConv(both, bias, here, padding=(0, 1))
        self.channels = net.image_channels
        self.left_here = pixel_weight(left_here[:, : self.channels].t(), here)
        head, head_bias = folded(net.head.conv, here)
        self.head, self.head_bias = pixel_weight(head.flatten(1).t(), here), head_bias[:, None]
        inside = net.join_class(here.zero_rows(1, self.channels, width), labels)
        self.constants = inside[:, self.channels :]  # the ones channel and the one-hot maps of a row
        left_known = torch.addmm(left_bias, self.constants[:, :, 0, 0], left_here[:, self.channels :].t())  # [B, F]
        self.left_known = left_known[:, :, None, None].repeat(1, 1, 1, width)
        self.left_known[..., 0] = 0  # nothing is to the left of the first pixel
        self.above = here.zero_rows(2, inside.shape[1], width)  # the two image rows above; zero outside
        self.drawn = here.zeros(width, self.channels)

    def move(self, row: int, column: int) -> None:
        for place in self.places:
            place.move(row, column)

    def row(self, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Step through a row: ``choose(params, column)`` turns parameters [B, 10K or 3K] into the pixel [B, C] in
        [-1, 1]. Returns the row [B, C, W], which the next call overwrites."""
        u, known = self.u_init(self.above), self.init_above(self.above[:, :, 1:])
        if self.places[0].row == 0:  # nothing is above: what the shifts move in is zero, not the bias
            u, known = torch.zeros_like(u), torch.zeros_like(known)
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
            drawn[column].copy_(choose(params.t().float(), column).t())
        row = self.drawn.permute(2, 1, 0)
        self.above[:, :, 0].copy_(self.above[:, :, 1])
        self.above[:, : self.channels, 1].copy_(row)
        self.above[:, self.channels :, 1:].copy_(self.constants)
        self.move(self.places[0].row + 1, 0)
        return row
