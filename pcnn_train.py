"""Train a conditional PixelCNN++: python pcnn_train.py --config configs/digits.yaml."""

import sys

from training.resume import find_run
from training.settings import TrainSettings
from training.tracking import report_failed_trial, start_tracker
from training.trainer import Trainer
from utils.arguments import join_list, parse_settings, run_script
from utils.distributed import from_main, process_group, rank


def main(argv: list[str] | None = None) -> int:
    argv = join_list(sys.argv[1:] if argv is None else argv, "--wandb_tags", lambda tag: tag[:1] not in ("-", "["))
    with process_group():
        return train(argv)


def train(argv: list[str]) -> int:
    with report_failed_trial():
        settings, resumed = find_run(parse_settings(TrainSettings, __doc__, argv), argv)
        trainer = Trainer(settings, from_main(resumed))
    if rank() > 0:
        trainer.run()
        return 0
    parameters = sum(p.numel() for p in trainer.net.parameters())
    print(
        f"{settings.dataset}: {len(trainer.labels)} training and {len(trainer.validation)} validation images of "
        f"{trainer.image_size[0]}x{trainer.image_size[1]}, {trainer.train_split.num_classes} classes; "
        f"{parameters:,} parameters; {trainer.device}"
    )
    if resumed is not None:
        print(f"going on in epoch {trainer.progress.epoch}, after step {trainer.progress.step}")
    elif "--resume" in argv:
        print("no earlier run of this configuration: a new one begins")
    print(f"run folder: {trainer.folder.path}")
    with start_tracker(settings, trainer.folder.path, trainer.device) as trainer.tracker:
        folder = trainer.run()
    print(f"best validation accuracy {trainer.best[0]:.4f} (at {-trainer.best[1]:.3f} bits/dim)")
    print(f"checkpoints {folder / 'best.pt'} and {folder / 'last.pt'}, curves {folder / 'curves.png'}")
    return 0


if __name__ == "__main__":
    run_script(main)
