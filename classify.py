"""Label images by Bayes' rule: python classify.py PATH... --out predictions.csv.

A PATH is a file, or a folder that is searched recursively for files with an image's extension; a data set's split
instead: --dataset NAME --split SPLIT. The CSV has a row for each image, in order: path, label, class_name, confidence
(posterior probability), bpd (bits per dimension under that class), logp_<class> (nats) for each class, error. A file
that is missing or no readable image gets only an error, and the exit status is 1. A text that a spreadsheet would run
has a ' before it. Where the truth is known (a folder on the way to the image is named after a class, or the split has
labels), accuracy, F1, confusion.png and reliability.png beside the CSV. Rows are written as they come to OUT.partial:
--resume goes on with them.
"""

import shlex
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse.typing import PositiveFloat, PositiveInt
from tqdm import tqdm

from data import load_split
from evaluation.attribution import write_attributions
from evaluation.calibration import expected_calibration_error, reliability_diagram
from evaluation.images import images_of_paths, images_of_split
from evaluation.metrics import classification_scores
from evaluation.prediction_file import PredictionFile
from evaluation.predictions import Prediction, class_prior, posterior_temperature, predict
from evaluation.scoring import MirrorScorer, Scorer
from model import PixelCNN, load_checkpoint
from model.checkpoint import PRETRAINED
from plots.classification import plot_confusion_matrix
from utils.arguments import bare_flag, join_list, parse_settings, run_script
from utils.device import pick_device
from utils.distributed import from_main, main_first, process_group, rank, world_size
from utils.errors import UserError
from utils.files import check_writable, file_hash
from utils.precision import Precision
from utils.signals import Interrupted, Interruption
from utils.text import printable


@dataclass
class ClassifySettings:
    """Settings of classify.py.

    Args:
        checkpoint: a .pt file that pcnn_train.py wrote; the network of burgers, pandas, koalas and pizzas that comes
            with this program by default.
        paths: files and folders of images.
        out: the CSV file to write.
        resume: go on with a classification that was cut off: keep the rows of OUT.partial.
        dataset: label a split of this data set instead of PATHs.
        split: with --dataset: train, validation or test.
        data_dir: with --dataset: where its files are; none means datasets/NAME.
        prior: p(class), a positive number for each class, as in --prior 0.1 0.2 0.3 0.4; scaled to sum to 1.
            Uniform by default.
        temperature: of the posterior that confidence is; no label depends on it. None means the one that was fitted
            on validation images and is in the checkpoint, else 1.
        tta: none, or flip: score the mean of log p of an image and of its mirror image, which bpd and logp_ then are
            of; twice the time.
        explain: a folder that gets a picture of each image: which pixels spoke for its best class against the second.
        batch_size: images at a time, at least 1; auto is what suits the device. Halved when memory runs out.
        precision: of the network: fp32, bf16, fp16 (CUDA only), or auto: bf16 where the device has it natively, fp16
            on older GPUs, else fp32, with classes that are close to each other decided in fp32; bf16 alone took one
            image in 40 for another class than fp32. The likelihood is fp32.
        device: auto (CUDA where there is one), cpu, cuda, cuda:1, ...
    """

    checkpoint: str = PRETRAINED
    paths: list[str] = field(default_factory=list)
    out: str = "predictions.csv"
    resume: bool = False
    dataset: str | None = None
    split: str = "validation"
    data_dir: str | None = None
    prior: list[float] | None = None
    temperature: PositiveFloat | None = None
    tta: Literal["none", "flip"] = "none"
    explain: str | None = None
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
    argv = bare_flag(sys.argv[1:] if argv is None else argv, "--resume")
    argv = join_list(argv, "--prior", is_number)
    settings = parse_settings(ClassifySettings, __doc__, argv, positional="paths")
    if bool(settings.paths) == (settings.dataset is not None):
        raise UserError("give either PATHs of images or --dataset NAME (--help lists what there is)")
    with process_group():
        return classify(settings)


