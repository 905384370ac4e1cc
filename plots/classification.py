"""Confusion matrix and reliability diagram."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from plots.figure import save_figure
from plots.fonts import class_labels

LABELLED = 40  # classes with a label in the confusion matrix
LONGEST = 30  # characters of a label
MAX_CELLS = 500  # of its side; the figure has about four pixels for each


def plot_confusion_matrix(
    truth: Sequence[int], predicted: Sequence[int], class_names: Sequence[str], path: str | Path
) -> None:
    """Write the confusion matrix as PNG: true classes down, predicted ones across.

    Up to 40 classes have counts in the cells. With more the figure stays as large, and every second, third, ... class
    is labelled; above 500 neighbouring classes share a cell, so that memory does not grow. ``truth`` and ``predicted``
    are labels, 0 .. num_classes-1, of the same N images. Raises UserError where ``path`` cannot be written.
    """
    classes = len(class_names)
    per_cell = -(-classes // MAX_CELLS)
    cells = -(-classes // per_cell)
    counts = np.zeros((cells, cells), dtype=np.int64)
    np.add.at(counts, (np.asarray(truth) // per_cell, np.asarray(predicted) // per_cell), 1)
    side = 2.5 + 0.5 * min(classes, LABELLED)  # inches
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    end = cells * per_cell - 0.5
    axes.imshow(counts, cmap="Blues", interpolation="nearest", extent=(-0.5, end, end, -0.5))
    shown = range(0, classes, -(-classes // LABELLED))
    names = class_labels(class_names, LONGEST)
    labels = [names[i] for i in shown]
    axes.set_xticks(shown, labels, rotation=90, parse_math=False)  # a $ in a name is a $
    axes.set_yticks(shown, labels, parse_math=False)
    shared = f" ({per_cell} per cell)" if per_cell > 1 else ""
    axes.set(xlabel=f"predicted class{shared}", ylabel=f"true class{shared}")
    for i in range(classes) if classes <= LABELLED else ():  # 10,000 numbers would take longer than many an epoch
        for j in range(classes):
            colour = "white" if 2 * counts[i, j] > counts.max() else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour)
    save_figure(figure, path)


def plot_reliability(
    bins: Sequence[tuple[float, float, float]],
    calibration_error: float,
    coverage: np.ndarray,
    accuracy: np.ndarray,
    path: str | Path,
) -> None:
    """A PNG of accuracy against confidence (reliability diagram) and of accuracy against coverage.

    Args:
        bins: fraction of the images, mean confidence and accuracy of each bin that has images.
        calibration_error: the expected calibration error, for the title.
        coverage: fraction of the images that is kept, the most confident first, float [N].
        accuracy: on the images that are kept, float [N].
        path: of the PNG.

    Raises UserError where ``path`` cannot be written.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="gray", linestyle="--", label="perfect calibration")
    share, confidence, in_bin = zip(*bins, strict=True)
    sizes = [20 + 600 * s for s in share]
    left.scatter(confidence, in_bin, s=sizes, alpha=0.7, label="bins (area: number of images)")
    left.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.03))
    left.set_title(f"expected calibration error {calibration_error:.3f}")
    left.legend(loc="upper left", markerscale=0.5)
    right.plot(coverage, accuracy)
    right.set(xlabel="coverage (most confident images first)", ylabel="accuracy", xlim=(0, 1.01))
    right.set_ylim(min(0.5, float(accuracy.min())), 1.01)
    half = accuracy[max(0, len(accuracy) // 2 - 1)]
    right.set_title(f"accuracy {accuracy[-1]:.3f} on all images, {half:.3f} on the most confident half")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save_figure(figure, path)
