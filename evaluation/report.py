"""The summary of a classification: counts, and where the true classes are known accuracy, F1 and calibration."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.calibration import expected_calibration_error, reliability_diagram
from evaluation.metrics import classification_scores
from evaluation.predictions import Prediction
from plots.classification import plot_confusion_matrix
from utils.outputs import destination, output_name
from utils.text import printable

SHOWN = 5  # images whose labels are printed, not only written


def figure_paths(out: str | Path, truth: Sequence[int]) -> list[Path]:
    """confusion.png and reliability.png beside the CSV ``out``; none if it is a stream, or no true label is known."""
    if destination(out) is None or not any(label >= 0 for label in truth):
        return []
    return [Path(out).with_name(name) for name in ("confusion.png", "reliability.png")]


def report(
    predictions: Sequence[Prediction], class_names: Sequence[str], out: str | Path, reject: float | None = None
) -> Iterator[str]:
    """Lines about the predictions in the CSV ``out``; the figures of `figure_paths` are written.

    Images without a prediction are left out, and so are rejected ones, those of a typicality below ``reject``; images
    of unknown class are left out of the metrics. Raises UserError where a figure cannot be written, after the lines
    that need none.
    """
    read = [p for p in predictions if not p.error]
    classified = [p for p in read if not p.rejected]
    counts = Counter(p.label for p in classified)
    names = [printable(name) for name in class_names]
    if len(predictions) <= SHOWN:
        for p in classified:
            yield f"{printable(p.name)}: {names[p.label]} (confidence {p.confidence:.3f})"
    images = "image" if len(classified) == 1 else "images"
    yield f"{len(classified)} {images} classified: {', '.join(f'{n}: {counts[i]}' for i, n in enumerate(names))}"
    if reject is not None and read:
        coverage = f"coverage {len(classified) / len(read):.4f}"
        yield f"{len(read) - len(classified)} images rejected (typicality below {reject:g}), {coverage}"
    yield f"predictions: {output_name(out)}"
    known = [p for p in classified if p.truth >= 0]
    if not known:
        return
    truth, predicted = [p.truth for p in known], [p.label for p in known]
    confidence, correct = [p.confidence for p in known], [p.label == p.truth for p in known]
    scores = classification_scores(truth, predicted)
    over = f"all {len(known)}" if len(known) == len(classified) else f"the {len(known)} of {len(classified)}"
    yield (
        f"accuracy {scores.accuracy:.4f}, balanced accuracy {scores.balanced_accuracy:.4f}, "
        f"macro F1 {scores.f1:.4f} (over {over} images of known class)"
    )
    yield "F1 per class: " + ", ".join(f"{names[label]}: {score:.3f}" for label, score in scores.f1_per_class.items())
    yield f"expected calibration error: {expected_calibration_error(confidence, correct):.3f}"
    figures = figure_paths(out, truth)
    if figures:
        confusion, reliability = figures
        plot_confusion_matrix(truth, predicted, class_names, confusion)
        reliability_diagram(confidence, correct, reliability)
        yield f"confusion matrix: {printable(confusion)}; reliability diagram: {printable(reliability)}"
