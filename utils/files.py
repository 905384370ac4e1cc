"""Atomic writes, checks that a path is writable, and file hashes."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError
from utils.outputs import destination, is_standard_output, open_stream, write_errors
from utils.text import printable


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, renamed to ``path`` at the end: readers never see a partial file.

    A link stays, and its target is replaced. What is no regular file, as standard output (-) or a pipe, gets the bytes
    at the end. Raises UserError if it cannot be written.
    """
    target = destination(path)
    if target is None:
        with write_errors(path), tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "file")
            yield whole
            with open(whole, "rb") as file, open_stream(path) as stream:
                shutil.copyfileobj(file, stream)
        return
    partial = target.with_name(target.name + ".partial")  # on the same disk
    try:
        with write_errors(path):
            yield partial
            os.replace(partial, target)
    finally:
        with suppress(OSError):  # the error that matters is that of the write
            partial.unlink()


def check_writable(path: str | Path) -> None:
    """Create the folder of ``path`` if it is missing; raise UserError unless a file can be written there."""
    target = destination(path)
    with write_errors(path):
        if target is not None:
            if target == Path(path):  # the folder of a link's target may be on a disk that is not mounted
                target.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=target.parent).close()
        elif not is_standard_output(path) and not os.access(path, os.W_OK):
            raise PermissionError("permission denied")


def check_folder(folder: str | Path) -> None:
    """Create ``folder`` if it is missing; raise UserError unless files can be written there."""
    if os.fspath(folder) == "-":
        raise UserError("- is standard output, which takes one file; give the name of a folder")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f"{printable(folder)} is not a folder; give another")
    with write_errors(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def file_hash(file: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
