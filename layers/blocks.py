"""The gated residual block of PixelCNN++ (Salimans et al. 2017, section 2.4)."""

from collections.abc import Sequence

from torch import Tensor, nn

from layers.activation import concat_elu, dropout, gated_residual
from layers.conv import NetworkInNetwork, ShiftedConv2d
from layers.fusion import Condition, modulate


class ActivatedConv(nn.Module):
    """conv(dropout(concat_elu(x))): [B, F, H, W] -> [B, c_out, H, W].

    Args:
        conv: class of shifted convolution, called as ``conv(c_in, c_out)``.
        nr_filters: F.
        c_out: output channels.
        dropout: probability of zeroing an activation during training.
    """

    def __init__(self, conv: type[ShiftedConv2d], nr_filters: int, c_out: int, dropout: float = 0.0):
        super().__init__()
        self.conv = conv(2 * nr_filters, c_out)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.dropout:
            return self.conv(dropout(concat_elu(x), self.dropout, True))
        return self.conv.padded(concat_elu(x, padding=self.conv.padding))


class SideInput(nn.Module):
    """hidden + a 1x1 convolution of the concat_elu of ``nr_sides`` feature maps, concatenated along channels."""

    def __init__(self, nr_filters: int, nr_sides: int):
        super().__init__()
        self.nin = NetworkInNetwork(2 * nr_sides * nr_filters, nr_filters)

    def forward(self, hidden: Tensor, *sides: Tensor) -> Tensor:
        return hidden + self.nin(concat_elu(*sides))


class GatedResidualBlock(nn.Module):
    """x + a * sigmoid(b), then class conditioning: [B, F, H, W] -> [B, F, H, W].

    a and b are the halves of conv(dropout(concat_elu(conv(concat_elu(x)) + side))).

    Args:
        conv: class of shifted convolution.
        nr_filters: F.
        nr_sides: number of side inputs of F channels (skip connection, other stream): 0, 1 or 2.
        dropout: probability of zeroing a hidden activation during training.
    """

    index: int  # position in its stream, set by `Stream`

    def __init__(self, conv: type[ShiftedConv2d], nr_filters: int, nr_sides: int, dropout: float):
        super().__init__()
        self.conv_in = ActivatedConv(conv, nr_filters, nr_filters)
        self.side = SideInput(nr_filters, nr_sides) if nr_sides else None
        self.conv_out = ActivatedConv(conv, nr_filters, 2 * nr_filters, dropout)

    def forward(self, x: Tensor, sides: Sequence[Tensor], condition: Condition) -> Tensor:
        hidden = self.conv_in(x)
        if self.side is not None:
            hidden = self.side(hidden, *sides)
        return modulate(gated_residual(x, self.conv_out(hidden)), condition)
