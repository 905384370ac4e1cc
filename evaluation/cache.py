"""Arrays of earlier evaluations, kept by the content that they were computed from."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.console import notify
from utils.distributed import from_main, rank
from utils.errors import UserError
from utils.files import atomic_write
from utils.text import printable

VERSION = 1  # of what the arrays mean; a new one makes all kept arrays unknown
Arrays = dict[str, np.ndarray]


def default_folder() -> Path:
    """Beside the other files that torch keeps."""
    return Path(torch.hub.get_dir(), "evaluations")


def pixel_hash(images: Tensor) -> str:
    """sha256 of uint8 [N, C, H, W], its shape included."""
    pixels = images.cpu().contiguous().numpy()
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


class Cache:
    """Arrays in .npz files below ``folder``, one per key.

    A file that is damaged, or of another key, is computed anew; where nothing can be written, a line says so, once.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder) if folder else default_folder()
        self.warned = False

    def arrays(self, key: Mapping[str, Any], compute: Callable[[], Arrays]) -> Arrays:
        """The arrays kept under ``key``, plain values; else those of ``compute``, which are then kept.

        Several processes call this together, and all get the same arrays: ``compute`` shares its work between them.
        """
        text = json.dumps({"version": VERSION, **key}, sort_keys=True)
        file = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
        kept = from_main(self.load(file, text) if rank() == 0 else None)
        if kept is not None:
            return kept
        arrays = compute()
        if rank() == 0:
            self.save(file, text, arrays)
        return arrays

    def load(self, file: Path, key: str) -> Arrays | None:
        """The arrays of a file; None where there is none that can be used."""
        with suppress(Exception):  # of half a .npz file, numpy and zipfile raise nearly anything
            with np.load(file) as opened:
                arrays = dict(opened)  # reads all, which checks the checksums
            if arrays.pop("key").item() == key:
                return arrays
        return None

    def save(self, file: Path, key: str, arrays: Arrays) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as partial, open(partial, "wb") as opened:
                np.savez_compressed(opened, key=np.array(key), **arrays)  # type: ignore[arg-type]
        except (OSError, UserError) as error:
            if not self.warned:
                notify(f"warning: results are not kept in {printable(self.folder)} ({error})")
            self.warned = True
