"""Data-dependent initialisation of the weight-normalised convolutions (Salimans & Kingma 2016, section 3)."""

import torch
from torch import Tensor, nn

from layers import GatedResidualBlock
from model.mixture import to_unit
from model.pixelcnn import PixelCNN


@torch.no_grad()
def data_dependent_init(net: PixelCNN, images: Tensor, labels: Tensor) -> None:
    """Rescale every convolution so that on this batch each output channel has mean 0 and a given deviation.

    The standard deviation is 1, but 0.1 for the last convolution of a residual block, so that blocks start near
    the identity (as in the original implementation). images uint8 [B, C, H, W], labels int64 [B].
    """
    last_of_block = {block.conv_out.conv.conv for block in net.modules() if isinstance(block, GatedResidualBlock)}

    def rescale(conv: nn.Conv2d | nn.ConvTranspose2d, _inputs: tuple, out: Tensor) -> Tensor:
        mean, std = out.mean((0, 2, 3)), out.std((0, 2, 3), correction=0)
        std = torch.where(std > 1e-5, std, 1.0)  # a channel that is constant on this batch keeps its weights
        scale = (0.1 if conv in last_of_block else 1.0) / std
        channel_dim = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
        shape = [-1 if dim == channel_dim else 1 for dim in range(4)]
        conv.weight = conv.weight * scale.view(shape)  # parametrised: this sets g and v
        conv.bias.copy_((conv.bias - mean) * scale)  # type: ignore[operator, union-attr]  # all have a bias
        return (out - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1)

    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [conv.register_forward_hook(rescale) for conv in convs]
    training = net.training
    try:
        net.eval()(to_unit(images), labels)
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
