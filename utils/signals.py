"""Handling of Ctrl-C, SIGTERM and SIGHUP: a run finishes its step, saves, and prints how to resume."""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
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


def signals(*more: int) -> list[int]:
    """The signals to handle: none outside the main thread; SIGHUP (a closed terminal) only where it is not ignored, as
    under nohup."""
    if threading.current_thread() is not threading.main_thread():  # Python handles signals nowhere else
        return []
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, *hangup, *more]


@contextmanager
def handled(handler: Any, signums: list[int]) -> Iterator[None]:
    """Inside, ``handler`` is called for the signals ``signums``."""
    earlier = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, before in earlier.items():
            signal.signal(signum, before)


def stop_signals() -> AbstractContextManager[None]:
    """Inside, SIGTERM and SIGHUP raise `Interrupted`, as Ctrl-C raises KeyboardInterrupt."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    return handled(stop, signals())


class Interruption:
    """Inside this context the first of the signals, Ctrl-C included, is recorded in ``signum``; a second Ctrl-C stops
    at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.prompt = False
        self._handlers = ExitStack()

    def __enter__(self) -> "Interruption":
        self._handlers.enter_context(handled(self._note, signals(signal.SIGINT)))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._handlers.close()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = self.signum or signum
        if self.prompt:
            raise Interrupted(self.signum)

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
