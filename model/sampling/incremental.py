"""The incremental network: PixelCNN++ evaluated in raster order with caches of its causal convolutions.

PixelCNN++ is causal, so each activation need be computed only once. Every convolution of the two streams is replaced
by an incremental one that caches its inputs (`row_layers`, `pixel_layers`). A step is a row in the u stream and a pixel
in the ul stream. Blocks and U-Net share the network's code (`layers.blocks`, `model.pixelcnn.Stream`), which runs on
rows [B, F, 1, W] and on pixels [1, F, B] as on maps [B, F, H, W]. Sampling an image costs about one forward pass
instead of H * W.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from layers import GatedResidualBlock
from model.pixelcnn import NR_RESOLUTIONS, PixelCNN, Stream
from model.sampling.pixel_layers import PIXELWISE, pixel_weight
from model.sampling.place import FixedConv, Place, folded
from model.sampling.row_layers import ROWWISE


class SteppingBlock:
    """A block of incremental convolutions. It shares the network's code, without the overhead of module calls."""

    __call__ = GatedResidualBlock.forward

    def __init__(self, block: GatedResidualBlock, conv: type, side: type, place: Place):
        self.index = block.index
        self.conv_in, self.conv_out = conv(block.conv_in, place), conv(block.conv_out, place)
        self.side = block.side and side(block.side, place, self.conv_in)


class SteppingStream:
    """A stream of incremental convolutions; its lists have one entry per resolution."""

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
    """The network, computed one pixel at a time for a batch of images. Call ``begin(labels)``, then for each row
    ``start_row(i)`` and ``row(choose)``.

    It caches a few rows of every map, in fp32 and in the same memory for all batches. Weight norms are folded at
    construction, so create a new one after training steps.

    Args:
        net: the network.
        batch: B, number of images.
        width: W, width of the images.
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
        # both convolutions see the pixel above and to the left
        both = torch.cat((weight[..., :1] + left_above[..., None, None], weight[..., 1:]), dim=3)
        self.init_above = FixedConv(both, bias, here, padding=(0, 1))
        self.channels = net.image_channels
        self.left_here = pixel_weight(left_here[:, : self.channels].t(), here)
        self.left_constants = left_here[:, self.channels :].t()  # [1 + C_y or 1, F]
        head, head_bias = folded(net.head.conv, here)
        self.head, self.head_bias = pixel_weight(head.flatten(1).t(), here), head_bias[:, None]
        self.above = here.zero_rows(2, weight.shape[1], width)  # the two image rows above; zero outside
        self.drawn = here.zeros(width, self.channels)
        self.has_above = like.new_zeros(1)  # 0 in the first row, then 1; a tensor, as a CUDA graph reads it
        self.class_tensors: list[Tensor] = []

    def begin(self, labels: Tensor) -> None:
        """Start new images, one per label, int64 [B]."""

        def pixelwise(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[:, :, 0, 0].t().contiguous()[None]

        for place in self.places:
            place.clear()
        here = self.places[0]
        u_conditions, ul_conditions = self.net.conditions(labels, here.like.dtype)
        ul_conditions = [(pixelwise(scale), pixelwise(shift)) for scale, shift in ul_conditions]
        blank = here.like.new_zeros(here.batch, 1, here.width, self.channels).permute(0, 3, 1, 2)
        # the channel of ones and the one-hot maps of a row
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
        """Move to the start of row ``row``."""
        self.move(row, 0)
        if row < 2:
            self.has_above.fill_(row)

    def move(self, row: int, column: int) -> None:
        for place in self.places:
            place.move(row, column)

    def row(self, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Compute a row: ``choose(params, column)`` turns parameters [B, 10K or 3K] into the pixel [B, C] in [-1, 1].
        Returns the row [B, C, W], which the next call overwrites. The operations depend only on the row index
        modulo 4."""
        # above the first row the shifts insert zeros, not the bias
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
