"""Turns on the device: several people's work, one short step at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")

END = object()


class Turns:
    """Runs steps of several threads in one thread, in the order in which they ask.

    A long work is an iterator whose steps are batches or rows, so that nobody waits for more than one step of each
    other person. PyTorch runs in this one thread only: its threads and CUDA graphs are those of one caller.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of ``function``, after the steps that others asked for before."""
        return self.pool.submit(function, *arguments).result()

    def each(self, steps: Iterator[Result]) -> Iterator[Result]:
        """The items of ``steps``, each computed in a turn of its own. Closing this closes ``steps``."""
        try:
            while (item := self.run(next, steps, END)) is not END:
                yield item
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                with suppress(RuntimeError):  # of a pool that has ended
                    self.pool.submit(close)  # without waiting: the server closes what is cancelled in its own thread

    def stop(self) -> None:
        """Let no further step begin."""
        self.pool.shutdown(wait=False, cancel_futures=True)
