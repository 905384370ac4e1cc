"""Where output goes: behind links, through pipes and devices, to standard output, and never over an input."""

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError
from utils.text import printable

OPEN_FILES = re.compile(r"/proc/[^/]+(/task/\d+)?/fd|/dev/fd")  # folders of the files that a process has open


def is_standard_output(path: str | Path) -> bool:
    """Whether ``path`` is -, or names the standard output of this process, as /dev/stdout does."""
    if os.fspath(path) == "-":
        return True
    try:
        descriptor = sys.__stdout__.fileno()  # type: ignore[union-attr]  # None where it is closed
        same = os.path.samestat(os.stat(path), os.fstat(descriptor))
        return same and (not stat.S_ISCHR(os.fstat(descriptor).st_mode) or os.isatty(descriptor))  # not /dev/null
    except (OSError, AttributeError, ValueError):
        return False


def output_name(path: str | Path) -> str:
    """What a message calls ``path``."""
    return "standard output" if is_standard_output(path) else printable(path)


@contextmanager
def write_errors(path: str | Path, advice: str = "") -> Iterator[None]:
    """Inside, an OSError becomes a UserError that says that ``path`` cannot be written, why, and ``advice``.

    Only the BrokenPipeError of standard output stays one: its reader has what it wanted.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) and is_standard_output(path):
            raise
        raise UserError(f"{output_name(path)} cannot be written ({error.strerror or error}){advice}") from None


def folder_error(path: str | Path) -> UserError:
    return UserError(f"{printable(path)} is a folder; give the name of a file")


def file_path(path: str | Path) -> Path:
    """``path``; raises UserError for one that no file can have, as . and /."""
    if not Path(path).name:
        raise folder_error(path)
    return Path(path)


def is_open_file(path: Path) -> bool:
    """Whether ``path`` is a file that a process has open, as /dev/stderr and /dev/fd/3, or a link to one."""
    while True:
        folder = os.path.realpath(path.parent)
        if OPEN_FILES.fullmatch(folder):
            return True
        if not path.is_symlink():
            return False
        path = Path(folder, os.readlink(path))


def destination(path: str | Path) -> Path | None:
    """The regular file, there or not yet, that writing to ``path`` replaces: the target of a link, else ``path``.

    None for what is written through: standard output, an open file, a pipe, a terminal, another character device.
    Raises UserError for a folder, a disk, a socket, or a path that cannot be followed.
    """
    if is_standard_output(path):
        return None
    path = file_path(path)
    with write_errors(path):
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return target
    if stat.S_ISDIR(mode):
        raise folder_error(path)
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise UserError(f"{printable(path)} is a {'disk' if stat.S_ISBLK(mode) else 'socket'}; give the name of a file")
    return None if not stat.S_ISREG(mode) or is_open_file(path) else target


def open_stream(path: str | Path) -> BinaryIO:
    """What is written through, see `destination`, opened. Raises UserError, OSError."""
    if not is_standard_output(path):
        return open(path, "ab")  # an open file may hold something already
    if sys.__stdout__ is None:
        raise UserError("standard output is closed; give the name of a file")
    return open(os.dup(sys.__stdout__.fileno()), "wb")  # of its own, so that closing it does not close ours


@contextmanager
def only_output(path: str | Path | None) -> Iterator[None]:
    """Inside, what is printed goes to stderr if ``path`` is standard output, which then holds that file alone."""
    aside = path is not None and is_standard_output(path)
    with redirect_stdout(sys.stderr) if aside else nullcontext():
        yield


def identity(path: str | Path | int) -> tuple[int, int] | None:
    """Device and inode of a regular file, equal for all its paths; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def check_inputs(outputs: Iterable[str | Path], inputs: Iterable[str | Path], flag: str, value: str | Path) -> None:
    """Raise UserError if one of ``outputs``, of ``flag`` ``value``, is one of ``inputs`` by any path or link."""
    present = set()
    for path in outputs:
        if is_standard_output(path):
            present.add(None if sys.__stdout__ is None else identity(sys.__stdout__.fileno()))
        else:
            present.add(identity(os.path.realpath(path)))  # of gone/../x too, where gone is made later
    present.discard(None)
    for file in inputs if present else ():
        if identity(file) in present:
            what = f"{flag} {printable(value)} would overwrite {printable(file)}"
            raise UserError(f"{what}, which is an input; give another {flag}")
