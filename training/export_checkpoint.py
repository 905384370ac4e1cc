"""Export a checkpoint for others: python -m training.export_checkpoint --checkpoint runs/NAME/best.pt --out OUT.pt.

It holds the moving average of the weights alone, what was measured on validation images, and the temperature that
calibrates the posterior, fitted on them too.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from data import load_split
from evaluation.calibration import expected_calibration_error, fit_temperature
from evaluation.evaluate import check_labelled, evaluate
from evaluation.images import check_data_set, files_of_split
from evaluation.predictions import warn_unconditional
from model import load_checkpoint, posterior, save_checkpoint
from training.settings import tagged
from utils.arguments import parse_settings
from utils.console import notify
from utils.device import pick_device
from utils.errors import UserError
from utils.files import check_writable
from utils.outputs import check_inputs, destination, only_output, output_name
from utils.script import run_script
from utils.values import PathName


@dataclass
class ExportSettings:
    """Settings of training.export_checkpoint.

    Args:
        checkpoint: a .pt file of pcnn_train.py.
        out: the file to write; - is standard output.
        split: of the checkpoint's data set, to measure and fit on.
        data_dir: where the data set's files are; datasets/NAME by default.
        half: keep the weights in 16 bits, half the size; refused if that costs accuracy.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
    """

    checkpoint: PathName
    out: PathName
    split: str = "validation"
    data_dir: PathName | None = None
    half: bool = False
    device: str = "auto"


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(ExportSettings, __doc__, argv)
    with only_output(settings.out):
        return export(settings)


def export(settings: ExportSettings) -> int:
    """Returns the exit status."""
    check_inputs([settings.out], [settings.checkpoint], "--out", settings.out)
    check_writable(settings.out)
    net = load_checkpoint(settings.checkpoint, pick_device(settings.device))
    trained_with = net.metadata.get("settings")
    if not isinstance(trained_with, dict):  # of a file that another program made
        trained_with = {}
    skip = bool(trained_with.get("skip_bad_images"))  # as the run did
    split = load_split(net.dataset, settings.split, net.image_size, settings.data_dir, skip)
    for line in split.lines():
        notify(line)
    check_data_set(split, net)
    files = files_of_split(split, net.dataset, settings.split, settings.data_dir)
    check_inputs([settings.out], files, "--out", settings.out)
    check_labelled(split, f"{net.dataset} {settings.split}")
    warn_unconditional(net, "accuracy and temperature mean nothing")
    evaluation = evaluate(net, split, "fp32")
    if settings.half:
        full = evaluation.accuracy
        evaluation = evaluate(net.half().float(), split, "fp32")
        if evaluation.accuracy < full:
            raise UserError(f"--half: accuracy would be {evaluation.accuracy:.4f}, not {full:.4f}; leave it out")
    temperature = fit_temperature(evaluation.log_likelihoods, split.labels)
    correct = (evaluation.predictions == split.labels).tolist()
    error = {}
    for name, t in (("1", 1.0), (f"{temperature:.1f}", temperature)):
        confidence = posterior(evaluation.log_likelihoods.double(), None, t).amax(dim=1).tolist()
        error[name] = expected_calibration_error(confidence, correct)
        loss = F.cross_entropy(evaluation.log_likelihoods.double() / t, split.labels).item()
        print(f"temperature {name}: expected calibration error {error[name]:.4f}, cross-entropy {loss:.4f} nats")
    save_checkpoint(
        settings.out,
        net.half() if settings.half else net,
        image_size=net.image_size,
        class_names=net.class_names,
        dataset=net.dataset,
        settings={k: v for k, v in trained_with.items() if k not in tagged("machine")},
        epoch=net.metadata.get("epoch"),
        step=net.metadata.get("step"),
        temperature=temperature,
        validation={
            "split": settings.split,
            "images": len(split),
            "accuracy": evaluation.accuracy,
            "balanced_accuracy": evaluation.balanced_accuracy,
            "f1": evaluation.f1,
            "bpd": evaluation.bpd,
            "expected_calibration_error": error[f"{temperature:.1f}"],
        },
    )
    scores = f"balanced accuracy {evaluation.balanced_accuracy:.4f}, macro F1 {evaluation.f1:.4f}"
    over = f"over {len(split)} {settings.split} images"
    print(f"accuracy {evaluation.accuracy:.4f}, {scores}, {evaluation.bpd:.3f} bits/dim {over}")
    target = destination(settings.out)
    size = "" if target is None else f": {target.stat().st_size / 2**20:.1f} MiB"
    print(f"{output_name(settings.out)}{size}")
    return 0


if __name__ == "__main__":
    run_script(main)
