"""Distributed runs under torchrun: process group, ranks and communication."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from utils.errors import UserError, reason

T = TypeVar("T")

TIME_TO_START = timedelta(minutes=5)  # within which all processes have to find one another
PATIENCE = timedelta(hours=6)  # the others wait while the main process draws samples and measures FID
SILENCE = 120  # seconds without a packet from another machine, after which it is taken for lost


def rank() -> int:
    """The number of this process, from 0; 0 is the main process, which alone writes files and logs."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group if torchrun started several processes: NCCL between GPUs, Gloo between CPUs.

    Raises UserError where another process is lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # has the same value in all processes of a machine
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIME_TO_START)
        # the second is its name in older versions of torch
        set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
        set_timeout(PATIENCE)
        watch_connections()
        yield
        barrier()  # a process that exits early breaks the others' connections
    except RuntimeError as error:
        if not is_loss(error):
            raise
        raise UserError(loss_message(error)) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def watch_connections() -> None:
    """Have the kernel end this process's connections after SILENCE.

    Without that, a process whose network is cut, or whose peer loses its power, may wait for as long as PATIENCE: Gloo
    has no such option.
    """
    options = {
        "TCP_KEEPIDLE": max(1, SILENCE // 4),  # where there is nothing to send, probes are sent
        "TCP_KEEPINTVL": max(1, SILENCE // 8),
        "TCP_KEEPCNT": 6,
        "TCP_USER_TIMEOUT": 1000 * SILENCE,  # milliseconds; Linux alone has it
    }
    for descriptor in os.listdir("/dev/fd"):
        try:
            connection = socket.socket(fileno=int(descriptor))
        except OSError:  # a file
            continue
        if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in options.items():
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        connection.detach()  # without closing it


def is_loss(error: BaseException) -> bool:
    """Whether an error means that another process has ended, cannot be reached or does not answer."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def loss_message(error: BaseException) -> str:
    """One line for the user about an error that `is_loss`."""
    why = re.sub(r"\[\S+:\d+\] |(\. This is|\. Check the) .*", "", reason(error))  # Gloo's source file and its guesses
    return f"another process has ended or cannot be reached ({why}); its own messages may say why"


def gather(value: T) -> list[T]:
    """The values of all processes, in order, in each of them."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_main(value: T) -> T:
    """The main process's value, in each process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def shared_batches(count: int, batch_size: int, first: int = 0) -> list[range]:
    """This process's batches of the numbers ``first`` .. ``count`` - 1, of up to ``batch_size`` numbers each.

    Process b modulo `world_size` has batch b. All processes have the same number of batches, the last of which may be
    empty; `in_order` is the inverse.
    """
    joint = batch_size * world_size()
    starts = range(first + rank() * batch_size, max(first, count) + rank() * batch_size, joint)
    return [range(min(start, count), min(start + batch_size, count)) for start in starts]


def in_order(batches: list[list[T]]) -> list[T]:
    """The results of `shared_batches`, gathered from all processes, in the order of the numbers."""
    return [result for joint in zip(*batches, strict=True) for result in joint]


def main_first(work: Callable[[], T]) -> T:
    """Run ``work`` in the main process, then in the others, so that files are downloaded once."""
    if rank() > 0:
        barrier()
        return work()
    result = work()
    barrier()
    return result


def all_max(*numbers: int) -> list[int]:
    """The maximum over processes of each of ``numbers``, in each process."""
    if world_size() == 1:
        return list(numbers)
    tensor = torch.tensor(numbers)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()


def all_mean(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of ``tensor`` over processes, in each of them."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / world_size()
