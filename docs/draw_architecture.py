"""Draw docs/architecture.png, the figure of docs/architecture.md: python docs/draw_architecture.py."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

Point = tuple[float, float]

U = ("#dce8f6", "#2f5d95")  # fill and edge of the u stream
UL = ("#fce6d2", "#b5621a")
CLASS = ("#d8efd8", "#23752f")
PLAIN = ("#f1f1f1", "#555555")
HEAD = ("#e9e0f3", "#68459a")
LINE = "#444444"
BOX = 4.6  # height of a stage
ROWS = {"full": 66.0, "half": 51.5, "quarter": 37.0}  # middle of each resolution


def box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colours: tuple[str, str], **font: Any
) -> None:
    """A rounded box centred at (x, y)."""
    fill, edge = colours
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.8"
    axes.add_patch(FancyBboxPatch(corner, width, height, style, facecolor=fill, edgecolor=edge, linewidth=1.2))
    axes.text(x, y, text, ha="center", va="center", **{"fontsize": 10, "linespacing": 1.25, **font})


def arrow(axes: Axes, start: Point, end: Point, colour: str = LINE, width: float = 1.2, dashed: bool = False) -> None:
    """A straight arrow with a white border, so that crossings read as such."""
    shape: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
    if not dashed:
        axes.plot(*zip(start, end, strict=True), color="white", linewidth=width + 2.5, solid_capstyle="butt", zorder=1)
    style: Any = (0, (4, 2)) if dashed else "solid"
    axes.add_patch(FancyArrowPatch(start, end, color=colour, linewidth=width, linestyle=style, zorder=2, **shape))


def plus(axes: Axes, x: float, y: float, colours: tuple[str, str], radius: float = 1.15) -> None:
    """A circled plus."""
    axes.add_patch(Circle((x, y), radius, facecolor="white", edgecolor=colours[1], linewidth=1.3, zorder=3))
    half = 0.6 * radius
    axes.plot([x - half, x + half], [y, y], color=colours[1], linewidth=1.3, zorder=4)
    axes.plot([x, x], [y - half, y + half], color=colours[1], linewidth=1.3, zorder=4)


def stage(axes: Axes, x: float, y: float, count: str, lean: int) -> None:
    """The blocks of both streams at one resolution: u above ul, shifted against each other by ``lean``."""
    for stream, colours, shift, up in (("u", U, -lean, 1), ("ul", UL, lean, -1)):
        centre, middle = x + 2 * shift, y + up * 3.4
        box(axes, centre, middle, 16, BOX, "", colours)
        axes.text(centre - 7.2, middle, rf"$\bf{{{stream}}}$", ha="left", va="center", fontsize=11, color=colours[1])
        axes.text(centre - 0.1, middle, count, ha="center", va="center", fontsize=10)
        plus(axes, centre + 6.1, middle, CLASS)
    for offset in (-2.2, 0, 2.2):
        arrow(axes, (x + offset, y + 3.4 - BOX / 2), (x + offset, y - 3.4 + BOX / 2), UL[1], 0.9)


def network(axes: Axes) -> None:
    """Input, the two passes over three resolutions, and the head."""
    left, right = 38.0, 77.0
    for name, y in ROWS.items():
        stage(axes, left, y, "R blocks", 1)
        stage(axes, right, y, "R blocks" if name == "quarter" else "R + 1 blocks", -1)
        side = {"full": "", "half": "/2", "quarter": "/4"}[name]
        middle = (left + right) / 2
        axes.text(middle, y + 6.2, rf"$H{side} \times W{side}$", ha="center", va="center", fontsize=11)
        skips = "R skips" if name == "quarter" else "R + 1 skips"
        axes.text(middle, y, skips, ha="center", va="center", fontsize=10, color=LINE)
        for height, inset, colour in ((y + 3.4, 6.0, U[1]), (y - 3.4, 10.0, UL[1])):
            above = 0.9 if name == "quarter" else 0.0
            arrow(axes, (left + inset, height + above), (right - inset, height + above), colour, dashed=True)
            if name == "quarter":  # the coarsest map itself goes on
                arrow(axes, (left + inset, height - above), (right - inset, height - above), colour)
    for upper, lower in (("full", "half"), ("half", "quarter")):
        high, low = ROWS[upper], ROWS[lower]
        top, bottom = BOX / 2 + 3.4, BOX / 2 - 3.4  # upper edges of u and ul
        arrow(axes, (left - 8.3, high - bottom), (left - 8.3, low + top), U[1])
        arrow(axes, (left + 8.6, high - top), (left + 8.6, low + bottom), UL[1])
        arrow(axes, (right + 8.3, low + top), (right + 8.3, high - bottom), U[1])
        arrow(axes, (right - 8.6, low + bottom), (right - 8.6, high - top), UL[1])
        between = (high + low) / 2
        axes.text(left - 0.1, between, "stride-2 conv", ha="center", va="center", fontsize=9.5, color=LINE)
        axes.text(right + 0.1, between, "transposed conv", ha="center", va="center", fontsize=9.5, color=LINE)
    axes.text(left, 76.5, "up pass (to coarser maps)", ha="center", fontsize=11.5, fontweight="bold")
    axes.text(right, 76.5, "down pass (to finer maps)", ha="center", fontsize=11.5, fontweight="bold")

    y = ROWS["full"]
    box(axes, 6.5, y + 3.4, 11.5, 8.2, "image\n" r"$C$ channels" "\n+ ones channel", PLAIN, fontsize=9.5)
    box(axes, 6.5, y - 6.0, 11.5, 7.6, "one-hot maps\n" r"$C_y$ channels", CLASS, fontsize=9.5)
    box(axes, 20.3, y + 3.4, 10.4, BOX + 1.4, "conv $2\\times3$,\nshifted down", U, fontsize=9)
    box(
        axes,
        20.3,
        y - 4.7,
        10.4,
        BOX + 4.4,
        "conv $1\\times3$,\nshifted down\n+ conv $2\\times1$,\nshifted right",
        UL,
        fontsize=9,
    )
    axes.plot([13.4, 13.4], [y - 7.2, y + 5.6], color=LINE, linewidth=3.2, solid_capstyle="round")  # concatenation
    for height in (y + 3.4, y - 6.0):
        axes.plot([12.25, 13.4], [height, height], color=LINE, linewidth=1.2)
    arrow(axes, (13.4, y + 3.4), (15.1, y + 3.4))
    arrow(axes, (13.4, y - 4.0), (15.1, y - 4.0))
    arrow(axes, (25.5, y + 3.4), (left - 10.0, y + 3.4), U[1])
    arrow(axes, (25.5, y - 3.4), (left - 6.0, y - 3.4), UL[1])

    box(axes, 96.2, y - 3.4, 9.6, BOX + 1.2, "ELU,\n$1\\times1$ conv", HEAD)
    arrow(axes, (right + 6.0, y - 3.4), (91.4, y - 3.4), UL[1])
    box(axes, 98, 49.2, 19, 15.5, "", HEAD)
    text = (
        r"$\bf{mixture\ of\ K\ logistics}$"
        "\nper pixel:\n"
        r"$K$ logits"
        "\n"
        r"$C \times K$ means"
        "\n"
        r"$C \times K$ log-scales"
        "\n"
        r"$3K$ coefficients (RGB)"
    )
    axes.text(98, 49.2, text, ha="center", va="center", fontsize=9.5, linespacing=1.35)
    arrow(axes, (96.2, y - 3.4 - (BOX + 1.2) / 2), (96.2, 57.0), HEAD[1])

    box(axes, 8.2, 44.6, 14.4, 5.2, r"class $y$", CLASS, fontsize=11)
    arrow(axes, (6.5, 47.2), (6.5, y - 9.8), CLASS[1])
    axes.text(7.4, 52.0, "early fusion", ha="left", va="center", fontsize=10, color=CLASS[1], fontweight="bold")
    box(axes, 8.2, 34.4, 14.4, 5.6, r"$e_y = \alpha \cdot$Embed$(y)$", CLASS, fontsize=10)
    arrow(axes, (6.5, 42.0), (6.5, 37.2), CLASS[1])
    axes.text(7.4, 39.6, "middle fusion", ha="left", va="center", fontsize=10, color=CLASS[1], fontweight="bold")
    plus(axes, 18.6, 34.4, CLASS)
    axes.text(15.2, 30.4, "added after every\nresidual block", ha="center", va="top", fontsize=9.5, color=CLASS[1])
    axes.text(98, 36.0, "sample: round to 8 bits\nlikelihood: exact bin mass", ha="center", va="center", fontsize=9.5)


def residual_block(axes: Axes) -> None:
    """One gated residual block, along the bottom."""
    y = 13.5
    axes.add_patch(
        FancyBboxPatch(
            (0.8, 1.2), 107.4, 23.2, "round,pad=0,rounding_size=1.2", facecolor="#fafafa", edgecolor="#bbbbbb"
        )
    )
    axes.text(2.6, 22.3, "gated residual block", ha="left", va="center", fontsize=11.5, fontweight="bold")
    axes.text(4.0, y, r"$x$", ha="center", va="center", fontsize=13)
    arrow(axes, (5.4, y), (8.5, y))
    box(axes, 14.0, y, 11, 5.4, "concat ELU,\nconv to $F$", PLAIN)
    arrow(axes, (19.5, y), (27.0, y))
    plus(axes, 28.2, y, PLAIN)
    box(axes, 28.2, 5.2, 24, 4.8, "concat ELU, $1\\times1$ conv of the sides", PLAIN, fontsize=9.5)
    arrow(axes, (28.2, 7.6), (28.2, y - 1.2))
    sides = r"sides:  $u$ up: none   $ul$ up: $u$   $u$ down: skip   $ul$ down: $u$ and skip"
    axes.text(42.4, 5.2, sides, ha="left", va="center", fontsize=9.5, color=LINE)
    arrow(axes, (29.4, y), (34.0, y))
    box(axes, 43.2, y, 18.4, 5.4, "concat ELU, dropout,\nconv to $2F$: $a$, $b$", PLAIN)
    arrow(axes, (52.4, y), (57.2, y))
    box(axes, 62.7, y, 11, 5.4, r"$a \cdot \sigma(b)$", PLAIN, fontsize=11)
    arrow(axes, (68.2, y), (75.6, y))
    plus(axes, 76.8, y, PLAIN)
    axes.plot([6.6, 6.6, 76.8], [y, 19.6, 19.6], color=LINE, linewidth=1.2)
    arrow(axes, (76.8, 19.6), (76.8, y + 1.2))
    arrow(axes, (78.0, y), (86.6, y))
    plus(axes, 87.8, y, CLASS)
    axes.text(87.8, 21.0, r"$e_y$", ha="center", va="center", fontsize=13, color=CLASS[1])
    arrow(axes, (87.8, 19.4), (87.8, y + 1.2), CLASS[1])
    arrow(axes, (89.0, y), (96.5, y))
    axes.text(97.2, y, "next block", ha="left", va="center", fontsize=10)


def main() -> None:
    figure = Figure(figsize=(11.4, 8.3))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 109)
    axes.set_ylim(0, 79.4)
    axes.set_axis_off()
    network(axes)
    residual_block(axes)
    figure.savefig(Path(__file__).with_name("architecture.png"), dpi=160)


if __name__ == "__main__":
    main()
