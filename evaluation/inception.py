"""pytorch-fid's Inception network and its weights."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError, summary
from utils.files import file_hash
from utils.text import printable

__all__ = ["FIDUnavailable"]

OFFICIAL_SHA256 = "6726825d"  # the first digits, which the official file carries in its name
DOWNLOAD_TIMEOUT = 30  # seconds without an answer, so that a silent network does not hold up a run


class FIDUnavailable(UserError):
    """There are no usable Inception weights; the message is one line with the file and the folder to put it in."""


def load_network(dims: int, weights: str | Path | None) -> tuple[torch.nn.Module, Path, str]:
    """pytorch-fid's network, with the file its weights come from and that file's sha256. Raises FIDUnavailable."""
    try:
        from pytorch_fid import inception
    except ImportError as error:
        raise FIDUnavailable(f"pytorch-fid cannot be imported ({summary(error)}): pip install pytorch-fid") from error
    official = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(inception.FID_WEIGHTS_URL))
    file = Path(weights).expanduser() if weights else official
    if weights and not file.is_file():
        raise FIDUnavailable(f"--fid_weights {printable(file)}: no such file; give a copy of {official.name}")
    there = file.is_file()
    load = partial(
        inception.load_state_dict_from_url,  # downloads what is missing
        model_dir=str(file.parent),
        file_name=file.name,
        map_location="cpu",
        weights_only=True,  # a file from anywhere must not run code
    )
    try:
        with (
            swapped(inception, "load_state_dict_from_url", load),
            torch.random.fork_rng(devices=[]),  # a new network draws weights, which are then overwritten
            redirect_stdout(sys.stderr),
            socket_timeout(DOWNLOAD_TIMEOUT),
        ):
            network = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[dims]])
        return network.eval(), file, file_hash(file)
    except Exception as error:  # network, disk and unpickling errors have no common class
        if there or file.is_file():
            problem = f"{printable(file)} does not hold pytorch-fid's Inception weights ({summary(error)}); replace it"
        else:
            problem = (
                f"the Inception weights {file.name} are not in {printable(file.parent)} and could not be downloaded "
                f"({summary(error)}); put the file there, or give --fid_weights FILE. It is at "
                f"{inception.FID_WEIGHTS_URL}"
            )
        raise FIDUnavailable(problem) from error


@contextmanager
def swapped(module: Any, name: str, value: Any) -> Iterator[None]:
    """Give a global of another library another value for the while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """torch's download sets no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
