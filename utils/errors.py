"""Errors that reach a person as one line, and other libraries' errors in that form."""

import textwrap

__all__ = ["CheckpointError", "DataError", "UserError", "reason", "summary"]


class UserError(Exception):
    """A mistake of the person at the shell; the message is one line that says what was wrong and what to do."""


class DataError(UserError, ValueError):
    """A mistake about data."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used or written."""


def reason(error: BaseException) -> str:
    """The message of another library's error on one line, at most 300 characters, to quote in a message."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def summary(error: BaseException) -> str:
    """What went wrong on one line: the message of a `UserError`, of others their type too, at most 300 characters."""
    message = " ".join(str(error).split())
    if isinstance(error, UserError):
        return message
    return textwrap.shorten(f"{type(error).__name__}: {message}" if message else type(error).__name__, 300)
