"""Classify images by Bayes' rule: python classify.py PATH... --out predictions.csv.

A PATH is a file, or a folder that is searched recursively for files with an image's extension. --dataset NAME
--split SPLIT classifies a split of a data set instead. The CSV has a row for each image, in order: path, label,
class_name, confidence (posterior probability), bpd (bits per dimension under that class), typicality (the fraction of
reference images with a lower score), logp_<class> (nats) for each class, error. A missing or unreadable file gets only
an error, and the exit status is 1. A text that a spreadsheet would run as a formula is prefixed with '. Where the true
class is known (a folder above the image is named after a class, or the split has labels), accuracy and F1 are printed,
and confusion.png and reliability.png are written beside the CSV.
Rows are written to OUT.partial one by one, and --resume continues an interrupted classification. --out - writes the CSV
to standard output, and what is otherwise printed there to stderr; it and a pipe have no OUT.partial and no figures.
"""

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from data import load_split
from evaluation.attribution import check_maps, write_attributions
from evaluation.images import Images, files_of_split, images_of_paths, images_of_split
from evaluation.prediction_file import PredictionFile
from evaluation.predictions import Prediction, predict, warn_unconditional
from evaluation.prior import class_prior, describe_prior, prior_weights
from evaluation.report import figure_paths, report
from evaluation.scoring import MirrorScorer, Scorer
from evaluation.typicality import stored_reference
from model import PRETRAINED, PixelCNN, checkpoint_files, checkpoint_hash, load_checkpoint
from model.temperature import posterior_temperature
from utils.arguments import parse_settings, repeat_flag
from utils.device import pick_device
from utils.distributed import from_main, main_first, process_group, rank, world_size
from utils.errors import DataError, UserError
from utils.files import check_writable
from utils.outputs import check_inputs, only_output, output_name
from utils.precision import Precision
from utils.script import run_script
from utils.signals import Interrupted, Interruption
from utils.text import printable
from utils.values import OpenFraction, PathName, PathNames, PositiveInt, Temperature


@dataclass
class ClassifySettings:
    """Settings of classify.py.

    Args:
        checkpoint: a .pt file of pcnn_train.py, or an exported folder; by default the pretrained checkpoint for labels
            (burger, panda, koala, pizza).
        paths: files and folders of images.
        out: the CSV file to write; - is standard output.
        csv_bom: begin the CSV with a byte-order mark, without which Excel garbles names that are not ASCII.
        resume: continue an interrupted classification: keep the rows of OUT.partial.
        dataset: classify a split of this data set instead of PATHs.
        split: with --dataset: train, validation or test.
        data_dir: with --dataset: where its files are; datasets/NAME by default.
        prior: p(class), a positive number for each class, in the order of the checkpoint (for folders by sorted name:
            1, 10, 2), as in --prior 0.1 0.2 0.7, or by name, as in --prior cat=0.1 dog=0.9; scaled to sum to 1.
            Uniform by default.
        temperature: of the posterior, used for the confidence; labels do not depend on it. By default
            the one in the checkpoint, which was fitted on held-out or validation images, else 1.
        reject: images of a typicality below this number, between 0 and 1, get no class (label -1).
        tta: none, or flip: average log p of an image and of its mirror image (bpd, typicality and logp_ too), in twice
            the time.
        explain: a folder for the attribution maps: the per-pixel log-likelihood ratio of the two most probable classes.
        batch_size: images per batch, at least 1; auto is the device's default. Halved when memory runs out.
        precision: of the network: fp32, bf16, fp16 (CUDA only), or auto: bf16 where the device has it natively, fp16
            on older GPUs, else fp32, with close classes scored again in fp32; bf16 alone changed 2 % of the labels.
            The likelihood is fp32.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
    """

    checkpoint: PathName = PRETRAINED
    paths: PathNames = field(default_factory=list)
    out: PathName = "predictions.csv"
    csv_bom: bool = False
    resume: bool = False
    dataset: str | None = None
    split: str = "validation"
    data_dir: PathName | None = None
    prior: list[float | str] | None = None
    temperature: Temperature | None = None
    reject: OpenFraction | None = None
    tta: Literal["none", "flip"] = "none"
    explain: PathName | None = None
    batch_size: PositiveInt | Literal["auto"] = "auto"
    precision: Precision = "auto"
    device: str = "auto"


def is_number(argument: str) -> bool:
    try:
        float(argument)
    except ValueError:
        return False
    return True


def is_weight(argument: str) -> bool:
    """Whether an argument after --prior is a number or NAME=NUMBER, and not a flag or a file."""
    return is_number(argument) or ("=" in argument and argument[0] != "-" and not os.path.lexists(argument))


