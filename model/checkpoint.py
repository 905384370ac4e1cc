"""Checkpoints: one self-describing file, read without running any code from it."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from model.pixelcnn import SIDES, PixelCNN

__all__ = [
    "CheckpointError",
    "load_any_checkpoint",
    "load_checkpoint",
    "load_starter_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
]

FORMAT = "conditional-pixelcnn++ 1"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line that says why and what to do."""


def save_checkpoint(
    path: str | Path,
    net: PixelCNN,
    *,
    ema: PixelCNN | None = None,
    image_size: tuple[int, int],
    class_names: tuple[str, ...],
    dataset: str,
    **more: Any,
) -> None:
    """Write the network with everything needed to use it again; ``more`` holds plain values and tensors only.

    An earlier file at ``path`` stays until the new one is on the disk and was read back. Raises CheckpointError.
    """
    path = Path(path)
    checkpoint = {
        "format": FORMAT,
        "model": net.settings,
        "weights": net.state_dict(),
        "ema": None if ema is None else ema.state_dict(),
        "image_size": list(image_size),
        "class_names": list(class_names),
        "dataset": dataset,
        **more,
    }
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        read_checkpoint(partial)
        os.replace(partial, path)  # a reader never sees half a file
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} cannot be written ({reason}); is the disk full?") from None
    finally:
        partial.unlink(missing_ok=True)


def _torch_load(path: str | Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give the path of a .pt file that pcnn_train.py wrote")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("compressed")  # torch writes none; a small one could unpack to any size
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file makes the unpickler fail in any way at all
        raise CheckpointError(f"{path} cannot be read as a checkpoint: it is damaged, or not a checkpoint") from None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a file written by `save_checkpoint`, on the CPU. Raises CheckpointError."""
    checkpoint = _torch_load(path)
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this project (its format is not {FORMAT!r})")
    missing = {"model", "weights", "ema", "image_size", "class_names", "dataset"} - checkpoint.keys()
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}; it cannot be used")
    return checkpoint


def _check_weights(state: Mapping[str, Any], nr_resnet: int) -> None:
    """Raise ValueError unless ``state`` is float tensors, no larger than what the file holds of them, that may be a
    network with ``nr_resnet``: only then is it safe to build one, or to compute with them."""
    if not isinstance(nr_resnet, int) or 72 * nr_resnet > len(state):  # 12 blocks, of 6 weights or more
        raise ValueError(f"nr_resnet {nr_resnet} with {len(state)} weights")
    held: dict[int, int] = {}
    for name, value in state.items():
        usable = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not usable or value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(f"{name} is no tensor of floats")
        storage = value.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        if value.nbytes > storage.nbytes():  # one number, expanded to any shape
            raise ValueError(f"{name} is larger than what the file holds of it")
    if sum(value.nbytes for value in state.values()) > sum(held.values()):  # one tensor under many names
        raise ValueError("its weights are larger than what the file holds of them")


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu", weights: str = "ema") -> PixelCNN:
    """The network of a checkpoint, in eval mode on ``device``, with what it was saved with.

    The network's attributes ``class_names`` (tuple of str), ``image_size`` (H, W), ``dataset`` (str) and
    ``metadata`` (everything else that the file says) are set. ``weights`` picks the moving average ("ema", where
    the file has one) or the last weights ("last"). What the file says bounds the memory: the weights are all in it,
    and ``image_size`` is in SIDES. Raises CheckpointError; ValueError for other ``weights``.
    """
    if weights not in ("ema", "last"):
        raise ValueError(f"weights is {weights!r}; it must be 'ema' or 'last'")
    checkpoint = read_checkpoint(path)
    state = checkpoint.pop("weights")
    ema = checkpoint.pop("ema")
    if weights == "ema" and ema is not None:
        state = ema
    settings, names, size = checkpoint.pop("model"), checkpoint.pop("class_names"), checkpoint.pop("image_size")
    try:
        height, width = (int(side) for side in size)
        if height not in SIDES or width not in SIDES:
            raise ValueError(f"image_size is {height}x{width}, not multiples of 4 from {SIDES[0]} to {SIDES[-1]}")
        _check_weights(state, settings["nr_resnet"])
        with torch.device("meta"):  # nothing is allocated before the shapes are known to agree
            net = PixelCNN(**settings)
        net.load_state_dict(state, assign=True)
        if not isinstance(names, list | tuple) or len(names) != net.num_classes:
            raise ValueError(f"the names of its classes are not {net.num_classes} names")
        net.class_names = tuple(str(name) for name in names)
        net.image_size = (height, width)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} contradicts itself and cannot be used: {reason}") from None
    net.dataset = str(checkpoint.pop("dataset"))
    net.metadata = checkpoint
    return net.requires_grad_(True).float().to(device).eval()


def load_any_checkpoint(path: str | Path, num_classes: int, fusion: str) -> PixelCNN:
    """The network of a checkpoint of either kind: ours, or the starter code's with the class at zero effect."""
    content = _torch_load(path)
    if isinstance(content, dict) and "format" not in content:
        return load_starter_checkpoint(path, num_classes, fusion)
    return load_checkpoint(path)


def _starter_names(nr_resnet: int) -> dict[str, str]:
    """Names of the starter code's convolutions -> ours. It counts the way down from the coarsest level."""
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
    """This network with the weights of an unconditional starter-code state dict, the class at zero effect.

    nr_resnet, nr_filters, nr_logistic_mix and the channels are read off the shapes. The starter code normalises
    its transposed convolutions per INPUT channel; its weights are folded before they are set here, so the
    network's output is the same. Raises CheckpointError.
    """
    state = _torch_load(path)
    try:
        state = {name.removeprefix("module."): value for name, value in state.items()}
        nr_resnet = len({name.split(".")[3] for name in state if name.startswith("up_layers.0.u_stream.")})
        _check_weights(state, nr_resnet)
        nr_filters, c_in = state["u_init.conv.weight_v"].shape[:2]
        channels = int(c_in) - 1
        nr_mix = len(state["nin_out.lin_a.bias"]) // (10 if channels == 3 else 3)
        settings = (nr_resnet, int(nr_filters), nr_mix, channels, num_classes, fusion, dropout)
        with torch.device("meta"):  # nothing is allocated before the shapes are known to agree
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
            raise ValueError(f"it has {unknown[0]}, which the starter code has not")
        net = PixelCNN(*settings)
        modules = dict(net.named_modules())
        for theirs, ours in names.items():
            v, g = state[f"{theirs}.weight_v"].float(), state[f"{theirs}.weight_g"].float()
            weight = v * (g / v.flatten(1).norm(dim=1).view_as(g))
            padded = torch.zeros_like(modules[ours].weight)  # the maps of the class, which theirs has not, come last
            padded[:, : v.shape[1]] = weight.view(*weight.shape, 1, 1) if weight.dim() == 2 else weight
            modules[ours].weight = padded
            modules[ours].bias.copy_(state[f"{theirs}.bias"])
    except (AttributeError, KeyError, ValueError, IndexError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} is not a state dict of the starter code ({reason})") from None
    if fusion.endswith("middle"):
        net.fusion.alpha.zero_()
    return net.eval()
