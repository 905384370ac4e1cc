"""The device that a script works on: which one, and how it computes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.errors import UserError

__all__ = ["cudnn_benchmark", "pick_device"]


def pick_device(name: str) -> torch.device:
    """The device called ``name``, made the current one; "auto" is CUDA where there is a GPU, else the CPU.

    A CUDA device comes with its number: under torchrun each process has the GPU of its LOCAL_RANK. From then on fp32
    is fp32 in convolutions too, where cuDNN would round to the 10 bits of TF32.

    Raises UserError for a device that is not here, or that several processes would share.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0  # a driver that is too old counts as well
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    device = known_device(name)
    if device is not None and device.type == "cuda":
        device = torch.device("cuda", own_gpu(device.index, gpus))
    if device is None or not works(device):
        raise UserError(f"--device {name}: there is no such device here; use --device cpu or auto")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams, events and graphs are the current device's
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device


def known_device(name: str) -> torch.device | None:
    """The device called ``name``, None where that is no CPU or CUDA device."""
    try:
        device = torch.device(name)
    except RuntimeError:
        return None
    return device if device.type in ("cpu", "cuda") else None


def own_gpu(number: int | None, gpus: int) -> int:
    """The GPU of this process: ``number``, or where that is None LOCAL_RANK. Raises UserError."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1 and number is not None:
        raise UserError(f"--device cuda:{number} puts all {processes} processes on one GPU; use --device cuda")
    if processes > gpus > 0:
        raise UserError(
            f"{processes} processes for {gpus} GPU{'s' if gpus > 1 else ''}, and each needs its own; "
            f"use --nproc_per_node {gpus}, or --device cpu"
        )
    return int(os.environ.get("LOCAL_RANK", "0")) if number is None else number


def works(device: torch.device) -> bool:
    """Whether tensors can be made on the device. Raises UserError where only its memory is wanting."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        if "out of memory" in str(error):
            raise UserError(f"--device {device}: no memory is free there; end other programs, or use cpu") from None
        return False
    return True


@contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Inside, cuDNN searches for the fastest algorithm of each new shape: for shapes that repeat."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
