"""Evaluate checkpoints: python evaluate.py [CHECKPOINT...] --dataset cpen455 --out report.

Writes report.md with tables and figures, and metrics.json, into the folder --out, and prints a table. Without a
CHECKPOINT it is the pretrained one; several stand side by side, those of evaluation.baseline too. --images FOLDER
measures images that any program drew. Results are kept, so that the next report computes only what is new. Sections:
classification, likelihood (bits/dim), samples (their quality), robustness (to corruptions), unseen (images of other
kinds). Nothing is downloaded but a data set that is not there.
"""

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from data import DatasetName
from evaluation.cache import Cache
from evaluation.inception import given_weights
from evaluation.predictions import warn_unconditional
from evaluation.sections.classification import classification
from evaluation.sections.images import EvaluationImages
from evaluation.sections.likelihood import likelihood
from evaluation.sections.networks import Network, check_networks, unique_names
from evaluation.sections.report import Report, prepare_folder
from evaluation.sections.robustness import robustness
from evaluation.sections.samples import SampleSettings, read_folder, samples, too_few
from evaluation.sections.summary import describe, summary_table
from evaluation.sections.unseen import default_sets, read_sets, unseen
from model import PRETRAINED
from training.evaluation_run import log_report
from utils.arguments import parse_settings, repeat_flag
from utils.console import notify
from utils.device import pick_device
from utils.distributed import process_group, rank
from utils.errors import UserError
from utils.files import check_folder
from utils.precision import Precision
from utils.script import run_script
from utils.signals import Interrupted
from utils.text import printable
from utils.values import PathName, PathNames, PositiveInt, Seed, Temperature

Section = Literal["classification", "likelihood", "samples", "robustness", "unseen"]
SECTIONS: tuple[Section, ...] = get_args(Section)


@dataclass
class EvaluateSettings:
    """Settings of evaluate.py.

    Args:
        checkpoints: .pt files of pcnn_train.py and evaluation.baseline, and exported folders; by default the
            pretrained checkpoint for labels, or with --images none.
        out: the folder of the report: new, empty, or that of an earlier report, which is replaced.
        sections: some of classification, likelihood, samples, robustness, unseen; by default all.
        dataset: the data set; by default that of the first checkpoint.
        split: the images that are judged: validation, train, or holdout, the tenth of the training images that
            --select_on holdout keeps out of training.
        data_dir: where the data set's files are; datasets/NAME by default.
        skip_bad_images: leave out images that cannot be read.
        samples_per_class: images that each network draws of each class, 6 or more in all.
        seed: of the samples.
        temperature: of the samples, as of generate.py: at least 1e-6; by default each checkpoint's, or 1.
        images: folders of images that another program drew, measured like samples; the class is in the name of the
            file (pizza_0001.png) or of its folder.
        imagenet_classes: the ImageNet class of each class, in order, for the class agreement; known for cpen455.
        fid_weights: a copy of pytorch-fid's Inception weights for FID; by default the file in torch's cache, if it is
            there.
        fid_dims: features of the Inception network, 64, 192, 768 or 2048.
        robustness_images: images that are corrupted, as many of each class.
        ood: what is new to the networks: digits, noise, a folder of images, DATASET:SPLIT, class:NAME, or the images of
            the data set blurred, gray, negative or upside_down; by default digits and noise (for digits noise).
        cache: folder of the results that are kept; by default in torch's cache.
        batch_size: images per batch, at least 1; auto is the device's default. Halved when memory runs out.
        precision: of the scores: fp32, bf16, fp16 (CUDA only), or auto (as classify.py); samples are fp32.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
        en_wandb: log the report to Weights & Biases; offline where there is no API key or no network.
        wandb_project: on W&B; by default WANDB_PROJECT, else conditional-pixelcnn.
        wandb_entity: the W&B user or team; by default WANDB_ENTITY, else your own.
        wandb_name: of the W&B run; by default WANDB_NAME, else W&B makes one up.
    """

    checkpoints: PathNames = field(default_factory=list)
    out: PathName = "report"
    sections: list[Section] = field(default_factory=lambda: list(SECTIONS))
    dataset: DatasetName | None = None
    split: Literal["validation", "train", "holdout"] = "validation"
    data_dir: PathName | None = None
    skip_bad_images: bool = False
    samples_per_class: PositiveInt = 250
    seed: Seed = 0
    temperature: Temperature | None = None
    images: PathNames = field(default_factory=list)
    imagenet_classes: list[int] | None = None
    fid_weights: PathName | None = None
    fid_dims: Literal[64, 192, 768, 2048] = 2048
    robustness_images: PositiveInt = 160
    ood: list[str] | None = None
    cache: PathName | None = None
    batch_size: PositiveInt | Literal["auto"] = "auto"
    precision: Precision = "fp32"
    device: str = "auto"
    en_wandb: bool = False
    wandb_project: str | None = None
    wandb_entity: str | None = None
    wandb_name: str | None = None