def main(argv: list[str] | None = None) -> int:
    argv = repeat_flag(sys.argv[1:] if argv is None else argv, "--prior", is_weight)
    settings = parse_settings(ClassifySettings, __doc__, argv, positional=["paths"])
    if bool(settings.paths) == (settings.dataset is not None):
        raise UserError("give either PATHs of images or --dataset NAME (see --help)")
    with process_group(), only_output(settings.out):
        return classify(settings)


def classify(settings: ClassifySettings) -> int:
    """Returns the exit status."""
    device = pick_device(settings.device)
    net = load_checkpoint(settings.checkpoint, device)
    weights = prior_weights(settings.prior, net.class_names)
    prior = class_prior(weights)
    temperature = posterior_temperature(settings.temperature, net)
    reference = stored_reference(net, settings.reject)
    warn_unconditional(net, "labels and confidences mean nothing, every image gets the class of the largest prior")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata; what matters is in the rows
    if settings.dataset is None:
        images = images_of_paths(settings.paths, net)
    else:
        load = (settings.dataset, settings.split, net.image_size, settings.data_dir, True)  # bad images get a row
        split = main_first(lambda: load_split(*load))
        images = images_of_split(split, net, files_of_split(split, settings.dataset, settings.split, settings.data_dir))

    read: list[str | Path] = [*checkpoint_files(settings.checkpoint), *images.files]
    written: list[str | Path] = [settings.out, *figure_paths(settings.out, images.truth)]
    check_inputs(written, read, "--out", settings.out)  # before the work, as all checks
    if os.path.realpath(settings.out) in map(os.path.realpath, written[1:]):
        raise UserError(f"--out {printable(settings.out)} is the name of a figure beside it; give another")
    for path in written:
        check_writable(path)
    if settings.explain:
        check_maps(images.names, settings.explain, read)
    batch_size = None if settings.batch_size == "auto" else settings.batch_size
    scorer = Scorer(net, settings.precision, batch_size, net.image_size)
    score = MirrorScorer(scorer) if settings.tta == "flip" else scorer
    identity = {
        "checkpoint": checkpoint_hash(settings.checkpoint),
        "prior": weights,
        "temperature": temperature,
        "reject": settings.reject,
        "tta": settings.tta,
        "csv_bom": settings.csv_bom,
        "precision": [settings.precision, scorer.precision],
        "batches": [device.type, scorer.batch_size, world_size()],  # on which the last digit depends
    }
    if rank() > 0:  # the main process alone writes
        for _ in predict(score, images, prior, temperature, from_main(0), reference, settings.reject):
            pass
        return 0
    file = PredictionFile(settings.out, net.class_names, identity, images, settings.resume)
    interruption = Interruption()
    try:
        with file, interruption, interruption.promptly():
            start = from_main(len(file.predictions))
            predicting = predict(score, images, prior, temperature, start, reference, settings.reject)
            bar = tqdm(predicting, "classifying", len(images.names), initial=start, unit="image", disable=None)
            for prediction in bar:
                file.write(prediction)
    except Interrupted as stop:
        done = f"{len(file.predictions)} of {len(images.names)} rows are in"
        if file.stream:
            raise Interrupted(stop.signum, f"stopped; {done} {output_name(settings.out)}") from None
        done += f" {shlex.quote(printable(file.partial))}"
        raise Interrupted(stop.signum, f"stopped; {done}: to resume, repeat the command with --resume") from None
    if prior is not None:
        print(describe_prior(prior, net.class_names))
    for line in report(file.predictions, net.class_names, settings.out, settings.reject):
        print(line)
    complete = settings.explain is None or explain(net, images, file.predictions, settings.explain, settings.tta)
    for line in images.notes:
        print(line)
    failed = sum(bool(p.error) for p in file.predictions)
    if failed:
        where = f"see the column error of {output_name(settings.out)}"
        print(f"{failed} of {len(file.predictions)} files could not be read; {where}", file=sys.stderr)
    return 0 if complete and not failed else 1


def explain(net: PixelCNN, images: Images, predictions: Sequence[Prediction], folder: str, tta: str) -> bool:
    """Write the attribution maps and say how many; whether each image that was classified has one that can have one."""
    explaining = write_attributions(net, images, predictions, folder, mirror=tta == "flip")
    done = list(tqdm(explaining, "attribution maps", unit="image", disable=None))
    gone = [error for error in done if isinstance(error, DataError)]
    count = len(done) - len(gone)
    where = f"{count} in {printable(folder)}, the first ones in overview.png" if count else "none"
    one_class = " (they compare two classes, and the checkpoint has one)" if net.num_classes == 1 else ""
    print(f"attribution maps: {where}{one_class}")
    if gone:
        print(
            f"{len(gone)} images could not be read again and have no map, such as {printable(str(gone[0]))}",
            file=sys.stderr,
        )
    return not gone


if __name__ == "__main__":
    run_script(main)