def classify(settings: ClassifySettings) -> int:
    device = pick_device(settings.device)
    net = load_checkpoint(settings.checkpoint, device)
    prior = class_prior(settings.prior, net.num_classes)
    temperature = posterior_temperature(settings.temperature, net)
    check_writable(settings.out)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of files whose metadata are odd: their rows say what matters
    if settings.dataset is None:
        images = images_of_paths(settings.paths, net)
    else:
        load = (settings.dataset, settings.split, net.image_size, settings.data_dir)
        images = images_of_split(main_first(lambda: load_split(*load)), net)

    batch_size = None if settings.batch_size == "auto" else settings.batch_size
    scorer = Scorer(net, settings.precision, batch_size, net.image_size)
    score = MirrorScorer(scorer) if settings.tta == "flip" else scorer
    identity = {
        "checkpoint": file_hash(Path(settings.checkpoint)),
        "prior": settings.prior,
        "temperature": temperature,
        "tta": settings.tta,
        "precision": [settings.precision, scorer.precision],
        "batches": [device.type, scorer.batch_size, world_size()],  # which decide the last digit
    }
    if rank() > 0:  # the main process writes what all of them find
        for _ in predict(score, images, prior, temperature, from_main(0)):
            pass
        return 0
    file = PredictionFile(settings.out, net.class_names, identity, images, settings.resume)
    interruption = Interruption()
    try:
        with file, interruption, interruption.promptly():
            start = from_main(len(file.predictions))
            predicting = predict(score, images, prior, temperature, start)
            bar = tqdm(predicting, "labelling", len(images.names), initial=start, unit="image", disable=None)
            for prediction in bar:
                file.write(prediction)
    except Interrupted as stop:
        done = f"{len(file.predictions)} of {len(images.names)} rows are in {shlex.quote(printable(file.partial))}"
        raise Interrupted(stop.signum, f"stopped; {done}: the same command with --resume goes on") from None
    tell(file.predictions, net, Path(settings.out))
    if settings.explain:
        explaining = write_attributions(net, images, file.predictions, settings.explain, mirror=settings.tta == "flip")
        count = sum(1 for _ in tqdm(explaining, "explaining", unit="image", disable=None))
        print(f"what decided: {count} pictures in {printable(settings.explain)}, and overview.png of the first ones")
    if images.skipped:
        example = printable(images.skipped[0])
        print(f"passed over: {len(images.skipped)} files without an image's extension, such as {example}")
    failed = sum(bool(p.error) for p in file.predictions)
    if failed:
        where = f"the column error of {printable(settings.out)} says why"
        print(f"{failed} of {len(file.predictions)} files could not be read; {where}", file=sys.stderr)
    return 1 if failed else 0


def tell(predictions: list[Prediction], net: PixelCNN, out: Path) -> None:
    """Print what was found, and draw how good it is where the truth is known."""
    labelled = [p for p in predictions if not p.error]
    counts = Counter(p.label for p in labelled)
    each = ", ".join(f"{printable(name)} {counts[label]}" for label, name in enumerate(net.class_names))
    print(f"{len(labelled)} images labelled: {each}")
    judged = [p for p in labelled if p.truth >= 0]
    if judged:
        truth, predicted = [p.truth for p in judged], [p.label for p in judged]
        confidence, correct = [p.confidence for p in judged], [p.label == p.truth for p in judged]
        accuracy, macro, f1 = classification_scores(truth, predicted)
        confusion, reliability = out.with_name("confusion.png"), out.with_name("reliability.png")
        plot_confusion_matrix(truth, predicted, net.class_names, confusion)
        reliability_diagram(confidence, correct, reliability)
        over = f"all {len(judged)}" if len(judged) == len(labelled) else f"the {len(judged)} of {len(labelled)}"
        print(f"accuracy {accuracy:.4f}, macro F1 {macro:.4f} (over {over} images whose class is known)")
        print("F1 of each class: " + ", ".join(f"{printable(net.class_names[y])} {f:.3f}" for y, f in f1.items()))
        print(f"expected calibration error of the confidence: {expected_calibration_error(confidence, correct):.3f}")
        print(f"confusion matrix: {printable(confusion)}; can the confidence be trusted: {printable(reliability)}")
    print(f"predictions: {printable(out)}")


if __name__ == "__main__":
    run_script(main)
