"""Checkpoints for other programs: model.safetensors with the tensors, config.json with everything else."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from utils.errors import CheckpointError, reason
from utils.files import atomic_write
from utils.text import printable

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def exported_files(path: str | Path) -> tuple[Path, Path] | None:
    """The two files of an exported checkpoint, of its folder or of its weights; None where ``path`` is neither."""
    path = Path(path)
    if os.path.isfile(path / WEIGHTS) or os.path.isfile(path / CONFIG):  # which take a name too long for no file
        return path / WEIGHTS, path / CONFIG
    return (path, path.with_name(CONFIG)) if path.suffix == ".safetensors" else None


def write_exported(folder: str | Path, checkpoint: Mapping[str, Any]) -> None:
    """Write the contents of a checkpoint, `read_checkpoint`, into a folder, which exists. Raises UserError."""
    others = {name: value for name, value in checkpoint.items() if name != "weights"}
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint["weights"].items()}
    config = _without_tensors(others, "", tensors)
    with atomic_write(Path(folder, WEIGHTS)) as partial:
        # format: by which other programs know torch's; save_file would make a file that only its owner can read
        partial.write_bytes(save(tensors, metadata={"format": "pt"}))
    with atomic_write(Path(folder, CONFIG)) as partial:
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _without_tensors(content: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``content`` with its tensors moved to ``tensors``, named by the keys that lead to them, as in a/b."""
    if isinstance(content, Tensor):
        tensors[name] = content.contiguous()
        return None
    if not isinstance(content, Mapping):
        return content
    parts = {key: _without_tensors(value, f"{name}/{key}" if name else key, tensors) for key, value in content.items()}
    return {key: value for key, value in parts.items() if not isinstance(content[key], Tensor)}


def read_exported(path: str | Path) -> dict[str, Any]:
    """The contents that were written, on the CPU; no code from the files is run. Raises CheckpointError."""
    files = exported_files(path)
    assert files is not None
    for file in files:
        if not os.path.isfile(file):
            raise CheckpointError(
                f"{printable(file)} is missing; an exported checkpoint is {WEIGHTS} with {CONFIG} beside it, as "
                "python -m model.export writes them"
            )
    weights, config = files
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{printable(config)} cannot be read: {reason(error)}") from None
    except OSError as error:
        raise CheckpointError(f"{printable(config)} cannot be read ({error.strerror or error})") from None
    try:
        tensors = load_file(os.fspath(weights))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{printable(weights)} cannot be read as safetensors: {reason(error)}") from None
    content["weights"] = {name: tensor for name, tensor in tensors.items() if "/" not in name}
    for name, tensor in tensors.items():
        place: Any = content
        *folders, last = name.split("/")
        if not folders:
            continue
        for key in folders:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise CheckpointError(f"{printable(weights)} does not belong to {printable(config)}: {printable(name)}")
        place[last] = tensor
    return content