def is_value(argument: str) -> bool:
    """Whether an argument after --ood or --images is another value of it, and neither a flag nor a checkpoint."""
    return not argument.startswith("-") and not argument.endswith(".pt")


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    for flag, belongs in (
        ("--sections", SECTIONS.__contains__),
        ("--ood", is_value),
        ("--images", is_value),
        ("--imagenet_classes", str.isdigit),
    ):
        argv = repeat_flag(argv, flag, belongs)
    settings = parse_settings(EvaluateSettings, __doc__, argv, positional=["checkpoints"])
    with process_group():
        try:
            return evaluate(settings)
        except (KeyboardInterrupt, Interrupted) as stop:
            message = "stopped; what was computed is kept: repeat the command to go on"
            raise Interrupted(getattr(stop, "signum", signal.SIGINT), message) from None


def evaluate(settings: EvaluateSettings) -> int:
    """Returns the exit status."""
    device = pick_device(settings.device)
    if settings.cache and rank() == 0:
        check_folder(settings.cache)
    cache = Cache(settings.cache)
    paths = settings.checkpoints or ([] if settings.images else [PRETRAINED])
    names = unique_names([*paths, *settings.images])
    batch_size = None if settings.batch_size == "auto" else settings.batch_size
    networks = [
        Network(name, path, device, settings.precision, batch_size, cache)
        for name, path in zip(names[: len(paths)], paths, strict=True)
    ]
    sections = [name for name in SECTIONS if name in settings.sections and (networks or name == "samples")]
    if not sections:
        raise UserError("--images measures samples: leave --sections out, or add samples to it, or give checkpoints")
    dataset = settings.dataset or (networks[0].net.dataset if networks else "cpen455")
    size = networks[0].net.image_size if networks else None
    images = EvaluationImages(dataset, settings.split, size, settings.data_dir, settings.skip_bad_images)
    check_networks(networks, images.judged)
    folders = [
        read_folder(name, path, images.judged, settings.skip_bad_images)
        for name, path in zip(names[len(paths) :], settings.images, strict=True)
    ]
    for network in networks:
        if network.generative:
            warn_unconditional(network.net, "labels mean nothing")
    others = settings.ood if settings.ood is not None else default_sets(dataset)
    sets = read_sets(others, images.judged, settings.skip_bad_images) if "unseen" in sections else {}
    sampling = SampleSettings(
        settings.samples_per_class,
        settings.seed,
        settings.temperature,
        device,
        settings.imagenet_classes,
        given_weights(settings.fid_weights) if settings.fid_weights else None,
        settings.fid_dims,
    )
    sampling.check(images.judged)
    if "samples" in sections or ("likelihood" in sections and any(network.generative for network in networks)):
        _ = images.train  # read now, so that an error comes before anything is computed
    lacking = too_few(images) if "samples" in sections else ""
    if lacking and sections == ["samples"]:
        raise UserError(lacking)
    read: list[str | Path] = [*paths, *(file for folder in folders for file in folder.files)]
    for folder in folders:
        if Path(settings.out).resolve().is_relative_to(Path(folder.path).resolve()):
            raise UserError(f"--out {printable(settings.out)} is in the folder of --images; give another one")
    if rank() == 0:
        prepare_folder(settings.out, read)
        if lacking:
            notify(lacking)
    report = Report(settings.out if rank() == 0 else None, f"Evaluation on {dataset}, {settings.split}")
    report.text(describe(networks, folders, images))
    for name in sections:
        if name == "classification":
            classification(networks, images.judged, report)
        elif name == "likelihood":
            likelihood(networks, images, report)
        elif name == "samples":
            samples(networks, folders, images, sampling, report, cache)
        elif name == "robustness":
            robustness(networks, images.judged, settings.robustness_images, report)
        else:
            unseen(networks, images.judged, sets, report)
        report.write()  # what is done stays when the rest is cut off
    if rank() > 0:
        return 0
    print(summary_table(report), end="")
    print(f"report: {printable(Path(settings.out, 'report.md'))}")
    if settings.en_wandb:
        named = {name: getattr(settings, f"wandb_{name}") for name in ("project", "entity", "name")}
        log_report(report, {"checkpoints": list(map(str, paths)), "dataset": dataset, "split": settings.split}, named)
    return 0


if __name__ == "__main__":
    run_script(main)
