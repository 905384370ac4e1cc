"""The evaluation on the validation images at the end of a run with --select_on holdout."""

from pathlib import Path
from typing import Any

import torch

from data import ImageSet
from evaluation.evaluate import evaluate
from evaluation.metrics import wilson_interval
from evaluation.protocol import VALIDATION
from model import PixelCNN, load_checkpoint
from utils.console import notify
from utils.distributed import from_main, rank
from utils.errors import UserError, reason
from utils.precision import Precision


def evaluate_best(path: Path, net: PixelCNN, validation: ImageSet, precision: Precision) -> dict[str, float]:
    """What the last report of a run says of the validation images, under the best.pt at ``path``.

    ``net`` is the network of the run, whose weights stay as they are. Only the main process reads the file; all share
    the images. Where it cannot be read, a line says so and the answer is {}.
    """
    best = read_best(path, net)
    if best is None:
        return {}
    evaluation = evaluate(best, validation, precision)
    scores = {name: getattr(evaluation, name) for name in ("accuracy", "balanced_accuracy", "f1", "bpd")}
    return {VALIDATION + name: value for name, value in {**scores, "images": len(validation)}.items()}


def read_best(path: Path, net: PixelCNN) -> PixelCNN | None:
    """The network in ``path``, on the device of ``net``, in every process; None where the main process cannot read it,
    or it is not built like ``net``."""
    with torch.device("meta"):  # draws no random numbers
        best = PixelCNN(**net.settings)
    state = None
    if rank() == 0:
        try:
            state = load_checkpoint(path).state_dict()
            best.load_state_dict(state, assign=True)
        except (UserError, OSError, RuntimeError) as error:
            state = None
            notify(f"warning: the validation images are not evaluated: {reason(error)}")
    state = from_main(state)
    if state is None:
        return None
    best.load_state_dict(state, assign=True)
    return best.to(next(net.parameters()).device).eval()


def validation_scores(report: dict[str, Any]) -> str:
    """What a report with the figures of `evaluate_best` says of them."""
    accuracy, images = report["validation_accuracy"], report["validation_images"]
    low, high = wilson_interval(round(accuracy * images), images)
    return (
        f"accuracy {accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}, n = {images}), "
        f"balanced {report['validation_balanced_accuracy']:.4f}, macro F1 {report['validation_f1']:.4f}, "
        f"{report['validation_bpd']:.3f} bits/dim"
    )
