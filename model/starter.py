"""Import of weights of the unconditional PixelCNN++ starter code."""

import os
from pathlib import Path
from typing import Any

import torch

from layers import MiddleFusion
from model.checkpoint import check_weights, load_checkpoint, torch_load
from model.pixelcnn import PixelCNN
from utils.errors import CheckpointError, reason

WRAPPERS = ("state_dict", "model_state_dict", "model")  # entries of a larger checkpoint that hold the state dict


def load_any_checkpoint(path: str | Path, num_classes: int, fusion: str) -> PixelCNN:
    """The network of a checkpoint of either kind: ours, or the starter code's with zero class effect."""
    content = torch_load(path)
    if isinstance(content, dict) and "format" not in content:
        return load_starter_checkpoint(path, num_classes, fusion)
    return load_checkpoint(path)


def _unwrapped(content: Any) -> dict[str, Any]:
    """The state dict itself: out of a larger checkpoint, without a prefix that all names have.

    DataParallel puts "module." before every name, torch.compile "_orig_mod.", a class around the network "model.".
    """
    for _ in WRAPPERS:
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    prefix = os.path.commonprefix(list(content))  # noqa: RUF071  # of characters; cut at a dot
    prefix = prefix[: prefix.rfind(".") + 1]
    return {name.removeprefix(prefix): value for name, value in content.items()}


def _starter_names(nr_resnet: int) -> dict[str, str]:
    """Names of the starter code's convolutions -> ours. It numbers the down pass from the coarsest level."""
    names = {
        "u_init.conv": "u_init.conv",
        "ul_init.0.conv": "ul_init_above.conv",
        "ul_init.1.conv": "ul_init_left.conv",
        "nin_out.lin_a": "head.conv",
    }
    for stream in ("u_stream", "ul_stream"):
        for level in range(3):
            for way, theirs, count in (
                ("up", f"up_layers.{level}", nr_resnet),
                ("down", f"down_layers.{2 - level}", nr_resnet + (level < 2)),
            ):
                for i in range(count):
                    block, ours = f"{theirs}.{stream}.{i}", f"{stream}.{way}.{level}.{i}"
                    names[f"{block}.conv_input.conv"] = f"{ours}.conv_in.conv.conv"
                    names[f"{block}.conv_out.conv"] = f"{ours}.conv_out.conv.conv"
                    names[f"{block}.nin_skip.lin_a"] = f"{ours}.side.nin.conv"
        for level in range(2):
            names[f"downsize_{stream}.{level}.conv"] = f"{stream}.shrink.{level}.conv"
            names[f"upsize_{stream}.{1 - level}.deconv"] = f"{stream}.grow.{level}.conv"
    return names


@torch.no_grad()
def load_starter_checkpoint(
    path: str | Path, num_classes: int, fusion: str = "early+middle", dropout: float = 0.5
) -> PixelCNN:
    """This network with the weights of an unconditional starter-code state dict and zero class effect.

    nr_resnet, nr_filters, nr_logistic_mix and the channels are inferred from the shapes. The starter code normalises
    its transposed convolutions per INPUT channel; its weights are folded before they are set here, so the
    network's output is the same. A state dict inside a larger checkpoint is taken out of it (`WRAPPERS`), and a prefix
    of all names is dropped. Raises CheckpointError.
    """
    content = torch_load(path)
    try:
        state = _unwrapped(content)
        if any(name.startswith("u_stream.") for name in state):
            raise ValueError("it is one of this project; give best.pt or last.pt, which hold its settings too")
        nr_resnet = len({name.split(".")[3] for name in state if name.startswith("up_layers.0.u_stream.")})
        check_weights(state, nr_resnet)
        nr_filters, c_in = state["u_init.conv.weight_v"].shape[:2]
        channels = int(c_in) - 1
        nr_mix = len(state["nin_out.lin_a.bias"]) // (10 if channels == 3 else 3)
        settings = (nr_resnet, int(nr_filters), nr_mix, channels, num_classes, fusion, dropout)
        with torch.device("meta"):  # allocates nothing before the shapes are checked
            plan = dict(PixelCNN(*settings).named_modules())
        names = {theirs: ours for theirs, ours in _starter_names(nr_resnet).items() if ours in plan}
        used: set[str] = set()
        for theirs, ours in names.items():
            shape = list(plan[ours].weight.shape)
            if ours.startswith(("u_init", "ul_init")):
                shape[1] = c_in
            if theirs.endswith("lin_a"):
                shape = shape[:2]  # a linear layer there, a 1x1 convolution here
            norms = [shape[0], *(1 for _ in shape[1:])]
            for name, wanted in (("weight_v", shape), ("weight_g", norms), ("bias", plan[ours].bias.shape)):
                name = f"{theirs}.{name}"
                if list(state[name].shape) != list(wanted):
                    raise ValueError(f"{name} has shape {tuple(state[name].shape)}")
                used.add(name)
        unknown = sorted(state.keys() - used)
        if unknown:
            raise ValueError(f"{unknown[0]} is not part of the starter code")
        net = PixelCNN(*settings)
        modules = dict(net.named_modules())
        for theirs, ours in names.items():
            v, g = state[f"{theirs}.weight_v"].float(), state[f"{theirs}.weight_g"].float()
            weight = v * (g / v.flatten(1).norm(dim=1).view_as(g))
            padded = torch.zeros_like(modules[ours].weight)  # our one-hot class maps come last
            padded[:, : v.shape[1]] = weight.view(*weight.shape, 1, 1) if weight.dim() == 2 else weight
            modules[ours].weight = padded
            modules[ours].bias.copy_(state[f"{theirs}.bias"])
    except KeyError as error:
        raise CheckpointError(f"{path} is not a state dict of the starter code (it lacks {error.args[0]})") from None
    except (AttributeError, ValueError, IndexError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a state dict of the starter code ({reason(error)})") from None
    if isinstance(net.fusion, MiddleFusion):
        net.fusion.alpha.zero_()
    return net.eval()
