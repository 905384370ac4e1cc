"""Handling of SIGTERM and Ctrl-C: a run finishes its step, saves, and prints how to resume."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupted(BaseException):
    """A signal ended the work early. Not an Exception, so that error handlers do not swallow it.

    Args:
        signum: the signal; scripts exit with 128 + signum.
        message: one line for the user.
    """

    def __init__(self, signum: int, message: str = "interrupted"):
        super().__init__(message)
        self.signum = signum


class Interruption:
    """Inside this context the first SIGTERM or Ctrl-C is recorded in ``signum``; a second Ctrl-C stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signum: int | None = None
        self.prompt = False
        self.earlier: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # Python handles signals nowhere else
            self.earlier = {signum: signal.signal(signum, self._note) for signum in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for signum, handler in self.earlier.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        if self.prompt:
            raise Interrupted(signum)

    def check(self) -> None:
        """Raise Interrupted if a signal was received."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    @contextmanager
    def promptly(self) -> Iterator[None]:
        """Inside, a signal raises Interrupted at once: for work that is redone from its start."""
        self.prompt = True
        try:
            self.check()
            yield
        finally:
            self.prompt = False
