"""Text that is safe on a terminal, in a file and as a file name."""

import os
import re
import unicodedata
from collections.abc import Sequence

# control characters, line and paragraph separators, marks that turn the direction of text, invalid UTF-8 bytes
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """Without line breaks and control characters: file names may contain terminal escape sequences."""
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def printable(name: str | os.PathLike) -> str:
    r"""A name on one line of valid Unicode: control characters and invalid UTF-8 bytes become \xNN or \uNNNN."""
    return UNPRINTABLE.sub(lambda match: escaped(match[0]), os.fspath(name))


def escaped(character: str) -> str:
    r"""\xNN of a character below 128, or of an invalid UTF-8 byte (a surrogate in Python's names); else \uNNNN."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def composed(name: str) -> str:
    """A name in composed Unicode (NFC); archives from macOS hold decomposed ones, which look the same."""
    return unicodedata.normalize("NFC", name)


def listed(names: Sequence[str], most: int) -> str:
    """The names, printable, of many the first ``most``, as in "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is the header."""
    cells = [[" ".join(cell.splitlines()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]]) + "\n"


def file_stems(class_names: Sequence[str]) -> list[str]:
    """A file name for every class, at most 50 characters, distinct even if case is ignored."""
    stems: list[str] = []
    taken: set[str] = set()
    for index, name in enumerate(class_names):
        stem = re.sub(r"[^\w+.-]+", "_", printable(name)).strip("._")[:40] or "class"
        while stem.casefold() in taken:
            stem = f"{stem}-{index}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
