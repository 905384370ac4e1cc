"""What all figures share."""

from pathlib import Path

from matplotlib.figure import Figure

from plots.fonts import set_fonts
from utils.figures import SOFTWARE
from utils.files import atomic_write


def save_figure(figure: Figure, path: str | Path, dpi: int = 100) -> None:
    """Write a PNG, whole or not at all, with fonts that have its characters. Raises UserError.

    Figures are made by ``Figure()``: pyplot keeps every figure and looks for a display.
    """
    set_fonts(figure)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=dpi, format="png", metadata={"Software": SOFTWARE})
