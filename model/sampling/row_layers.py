"""The incremental layers of the u stream: a step is a row [B, F, 1, W].

Each computes a layer row by row and caches what later rows need. Half and quarter resolution are computed only at the
rows that reach them.
"""

import torch
from torch import Tensor

from layers.activation import concat_elu, concat_elu_into
from layers.blocks import ActivatedConv, SideInput
from layers.conv import DownShiftedConv2d, DownShiftedDeconv2d
from model.sampling.place import FixedConv, Place, folded


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


ROWWISE = RowConv, RowSide, RowShrink, RowGrow
