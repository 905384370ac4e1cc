"""Building blocks of the network: shifted convolutions, the gated residual block, class fusion."""

from layers.activation import concat_elu, concat_elu_into, dropout, gated_residual
from layers.blocks import ActivatedConv, GatedResidualBlock, SideInput
from layers.conv import (
    DownRightShiftedConv2d,
    DownRightShiftedDeconv2d,
    DownShiftedConv2d,
    DownShiftedDeconv2d,
    NetworkInNetwork,
    weight_normed,
)
from layers.fusion import FUSIONS, FiLM, Fusion, LateFusion, MiddleFusion, NoFusion, modulate

__all__ = [
    "FUSIONS",
    "ActivatedConv",
    "DownRightShiftedConv2d",
    "DownRightShiftedDeconv2d",
    "DownShiftedConv2d",
    "DownShiftedDeconv2d",
    "FiLM",
    "Fusion",
    "GatedResidualBlock",
    "LateFusion",
    "MiddleFusion",
    "NetworkInNetwork",
    "NoFusion",
    "SideInput",
    "concat_elu",
    "concat_elu_into",
    "dropout",
    "gated_residual",
    "modulate",
    "weight_normed",
]
