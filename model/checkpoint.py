"""Checkpoints: self-describing files, loaded without executing code from them."""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from model.exported import exported_files, read_exported
from model.pixelcnn import SIDES, PixelCNN
from utils.errors import CheckpointError, UserError, reason
from utils.files import atomic_write, file_hash
from utils.text import composed, one_line

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
PRETRAINED = str(CHECKPOINTS / "cpen455.pt")  # the one for labels
PRETRAINED_SAMPLES = str(CHECKPOINTS / "cpen455_samples.pt")  # the better one for samples
FORMAT = "conditional-pixelcnn++ 1"


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

    An existing file at ``path`` is replaced only after the new one was written and read back. Raises CheckpointError.
    """
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
    write_checkpoint(path, checkpoint, read_checkpoint)


def write_checkpoint(path: str | Path, content: dict[str, Any], read: Callable[[Path], Any]) -> None:
    """Write plain values and tensors; replaces a file at ``path`` only after ``read`` has read the new one.

    Raises CheckpointError.
    """
    try:
        with atomic_write(path) as partial:
            with open(partial, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            read(partial)
    except RuntimeError as error:  # as which torch reports a full disk
        raise CheckpointError(f"{path} cannot be written ({reason(error)}); is the disk full?") from None
    except UserError as error:
        raise CheckpointError(str(error)) from None


def torch_load(path: str | Path) -> Any:
    """The contents of a .pt file or an exported checkpoint, on the CPU; no code is run. Raises CheckpointError."""
    if exported_files(path):
        return read_exported(path)
    path = Path(path)
    if not os.path.isfile(path):  # which takes a name too long for no file
        raise CheckpointError(f"no checkpoint at {path}; give the path of a .pt file written by pcnn_train.py")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("compressed")  # torch never compresses; a small file could unpack to any size
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged file the unpickler can raise anything
        problem = "it is damaged, or not a checkpoint"
        if isinstance(error, pickle.UnpicklingError) and (kind := python_object(path)):
            problem = f"it holds Python objects ({kind}), which can run code; save its weights alone, a state_dict"
        others = [path.with_name(name) for name in ("best.pt", "last.pt") if name != path.name]
        advice = next((f"; {other} may be whole" for other in others if other.is_file()), "")
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {problem}{advice}") from None


def checkpoint_files(path: str | Path) -> list[Path]:
    """The files that a checkpoint is read from."""
    return list(exported_files(path) or [Path(path)])


def checkpoint_hash(path: str | Path) -> str:
    """sha256 of a checkpoint's file, of an exported one of its two files' hashes, in hexadecimal."""
    hashes = [file_hash(file) for file in checkpoint_files(path)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def python_object(path: Path) -> str:
    """The type of an object in a file of torch.save that is neither a tensor nor a plain value; empty without one."""
    with suppress(Exception):
        return next((one_line(kind)[:100] for kind in get_unsafe_globals_in_checkpoint(path)), "")
    return ""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a file written by `save_checkpoint`, on the CPU. Raises CheckpointError."""
    checkpoint = torch_load(path)
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this project (its format is not {FORMAT!r})")
    missing = {"model", "weights", "ema", "image_size", "class_names", "dataset"} - checkpoint.keys()
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}; it cannot be used")
    return checkpoint


def check_weights(state: Mapping[str, Any], nr_resnet: int) -> None:
    """Raise ValueError unless ``state`` passes `check_tensors` and has enough weights for ``nr_resnet``: only then is
    it safe to build a network from them."""
    if not isinstance(nr_resnet, int) or 72 * nr_resnet > len(state):  # 12 blocks of at least 6 weights
        raise ValueError(f"nr_resnet {nr_resnet} with {len(state)} weights")
    check_tensors(state)


def check_tensors(state: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``state`` holds finite float tensors, no larger than their data in the file."""
    held: dict[int, int] = {}
    for name, value in state.items():
        usable = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not usable or value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(f"{name} is not a floating-point tensor")
        storage = value.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        if value.nbytes > storage.nbytes():  # a scalar, expanded to any shape
            raise ValueError(f"{name} is larger than its data in the file")
    if sum(value.nbytes for value in state.values()) > sum(held.values()):  # one tensor stored under many names
        raise ValueError("the weights are larger than their data in the file")
    for name, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} is non-finite")


def check_description(names: Any, size: Any) -> tuple[tuple[str, ...], tuple[int, int]]:
    """The class names of a file, in composed Unicode, and its image size (H, W). Raises ValueError, TypeError."""
    height, width = size
    if not all(type(side) is int and side in SIDES for side in (height, width)):
        raise ValueError(f"image_size is {size!r}, not two whole multiples of 4 from {SIDES[0]} to {SIDES[-1]}")
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names is not a list of names")
    if len({*map(composed, names)}) < len(names):
        raise ValueError("class_names has a name twice")
    return tuple(map(composed, names)), (height, width)


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu", weights: str = "ema") -> PixelCNN:
    """The network of a checkpoint, in eval mode on ``device``.

    Sets the network's attributes ``class_names`` (tuple of str, in composed Unicode), ``image_size`` (H, W),
    ``dataset`` (str) and ``metadata`` (all other entries of the file). ``weights`` selects the moving average ("ema",
    if the file has one) or the last weights ("last"). The file bounds the memory: it contains all weights, and
    ``image_size`` is in SIDES. Raises CheckpointError; ValueError for other ``weights``.
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
        names, size = check_description(names, size)
        check_weights(state, settings["nr_resnet"])
        with torch.device("meta"):  # allocates nothing before the shapes are checked
            net = PixelCNN(**settings)
        net.load_state_dict(state, assign=True)
        if len(names) != net.num_classes:
            raise ValueError(f"class_names is not a list of {net.num_classes} names")
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise CheckpointError(f"{path} is inconsistent and cannot be used: {reason(error)}") from None
    net.class_names, net.image_size = names, size
    net.dataset = str(checkpoint.pop("dataset"))
    net.metadata = checkpoint
    return net.requires_grad_(True).float().to(device).eval()
