"""Errors shown to the user as one line, and one-line forms of other errors."""


class UserError(Exception):
    """A user error; the message is one line with the problem and what to do."""


class DataError(UserError, ValueError):
    """Missing or invalid data."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used or written."""


def reason(error: BaseException) -> str:
    """The message of another library's error on one line, at most 300 characters, to quote in a message."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def summary(error: BaseException) -> str:
    """An error on one line: the message of a `UserError`; of others also the type, at most 300 characters."""
    message, kind = " ".join(str(error).split()), type(error).__name__
    if isinstance(error, UserError):
        return message
    return f"{kind}: {message}"[:300] if message else kind
