"""Fonts for names in any script, and numbers for names that no font here has."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from utils.console import notify
from utils.text import listed, printable

LONGEST = 80  # characters of a name that are drawn
NAMED = 40  # names in the line about numbers


def class_labels(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """What a figure calls each class: its name, cut to ``longest`` characters, or its number as "#3" where no font here
    has the characters. A line on stderr, once for the same names, says which those are.
    """
    shown = [printable(name) for name in names]
    missing = [number for number, name in enumerate(shown) if font_file(name) is None]
    if missing:
        _explain_numbers(tuple((number, shown[number]) for number in missing))
    labels = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in shown]
    for number in missing:
        labels[number] = f"#{number}"
    return labels


@cache
def _explain_numbers(names: tuple[tuple[int, str], ...]) -> None:
    legend = listed([f"#{number} {name}" for number, name in names], NAMED)
    notify(f"no font of this machine has the characters of some names; figures have numbers instead: {legend}")


def set_fonts(figure: Figure) -> None:
    """Give each text of a figure a font that has its characters, where the default one does not; where there is none,
    the characters become \\uNNNN."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        file = font_file(text.get_text())
        if file is None:
            text.set_text(text.get_text().encode("ascii", "backslashreplace").decode())
        elif file != default_font():
            text.set_fontproperties(font_manager.FontProperties(fname=file, size=text.get_fontsize()))


def default_font() -> str:
    """The file of matplotlib's own font, which has Latin, Greek, Cyrillic, Arabic and more."""
    return font_manager.findfont("DejaVu Sans")


@cache
def font_file(text: str) -> str | None:
    """A font file that has every character of ``text``: matplotlib's own, or one of this machine; else None."""
    needed = np.array([ord(c) for c in text if unicodedata.category(c) not in ("Cc", "Cf")])  # line breaks, joiners
    return next((file for file in font_files() if np.isin(needed, _characters(file), kind="sort").all()), None)


@cache
def font_files() -> tuple[str, ...]:
    """Matplotlib's own font, then those of this machine, upright regular ones first."""

    def preference(file: str) -> tuple[bool, str]:
        name = Path(file).stem.lower()
        return any(word in name for word in ("bold", "italic", "oblique", "black", "thin", "light", "mono")), file

    return (default_font(), *sorted(font_manager.findSystemFonts(), key=preference))


@cache
def _characters(file: str) -> np.ndarray:
    """The characters of a font with outlines; none of one that cannot be used."""
    try:
        font = font_manager.get_font(file)
        usable = font.scalable and "last resort" not in font.family_name.lower()  # which draws boxes for all
        return np.array(list(font.get_charmap()) if usable else [], dtype=np.int64)
    except Exception:  # FreeType and matplotlib raise various ones for a damaged file
        return np.array([], dtype=np.int64)
