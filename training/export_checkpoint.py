"""Export a checkpoint for others: python -m training.export_checkpoint --checkpoint runs/NAME/best.pt --out OUT.pt.

It holds the moving average of the weights alone, what was measured on validation images, the temperature that
calibrates the posterior, fitted on the images that the epoch was chosen on, and the scores of the validation images,
with which classify.py compares others (typicality). The calibration error is measured on other images than those that
the temperature was fitted on.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from data import ImageSet, load_split
from data.splits import hold_out
from evaluation.calibration import cross_fitted_confidence, expected_calibration_error, fit_temperature
from evaluation.evaluate import Evaluation, check_labelled, evaluate
from evaluation.images import check_data_set, files_of_split
from evaluation.predictions import warn_unconditional
from evaluation.protocol import ORIGIN, holds_out, trained_with
from evaluation.typicality import typicality_reference
from model import PixelCNN, checkpoint_files, load_checkpoint, posterior, save_checkpoint
from model.temperature import sample_temperature
from training.settings import tagged
from utils.arguments import parse_settings
from utils.console import notify
from utils.device import pick_device
from utils.errors import UserError
from utils.files import check_writable
from utils.outputs import check_inputs, destination, only_output, output_name
from utils.script import run_script
from utils.values import Fraction, PathName, Temperature


@dataclass
class ExportSettings:
    """Settings of training.export_checkpoint.

    Args:
        checkpoint: a .pt file of pcnn_train.py.
        out: the file to write; - is standard output.
        split: of the checkpoint's data set, to measure on; the temperature is fitted on the held-out training images of
            a run with --select_on holdout, else on this split too.
        data_dir: where the data set's files are; datasets/NAME by default.
        sample_temperature: the temperature of the samples that generate.py and evaluate.py draw unless told otherwise,
            at least 1e-6; by default that of --checkpoint, or 1.
        half: keep the weights in 16 bits, half the size; refused if that costs more accuracy than --half_cost.
        half_cost: the accuracy that --half may cost, 0 to below 1.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
    """

    checkpoint: PathName
    out: PathName
    split: str = "validation"
    data_dir: PathName | None = None
    sample_temperature: Temperature | None = None
    half: bool = False
    half_cost: Fraction = 0.0
    device: str = "auto"


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(ExportSettings, __doc__, argv)
    with only_output(settings.out):
        return export(settings)


def export(settings: ExportSettings) -> int:
    """Returns the exit status."""
    check_inputs([settings.out], checkpoint_files(settings.checkpoint), "--out", settings.out)
    check_writable(settings.out)
    net = load_checkpoint(settings.checkpoint, pick_device(settings.device))
    trained = trained_with(net)
    skip = bool(trained.get("skip_bad_images"))  # as the run did
    names = [settings.split, *(["train"] if holds_out(net) else [])]
    split, *train = splits = [read_split(net, name, settings, skip) for name in names]
    for line in dict.fromkeys(line for read in splits for line in read.lines()):  # both may list the same folder
        notify(line)
    held = held_out_images(net, train[0]) if train else None
    warn_unconditional(net, "accuracy and temperature mean nothing")
    evaluation = evaluate(net, split, "fp32")
    if settings.half:
        full = evaluation.accuracy
        evaluation = evaluate(net.half().float(), split, "fp32")
        if evaluation.accuracy < full - settings.half_cost:
            raise UserError(f"--half: accuracy would be {evaluation.accuracy:.4f}, not {full:.4f}; leave it out")
        print(f"accuracy {evaluation.accuracy:.4f} in 16 bits, {full:.4f} in 32")
    over = f"{len(split)} {settings.split} images"
    temperature, error = calibrate(net, evaluation, split, held, over)
    save_checkpoint(
        settings.out,
        net.half() if settings.half else net,
        image_size=net.image_size,
        class_names=net.class_names,
        dataset=net.dataset,
        settings={k: v for k, v in trained.items() if k not in tagged("machine")},
        epoch=net.metadata.get("epoch"),
        step=net.metadata.get("step"),
        **{name: value for name, value in net.metadata.items() if name in ORIGIN},
        temperature=temperature,
        sample_temperature=sample_temperature(settings.sample_temperature, net),
        temperature_from=settings.split if held is None else "holdout",
        typicality=typicality_reference(split.images, evaluation.log_likelihoods),
        validation={
            "split": settings.split,
            "images": len(split),
            "accuracy": evaluation.accuracy,
            "balanced_accuracy": evaluation.balanced_accuracy,
            "f1": evaluation.f1,
            "bpd": evaluation.bpd,
            "expected_calibration_error": error,
        },
    )
    scores = f"balanced accuracy {evaluation.balanced_accuracy:.4f}, macro F1 {evaluation.f1:.4f}"
    print(f"accuracy {evaluation.accuracy:.4f}, {scores}, {evaluation.bpd:.3f} bits/dim over {over}")
    target = destination(settings.out)
    size = "" if target is None else f": {target.stat().st_size / 2**20:.1f} MiB"
    print(f"{output_name(settings.out)}{size}")
    return 0


def read_split(net: PixelCNN, name: str, settings: ExportSettings, skip_bad_images: bool) -> ImageSet:
    """A split of the data set of a network. Raises UserError where it is not usable or --out is one of its files."""
    split = load_split(net.dataset, name, net.image_size, settings.data_dir, skip_bad_images)
    check_data_set(split, net)
    files = files_of_split(split, net.dataset, name, settings.data_dir)
    check_inputs([settings.out], files, "--out", settings.out)
    check_labelled(split, f"{net.dataset} {name}")
    return split


def held_out_images(net: PixelCNN, train: ImageSet) -> ImageSet:
    """Those of the training images that the run of a network held out. Raises UserError where they are others now."""
    held, measured = hold_out(train)[1], net.metadata.get("validation")
    count = len(held)
    if isinstance(measured, dict) and measured.get("split") == "holdout":
        count = measured.get("images", count)
    if len(held) != count or not count:
        raise UserError(
            f"the training images are not those of the run: {len(held)} would be held out, and {count} were; "
            "give the --data_dir that it was trained on"
        )
    return held


def calibrate(
    net: PixelCNN, evaluation: Evaluation, split: ImageSet, held: ImageSet | None, over: str
) -> tuple[float, float]:
    """The temperature of a network, and the expected calibration error at it on other images than it was fitted on.

    It is fitted on the images ``held``; where there are none on those of ``evaluation``, which are those of ``split``,
    called ``over``. Prints both.
    """
    log_p, correct = evaluation.log_likelihoods.double(), (evaluation.predictions == split.labels).tolist()
    if held is None:
        temperature, fitted_on = fit_temperature(log_p, split.labels), f"the same {over}"
    else:
        temperature = fit_temperature(evaluate(net, held, "fp32").log_likelihoods, held.labels)
        fitted_on = f"{len(held)} held-out training images"

    def judge(t: float, note: str = "") -> float:
        error = expected_calibration_error(posterior(log_p, None, t).amax(dim=1).tolist(), correct)
        loss = F.cross_entropy(log_p / t, split.labels).item()
        scores = f"expected calibration error {error:.4f}, cross-entropy {loss:.4f} nats"
        print(f"temperature {t:.1f}{note}: {scores} over {over}")
        return error

    judge(1.0)
    error = judge(temperature, f" (fitted on {fitted_on})")
    if held is None:
        error = expected_calibration_error(cross_fitted_confidence(log_p, split.labels).tolist(), correct)
        print(f"expected calibration error by 5-fold cross-fitting of the temperature: {error:.4f}")
    return temperature, error


if __name__ == "__main__":
    run_script(main)
