"""Atomic writes, checks that a path is writable, and file hashes."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError
from utils.text import printable


@contextmanager
def write_errors(path: Path, advice: str = "") -> Iterator[None]:
    """Inside, an OSError becomes a UserError that says that ``path`` cannot be written, why, and ``advice``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be written ({error.strerror or error}){advice}") from None


def is_folder(path: str | Path) -> UserError:
    return UserError(f"{printable(path)} is a folder; give the name of a file")


def nameable(path: str | Path) -> Path:
    """``path``; raises UserError for one that no file can have, as . and /."""
    if not Path(path).name:
        raise is_folder(path)
    return Path(path)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, renamed to it at the end: readers never see a partial file.

    Raises UserError if it cannot be written.
    """
    path = nameable(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with write_errors(path):
            yield partial
            os.replace(partial, path)
    finally:
        with suppress(OSError):  # the error that matters is that of the write
            partial.unlink()


def check_writable(path: str | Path) -> None:
    """Create the folder of ``path`` if it is missing; raise UserError unless a file can be written there."""
    path = nameable(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    if path.is_dir():
        raise is_folder(path)


def file_hash(file: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
