"""Training steps of a tiny network, for the tests of this folder."""

import torch

from model import PixelCNN
from training.settings import TrainSettings
from training.step import TrainingStep

HYBRID = {"discriminative_weight": 0.1, "negatives": 1}
CUTMIX = {"discriminative_weight": 0.1, "discriminative_share": 0.5, "cutmix_prob": 0.75}
MUON = {"optimizer": "muon", "weight_decay": 0.01}


def make_step(precision="fp32", fusion="early+middle", total_steps=20, **settings) -> TrainingStep:
    torch.manual_seed(0)
    settings = {"dropout": 0.3, "warmup": 3, "lr": 3e-3, "grad_clip": 1.0, "compile": False} | settings
    net = PixelCNN(1, 4, 2, 1, 3, fusion, settings["dropout"]).train()
    return TrainingStep(net, TrainSettings(**settings), precision, total_steps)


def batches(count: int):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=generator)
        yield images, torch.randint(0, 3, (4,), generator=generator)


def run(step: TrainingStep, count: int = 10, bad: int | None = None) -> list[list[float]]:
    """Parts of the loss of each step; of step number ``bad`` the likelihood is no number."""
    parts, factor, log_likelihood = [], torch.ones(()), step.log_likelihood
    if bad is not None:
        step.log_likelihood = lambda *arguments: log_likelihood(*arguments) * factor
    for number, batch in enumerate(batches(count)):
        factor.fill_(float("nan") if number == bad else 1.0)
        parts.append(step(*batch, seed=number).tolist())
    return parts
