"""Messages on the terminal."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm


def notify(message: str) -> None:
    """Write a line to stderr without breaking a progress bar."""
    tqdm.write(message, file=sys.stderr)


class SafeStream:
    """A text stream that never ends a program: what cannot be written is dropped.

    Args:
        stream: as sys.stdout. Characters that its encoding lacks are escaped.

    Attributes:
        error: of the first write that failed, as where the reader of a pipe or the terminal is gone.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                return self.stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            try:
                self.stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.error = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())  # for what is still buffered
        os.close(nowhere)


@contextmanager
def safe_output() -> Iterator[None]:
    """Inside, standard output and error are safe to write to, whatever their encoding and whether they are read.

    Raises at the end the OSError of a standard output that could not be written, but not where its reader is gone.
    """
    before = sys.stdout, sys.stderr
    safe = [SafeStream(stream or open(os.devnull, "w")) for stream in before]  # noqa: SIM115 None where it is closed
    sys.stdout, sys.stderr = safe
    try:
        yield
    finally:
        for stream in safe:
            stream.flush()
        sys.stdout, sys.stderr = before
    error = safe[0].error
    if error is not None and error.errno not in (errno.EPIPE, errno.EIO):
        raise error
