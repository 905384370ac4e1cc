"""The summary of a classification: counts, and where the true classes are known accuracy, F1 and calibration."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evaluation.calibration import reliability_diagram
from evaluation.metrics import classification_scores
from evaluation.predictions import Prediction
from plots.classification import plot_confusion_matrix
from utils.text import printable


def report(predictions: Sequence[Prediction], class_names: Sequence[str], out: Path) -> list[str]:
    """Lines about the predictions in the CSV ``out``; confusion.png and reliability.png are written beside it.

    Images without a prediction are left out, those of unknown class from the metrics too. Raises UserError where a
    figure cannot be written.
    """
    classified = [p for p in predictions if not p.error]
    counts = Counter(p.label for p in classified)
    names = [printable(name) for name in class_names]
    lines = [f"{len(classified)} images classified: {', '.join(f'{n}: {counts[i]}' for i, n in enumerate(names))}"]
    known = [p for p in classified if p.truth >= 0]
    if known:
        truth, predicted = [p.truth for p in known], [p.label for p in known]
        confidence, correct = [p.confidence for p in known], [p.label == p.truth for p in known]
        scores = classification_scores(truth, predicted)
        confusion, reliability = out.with_name("confusion.png"), out.with_name("reliability.png")
        plot_confusion_matrix(truth, predicted, class_names, confusion)
        calibration_error = reliability_diagram(confidence, correct, reliability)
        over = f"all {len(known)}" if len(known) == len(classified) else f"the {len(known)} of {len(classified)}"
        lines += [
            f"accuracy {scores.accuracy:.4f}, balanced accuracy {scores.balanced_accuracy:.4f}, "
            f"macro F1 {scores.f1:.4f} (over {over} images of known class)",
            "F1 per class: "
            + ", ".join(f"{names[label]}: {score:.3f}" for label, score in scores.f1_per_class.items()),
            f"expected calibration error: {calibration_error:.3f}",
            f"confusion matrix: {printable(confusion)}; reliability diagram: {printable(reliability)}",
        ]
    return [*lines, f"predictions: {printable(out)}"]
