"""Train a discriminative baseline: python -m evaluation.baseline --config configs/cpen455_baseline.yaml.

A ResNet learns p(class | image) on the same images as the PixelCNN++, to put beside Bayes' rule. The validation images
are evaluated once, with the weights of the last step; no epoch is chosen on them.
"""

import dataclasses
import os
import time
from typing import Any

import torch
from tqdm import tqdm

from data import DATASETS, ImageSet
from evaluation.baseline_network import BaselineScorer, build_baseline, save_baseline
from evaluation.baseline_training import BaselineSettings, train_baseline
from evaluation.images import files_of_split
from evaluation.metrics import classification_scores, wilson_interval
from evaluation.splits import held_out, load_labelled
from utils.arguments import parse_settings
from utils.device import pick_device
from utils.errors import UserError
from utils.files import check_writable
from utils.outputs import check_inputs, only_output, output_name
from utils.script import run_script


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(BaselineSettings, __doc__, argv)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("the baseline is trained in one process; start it with python, not with torchrun")
    with only_output(settings.out):
        return run(settings)


def run(settings: BaselineSettings) -> int:
    """Train, evaluate once, write; returns the exit status."""
    check_writable(settings.out)
    device = pick_device(settings.device)
    train, validation = load_images(settings)
    torch.manual_seed(settings.seed)
    channels = DATASETS[settings.dataset].channels
    net = build_baseline(settings.blocks, channels, train.num_classes).to(device, memory_format=torch.channels_last)
    net.image_size = train.image_size
    parameters = sum(p.numel() for p in net.parameters())
    height, width = train.image_size
    print(
        f"{settings.dataset}: {len(train)} training and {len(validation)} validation images of {height}x{width}, "
        f"{train.num_classes} classes; {parameters:,} parameters; {device}"
    )
    start = time.monotonic()
    train_baseline(net, train, settings, device)
    minutes = (time.monotonic() - start) / 60
    result = evaluate_baseline(BaselineScorer(net), validation)
    save_baseline(
        settings.out,
        net,
        settings.blocks,
        image_size=train.image_size,
        class_names=train.class_names,
        dataset=settings.dataset,
        settings={k: v for k, v in dataclasses.asdict(settings).items() if k not in ("data_dir", "device", "out")},
        validation=result,
    )
    low, high = result["interval"]
    print(
        f"accuracy {result['accuracy']:.4f} (95 % Wilson interval {low:.4f} to {high:.4f}), "
        f"macro F1 {result['f1']:.4f} over {len(validation)} validation images"
    )
    print(f"{parameters:,} parameters, trained in {minutes:.1f} minutes: {output_name(settings.out)}")
    return 0


def load_images(settings: BaselineSettings) -> tuple[ImageSet, ImageSet]:
    """The training and the validation images; says what was left out. Raises UserError, DataError."""
    where = (settings.image_size, settings.data_dir, settings.skip_bad_images)
    train, validation = load_labelled(settings.dataset, *where)
    for split, name in ((train, "train"), (validation, "validation")):
        files = files_of_split(split, settings.dataset, name, settings.data_dir)
        check_inputs([settings.out], files, "--out", settings.out)
    if settings.hold_out:
        train, _ = held_out(train, "--hold_out")
    if len(train) < 2:
        raise UserError("one training image is too few for batch normalization; add others")
    return train, validation


def evaluate_baseline(score: BaselineScorer, split: ImageSet) -> dict[str, Any]:
    """Accuracy, its 95 % Wilson interval and macro F1 (0..1) over all images of a split, and their number."""
    bar = tqdm(split.images.split(score.batch_size), "evaluating", leave=False, disable=None)
    predicted = torch.cat([score(batch).argmax(dim=1) for batch in bar])
    scores = classification_scores(split.labels.tolist(), predicted.tolist())
    correct = int((predicted == split.labels).sum())
    return {
        "images": len(split),
        "accuracy": scores.accuracy,
        "interval": list(wilson_interval(correct, len(split))),
        "f1": scores.f1,
    }


if __name__ == "__main__":
    run_script(main)
