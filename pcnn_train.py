"""Train a conditional PixelCNN++: python pcnn_train.py --config configs/digits.yaml."""

import sys

from training.cli import parse_settings, run_script
from training.predictions import join_list
from training.settings import TrainSettings
from training.tracking import failed_trials_reported, start_tracker
from training.trainer import Trainer


def main(argv: list[str] | None = None) -> int:
    argv = join_list(sys.argv[1:] if argv is None else argv, "--wandb_tags", lambda tag: tag[:1] not in ("-", "["))
    with failed_trials_reported():
        settings = parse_settings(TrainSettings, __doc__, argv)
        trainer = Trainer(settings)
    parameters = sum(p.numel() for p in trainer.net.parameters())
    print(
        f"{settings.dataset}: {len(trainer.labels)} training and {len(trainer.validation)} validation images of "
        f"{trainer.image_size[0]}x{trainer.image_size[1]}, {trainer.train_split.num_classes} classes; "
        f"{parameters:,} parameters; {trainer.device}"
    )
    print(f"run folder: {trainer.folder.path}")
    with start_tracker(settings, trainer.folder.path, trainer.device) as trainer.tracker:
        folder = trainer.run()
    print(f"best validation accuracy {trainer.best[0]:.4f} (at {-trainer.best[1]:.3f} bits/dim)")
    print(f"checkpoints {folder / 'best.pt'} and {folder / 'last.pt'}, curves {folder / 'curves.png'}")
    return 0


if __name__ == "__main__":
    run_script(main)
