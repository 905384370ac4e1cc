"""Train a conditional PixelCNN++: python pcnn_train.py --config configs/digits.yaml."""

import sys

from evaluation.protocol import IMAGES
from training.final_evaluation import validation_scores
from training.progress import best_line, class_counts
from training.resume import find_run
from training.run_folder import RunFolder, check_place
from training.settings import TrainSettings
from training.tracking import report_failed_trial, start_tracker
from training.trainer import Trainer
from utils.arguments import parse_settings
from utils.distributed import from_main, process_group, rank
from utils.script import run_script
from utils.text import printable


def main(argv: list[str] | None = None) -> int:
    with process_group():
        return train(sys.argv[1:] if argv is None else argv)


def train(argv: list[str]) -> int:
    with report_failed_trial():
        given = parse_settings(TrainSettings, __doc__, argv)
        settings, resumed = find_run(given, argv)
        resumed = from_main(resumed)
        if resumed is None and rank() == 0:
            check_place(settings)
        trainer = Trainer(settings, resumed)
        state = trainer.state
        folder = RunFolder(settings, resumed, state.reports)
    if rank() > 0:
        trainer.run(folder)
        return 0
    split = trainer.train_split
    height, width = split.image_size
    parameters = sum(p.numel() for p in trainer.net.parameters())
    held = "" if trainer.selection is trainer.validation else f", {len(trainer.selection)} held-out"
    print(
        f"{settings.dataset}: {len(split)} training{held} and {len(trainer.validation)} validation images of "
        f"{height}x{width}, {split.num_classes} classes; {parameters:,} parameters; {trainer.device}"
    )
    print(f"classes in order, with their training images: {class_counts(split)}")
    if resumed is not None:
        print(f"resuming at epoch {state.epoch}, after step {state.total_steps}")
    elif given.resume is not None:
        print("no earlier run of this configuration: starting a new run")
    print(f"run folder: {printable(folder.path)}")
    with start_tracker(settings, folder.path, trainer.device) as tracker:
        trainer.run(folder, tracker)
    assert state.best is not None  # else no checkpoint was written, which run reports
    print(best_line(settings.best_metric, state.best, IMAGES[settings.select_on]))
    for report in state.reports[-1:]:
        if "validation_accuracy" in report:
            print(f"best.pt on the validation images: {validation_scores(report)}")
    best, last, curves = (printable(folder.path / name) for name in ("best.pt", "last.pt", "curves.png"))
    print(f"checkpoints {best} and {last}, curves {curves}")
    return 0


if __name__ == "__main__":
    run_script(main)
