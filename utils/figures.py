"""The mark in the figures that this program draws, so that a search for images leaves them out."""

import os
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

from utils.console import notify
from utils.distributed import rank
from utils.text import printable

SOFTWARE = "conditional-pixelcnn"  # PNG's key "Software" in every figure; the images that are sampled have none
NAMES = re.compile(
    r"(confusion|reliability|overview|curves|coverage|robustness|epoch_\d{4,}|(confusion|samples|unseen)_.+|.+_grid)\.png",
    re.DOTALL,
)


def is_figure(file: Path) -> bool:
    """Whether a file is a figure of this program; False for one that cannot be read."""
    try:
        with open(file, "rb") as opened:
            start = opened.read(1000)  # texts come before the pixels
    except OSError:
        return False
    return start.startswith(b"\x89PNG") and b"tEXtSoftware\0" + SOFTWARE.encode() in start


def figures_in(folder: Path, names: Collection[str]) -> set[str]:
    """Those of the files of a folder, called ``names``, that are figures of this program.

    To spare slow disks, only files with a usual name of a figure are opened, and the other PNGs of a folder that holds
    such a figure: attribution maps are called after their images.
    """

    def figures(names: Collection[str]) -> set[str]:
        files = [(name, folder / name) for name in names]
        return {name for name, file in files if os.path.isfile(file) and is_figure(file)}  # opening a pipe would block

    if not figures([name for name in names if NAMES.fullmatch(name)]):
        return set()
    return figures([name for name in names if name.endswith(".png")])


@cache  # once for the splits of a data set, which are searched one by one
def say_left_out(example: Path, count: int) -> None:
    """Tell the user that figures were left out."""
    if rank() == 0:
        notify(f"left out: {count} figures that this program drew, such as {printable(example)}")
