"""Selection of the device and of its numerical settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.errors import UserError
from utils.memory import out_of_memory


def pick_device(name: str) -> torch.device:
    """The device called ``name``, made the current one; "auto" is CUDA if there is a GPU, else the CPU.

    A CUDA device has an index: under torchrun, each process uses the GPU of its LOCAL_RANK. Disables TF32, in which
    cuDNN would round fp32 convolutions to 10 bits.

    Raises UserError for a device that is unavailable, or that several processes would share.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0  # also 0 if the driver is too old
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
    """The device called ``name``; None unless it is a CPU, CUDA or the accelerator of this machine, such as mps."""
    try:
        device = torch.device(name)
    except RuntimeError:
        return None
    accelerator = torch.accelerator.current_accelerator()
    known = {"cpu", "cuda"} | ({accelerator.type} if accelerator else set())
    return device if device.type in known else None


def own_gpu(number: int | None, gpus: int) -> int:
    """The GPU of this process: ``number``, or LOCAL_RANK if None. Raises UserError."""
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
    """Whether tensors can be created on the device. Raises UserError if it is only out of memory."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        if out_of_memory(error):
            raise UserError(f"--device {device}: no memory is free there; stop other programs, or use cpu") from None
        return False
    return True


@contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Inside, cuDNN benchmarks algorithms for each new shape: useful if shapes repeat."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
