"""Label images by Bayes' rule: python classify.py --checkpoint CKPT PATH... --out predictions.csv.

A PATH is a file, or a folder that is searched recursively; a data set's split instead: --dataset NAME --split SPLIT.
The CSV has a row for each image, in order: path, label, class_name, confidence (posterior probability), bpd (bits
per dimension under that class), logp_<class> (nats) for each class, error. A file that is no readable image gets
only an error, and the exit status is 1. Where the truth is known (a folder on the way to the image is named after a
class, or the split has labels), accuracy, macro F1 and confusion.png beside the CSV.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from data import load_split
from model import load_checkpoint
from training.cli import UserError, parse_settings, pick_device, run_script
from training.pictures import check_writable, confusion_picture, printable
from training.precision import Precision
from training.predictions import (
    class_prior,
    images_of_paths,
    images_of_split,
    join_list,
    predict,
    scores,
    write_csv,
)
from training.scoring import Scorer


@dataclass
class ClassifySettings:
    """Settings of classify.py.

    Args:
        checkpoint: a .pt file that pcnn_train.py wrote.
        paths: files and folders of images.
        out: the CSV file to write.
        dataset: label a split of this data set instead of PATHs.
        split: with --dataset: train, validation or test.
        data_dir: with --dataset: where its files are; none means datasets/NAME.
        prior: p(class), a positive number for each class, as in --prior 0.1 0.2 0.3 0.4; scaled to sum to 1.
            Uniform by default.
        batch_size: images at a time, at least 1; auto is what suits the device. Halved when memory runs out.
        precision: of the network: fp32, bf16, fp16 (CUDA only), or auto: bf16 where the device has it natively, fp16
            on older GPUs, else fp32, with classes that are close to each other decided in fp32. The likelihood is fp32.
        device: auto (CUDA where there is one), cpu, cuda, cuda:1, ...
    """

    checkpoint: str
    paths: list[str] = field(default_factory=list)
    out: str = "predictions.csv"
    dataset: str | None = None
    split: str = "validation"
    data_dir: str | None = None
    prior: list[float] | None = None
    batch_size: PositiveInt | Literal["auto"] = "auto"
    precision: Precision = "auto"
    device: str = "auto"


def is_number(argument: str) -> bool:
    try:
        float(argument)
    except ValueError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    argv = join_list(sys.argv[1:] if argv is None else argv, "--prior", is_number)
    settings = parse_settings(ClassifySettings, __doc__, argv, positional="paths")
    if bool(settings.paths) == (settings.dataset is not None):
        raise UserError("give either PATHs of images or --dataset NAME (--help lists what there is)")
    device = pick_device(settings.device)
    net = load_checkpoint(settings.checkpoint, device)
    prior = class_prior(settings.prior, net.num_classes)
    check_writable(settings.out)
    if settings.dataset is None:
        images = images_of_paths(settings.paths, net)
    else:
        split = load_split(settings.dataset, settings.split, net.image_size, settings.data_dir)
        images = images_of_split(split, net)

    batch_size = None if settings.batch_size == "auto" else settings.batch_size
    predicting = predict(Scorer(net, settings.precision, batch_size), images, prior)
    predictions = list(tqdm(predicting, "labelling", len(images.names), unit="image", disable=None))
    write_csv(settings.out, predictions, net.class_names)

    labelled = [p for p in predictions if not p.error]
    counts = Counter(p.label for p in labelled)
    each = ", ".join(f"{printable(name)} {counts[label]}" for label, name in enumerate(net.class_names))
    print(f"{len(labelled)} images labelled: {each}")
    judged = [p for p in labelled if p.truth >= 0]
    if judged:
        truth, predicted = [p.truth for p in judged], [p.label for p in judged]
        accuracy, f1 = scores(truth, predicted)
        confusion = Path(settings.out).with_name("confusion.png")
        confusion_picture(truth, predicted, net.class_names, confusion)
        over = f"all {len(judged)}" if len(judged) == len(labelled) else f"the {len(judged)} of {len(labelled)}"
        print(f"accuracy {accuracy:.4f}, macro F1 {f1:.4f} (over {over} images whose class is known)")
        print(f"confusion matrix: {printable(confusion)}")
    print(f"predictions: {printable(settings.out)}")
    failed = len(predictions) - len(labelled)
    if failed:
        where = f"the column error of {printable(settings.out)} says why"
        print(f"{failed} of {len(predictions)} files could not be read; {where}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
