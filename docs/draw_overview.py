"""Draw docs/overview.png, the picture of the README: python docs/draw_overview.py.

It puts together parts of three figures in this folder: samples (generate.py), the confusion matrix (classify.py) and
two attribution maps (classify.py --explain). The boxes below are pixels of those figures as they are now.
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

DOCS = Path(__file__).parent
CLASSES = ("burger", "panda", "koala", "pizza")

SAMPLES = (68, 4, 464, 400)  # left, top, right, bottom: four columns of samples
MATRIX = (82, 5, 446, 368)  # the cells of the confusion matrix
ATTRIBUTIONS = (  # an image, its map, and the two classes that the map compares
    ((3, 27, 186, 209), (193, 27, 376, 209), "burger", "pizza"),
    ((867, 259, 1050, 441), (1057, 259, 1240, 441), "panda", "koala"),
)


def show(axes: Axes, image: Image.Image, box: tuple[int, int, int, int], smooth: bool) -> None:
    axes.imshow(image.crop(box), interpolation="lanczos" if smooth else "nearest", extent=(0, 1, 1, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def class_ticks(axes: Axes, below: bool) -> None:
    places = [(i + 0.5) / len(CLASSES) for i in range(len(CLASSES))]
    axes.set_yticks(places, CLASSES, rotation=90, va="center")
    if below:
        axes.set_xticks(places, CLASSES)
    axes.tick_params(length=0, labelsize=9.5)


def main() -> None:
    samples, matrix, attributions = (
        Image.open(DOCS / f"cpen455_{name}.png").convert("RGB") for name in ("samples", "confusion", "explanations")
    )
    figure = Figure(figsize=(10.5, 3.8))
    shape = 3.8 / 10.5
    bottom, height = 0.145, 0.77
    width = height * shape  # of a square panel
    lefts = (0.028, 0.365, 0.695)

    left = figure.add_axes((lefts[0], bottom, width, height))
    show(left, samples, SAMPLES, smooth=False)
    class_ticks(left, below=False)
    middle = figure.add_axes((lefts[1], bottom, width, height))
    show(middle, matrix, MATRIX, smooth=True)
    class_ticks(middle, below=True)
    middle.set_xlabel("predicted class", fontsize=9.5)
    middle.set_ylabel("true class", fontsize=9.5)

    gap = 0.1  # between the two rows, with the legend of the upper one
    side = (height - gap) / 2
    for row, (image, nats, best, second) in enumerate(ATTRIBUTIONS):
        y = bottom + (1 - row) * (side + gap)
        for column, box in enumerate((image, nats)):
            x = lefts[2] + column * (side * shape + 0.03)
            axes = figure.add_axes((x, y, side * shape, side))
            show(axes, attributions, box, smooth=False)
            if column == 0:
                axes.set_xlabel(f"a sample of {best}", fontsize=9.5)
            else:
                place: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "fontsize": 9.5}
                axes.text(0.47, -0.06, f"for {best}", color="#a01020", ha="right", **place)
                axes.text(0.53, -0.06, f"for {second}", color="#1f5f9f", ha="left", **place)
    for x, title in zip(lefts, ("samples", "confusion matrix", "attribution maps"), strict=True):
        figure.text(x + width / 2, 0.94, title, ha="center", va="bottom", fontsize=12.5)
    figure.savefig(DOCS / "overview.png", dpi=180)


if __name__ == "__main__":
    main()
