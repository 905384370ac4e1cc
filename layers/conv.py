"""Causal convolutions by padding and shifting (Salimans et al. 2017, section 2.3 and figure 2).

Two kinds. *Down-shifted* convolutions see the rows above and the current row, centred; they form the
u stream. *Down-right-shifted* ones see above and to the left, the current pixel included; they form the ul
stream. Every convolution is weight-normalised per output channel (Salimans & Kingma 2016).
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


def weight_normed(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
    """Reparametrise ``conv.weight`` as g v / ||v||, one norm per OUTPUT channel."""
    return weight_norm(conv, dim=1 if isinstance(conv, nn.ConvTranspose2d) else 0)


class NetworkInNetwork(nn.Module):
    """A weight-normalised 1x1 convolution: [B, c_in, H, W] -> [B, c_out, H, W]."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = weight_normed(nn.Conv2d(c_in, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class DownShiftedConv2d(nn.Module):
    """Sees rows i-kh+1..i and columns j-kw//2..j+kw//2: [B, c_in, H, W] -> [B, c_out, H/stride, W/stride].

    With ``shift_down`` the output is shifted down one row (zero-padded), so that row i sees only rows above i.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: tuple[int, int] = (2, 3), stride: int = 1, shift_down: bool = False
    ):
        super().__init__()
        height, width = kernel
        self.conv = weight_normed(nn.Conv2d(c_in, c_out, kernel, stride))
        self.padding = (width // 2, width // 2, height - 1, 0)
        self.shift_down = shift_down

    def forward(self, x: Tensor) -> Tensor:
        return self.padded(F.pad(x, self.padding))

    def padded(self, x: Tensor) -> Tensor:
        """The same for an x that has its padding."""
        x = self.conv(x)
        return F.pad(x, (0, 0, 1, -1)) if self.shift_down else x


class DownRightShiftedConv2d(nn.Module):
    """Sees rows i-kh+1..i and columns j-kw+1..j: [B, c_in, H, W] -> [B, c_out, H/stride, W/stride].

    With ``shift_right`` the output is shifted right one column (zero-padded), so that column j sees only
    columns left of j.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: tuple[int, int] = (2, 2), stride: int = 1, shift_right: bool = False
    ):
        super().__init__()
        height, width = kernel
        self.conv = weight_normed(nn.Conv2d(c_in, c_out, kernel, stride))
        self.padding = (width - 1, 0, height - 1, 0)
        self.shift_right = shift_right

    def forward(self, x: Tensor) -> Tensor:
        return self.padded(F.pad(x, self.padding))

    def padded(self, x: Tensor) -> Tensor:
        """The same for an x that has its padding."""
        x = self.conv(x)
        return F.pad(x, (1, -1)) if self.shift_right else x


ShiftedConv2d = DownShiftedConv2d | DownRightShiftedConv2d


class DownShiftedDeconv2d(nn.Module):
    """Upsamples by 2 with a centred 2x3 transposed convolution: [B, c, H, W] -> [B, c_out, 2H, 2W]."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = weight_normed(nn.ConvTranspose2d(c_in, c_out, (2, 3), stride=2, output_padding=(0, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[..., 1:-1]  # the 3-wide kernel overhangs one column on each side


class DownRightShiftedDeconv2d(nn.Module):
    """Upsamples by 2 with a 2x2 transposed convolution: [B, c, H, W] -> [B, c_out, 2H, 2W]."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = weight_normed(nn.ConvTranspose2d(c_in, c_out, (2, 2), stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
