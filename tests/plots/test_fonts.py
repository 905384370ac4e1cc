"""Names in scripts that matplotlib's own font lacks."""

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from PIL import Image

from plots import fonts
from plots.classification import plot_confusion_matrix
from plots.figure import save_figure
from plots.fonts import class_labels, default_font, font_file
from plots.images import labelled_grid

PANDA, CAT = "熊", "猫"


def make_font(path, characters):
    """A font in which every character is a filled square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, names = pen.glyph(), [f"g{ord(c)}" for c in characters]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(dict(zip(map(ord, characters), names, strict=True)))
    builder.setupGlyf(dict.fromkeys([".notdef", *names], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (900, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def with_fonts(monkeypatch):
    """Make these files, and no others, the fonts of the machine."""

    def use(*files):
        monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: list(files))
        for cached in (fonts.font_files, fonts.font_file, fonts._explain_numbers):
            cached.cache_clear()

    yield use
    monkeypatch.undo()
    for cached in (fonts.font_files, fonts.font_file, fonts._explain_numbers):
        cached.cache_clear()


def test_a_font_that_has_the_characters_is_found(with_fonts, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    bold = make_font(tmp_path / "A-Bold.ttf", PANDA)
    one, both = make_font(tmp_path / "Few.ttf", PANDA), make_font(tmp_path / "Many.ttf", f"a{PANDA}{CAT}")
    with_fonts(str(tmp_path / "broken.ttf"), bold, one, both)
    assert font_file("cat") == font_file("Ünïcode") == font_file("") == font_file("a\nb") == default_font()
    assert font_file(PANDA) == one and font_file(PANDA + CAT) == font_file("a" + CAT) == both
    assert font_file("b" + CAT) is None


def test_names_that_no_font_has_are_numbers_with_a_legend(with_fonts, capsys):
    with_fonts()
    names = ["cat", PANDA, "long" * 50, "<b>\n"]
    assert class_labels(names) == ["cat", "#1", ("long" * 50)[:79] + "…", "<b>\\x0a"]
    assert class_labels(names, 5)[2] == "long…"
    assert capsys.readouterr().err == (  # once
        f"no font of this machine has the characters of some names; figures have numbers instead: #1 {PANDA}\n"
    )
    class_labels([CAT] * 50)
    assert capsys.readouterr().err.endswith(f"#39 {CAT} and 10 more\n")


def dark(path, left, right):
    """The black pixels of a part of a picture, between fractions of its width."""
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("L"))
    width = pixels.shape[1]
    return int((pixels[:, int(left * width) : int(right * width)] < 64).sum())


def test_figures_and_grids_use_that_font(with_fonts, tmp_path, recwarn):
    """Where the name is, a square of the font, which is blacker than a number or an empty box."""
    images, labels = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8), torch.tensor([0, 1])

    def drawn(folder):
        folder.mkdir()
        plot_confusion_matrix([0, 1], [0, 1], [CAT, PANDA], folder / "confusion.png")
        labelled_grid(images, labels, [CAT, PANDA], folder / "grid.png")
        figure = Figure()
        figure.suptitle(f"{PANDA} {CAT}")
        save_figure(figure, folder / "figure.png")
        return dark(folder / "confusion.png", 0.05, 0.15), dark(folder / "grid.png", 0, 0.3)

    with_fonts()
    without = drawn(tmp_path / "without")
    with_fonts(make_font(tmp_path / "Han.ttf", PANDA + CAT))
    assert all(more > 1.5 * less > 0 for more, less in zip(drawn(tmp_path / "with"), without, strict=True))
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]  # of matplotlib, before a box
