"""The weights of a network for other classes: those that both have are matched by name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from model.pixelcnn import PixelCNN
from utils.text import composed


def match_classes(class_names: Sequence[str], known: Sequence[str]) -> dict[int, int]:
    """The number of each class that is also in ``known`` -> its number there. Names are compared in Unicode NFC."""
    numbers = {composed(name): number for number, name in enumerate(known)}
    normal = [composed(name) for name in class_names]
    return {number: numbers[name] for number, name in enumerate(normal) if name in numbers}


@torch.no_grad()
def copy_weights(net: PixelCNN, source: PixelCNN, classes: dict[int, int]) -> None:
    """Copy the weights of ``source`` into ``net``, which may have other classes but is otherwise built alike.

    Class c of ``net`` gets the weights of class ``classes[c]`` of ``source``; what only its other classes use stays
    as it is.
    """
    of_classes = [name for name, module in net.named_modules() if isinstance(module, nn.Embedding)]
    if net.early:
        of_classes += ["u_init.conv", "ul_init_above.conv", "ul_init_left.conv"]
    prefixes = tuple(f"{name}." for name in of_classes)
    shared = {name: value for name, value in source.state_dict().items() if not name.startswith(prefixes)}
    net.load_state_dict(shared, strict=False)
    ours, theirs = list(classes), list(classes.values())
    maps = net.image_channels + 1  # channels of the input before the one-hot maps
    for name in of_classes:
        module: Any = net.get_submodule(name)
        other: Any = source.get_submodule(name)
        weight = module.weight.clone()  # of a convolution: g v / ||v||, whose norm is over all classes
        if isinstance(module, nn.Embedding):
            weight[ours] = other.weight[theirs]
            module.weight.copy_(weight)
        else:
            weight[:, :maps] = other.weight[:, :maps]
            weight[:, [maps + c for c in ours]] = other.weight[:, [maps + c for c in theirs]]
            module.weight = weight
            module.bias.copy_(other.bias)
