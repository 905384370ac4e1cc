"""A training step: python -m benchmarks.train_step [--device cuda].

The trainer's step against a plain one: the same network in fp32 with PyTorch's own elu, dropout and glu, eager, with
unfused Adam and a moving average. --curves PNG trains with each, and compiled, on the digits and draws the losses.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.timing import alternate, describe, forward_gflop, peaks_of, plain_blocks, print_table
from model import log_likelihood
from training.evaluation import bits_per_dim
from training.settings import TrainSettings
from training.trainer import Trainer


class Plain:
    """The plain step on a trainer's network and data."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        settings = trainer.settings
        parameters = list(trainer.net.parameters())
        self.optimizer = torch.optim.Adam(parameters, lr=settings.lr, betas=(0.95, 0.9995), foreach=False)
        self.average = [parameter.detach().clone() for parameter in parameters]

    def step(self, images, labels):
        net = self.trainer.net
        with plain_blocks():
            loss = bits_per_dim(-log_likelihood(net, images, labels).mean(), tuple(images.shape[1:]))
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        for average, parameter in zip(self.average, net.parameters(), strict=True):
            average.mul_(self.trainer.settings.ema).add_(parameter.detach(), alpha=1 - self.trainer.settings.ema)
        return loss.detach()


def make_trainer(folder: Path, name: str, **settings) -> Trainer:
    trainer = Trainer(TrainSettings(**settings, dataset="digits", run_dir=str(folder / name)))
    trainer.net.train()
    return trainer


def curves(device: str, path: str, steps: int = 300) -> None:
    """Losses of plain fp32 and of the trainer's step in fp32, bf16 and compiled, from the same weights and batches."""
    from matplotlib.figure import Figure

    small = {"nr_resnet": 1, "nr_filters": 32, "nr_logistic_mix": 5, "dropout": 0.1, "lr": 1e-3, "device": device}
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    with tempfile.TemporaryDirectory() as folder:
        for name, more in (
            ("plain fp32", {"precision": "fp32"}),
            ("fp32", {"precision": "fp32"}),
            ("bf16", {"precision": "bf16"}),
            ("bf16, compiled", {"precision": "bf16", "compile": True}),
        ):
            trainer = make_trainer(Path(folder), name, **small, **more)
            step = Plain(trainer).step if name.startswith("plain") else trainer.train_step
            losses = []
            while len(losses) < steps:
                losses += [step(*batch).item() for batch in trainer.batches()]
            smooth = torch.tensor(losses[:steps]).unfold(0, 20, 10).mean(1)
            axes.plot(torch.arange(len(smooth)) * 10 + 10, smooth, label=name)
            print(f"{name}: mean loss of the last 100 of {steps} steps {sum(losses[steps - 100 : steps]) / 100:.4f}")
    axes.set(xlabel="step", ylabel="bits per dimension (mean of 20 steps)", ylim=(None, float(smooth[2])))
    axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curves", metavar="PNG", help="draw loss curves of small networks instead")
    settings = parser.parse_args()
    if settings.curves:
        curves(settings.device, settings.curves)
        return
    device = torch.device(settings.device)
    images = torch.randint(0, 256, (settings.batch, 1, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.arange(settings.batch, device=device) % 10
    with tempfile.TemporaryDirectory() as folder:
        make = partial(make_trainer, Path(folder), device=settings.device, image_size=32, batch_size=settings.batch)
        trainers = {"fp32": make("fp32", precision="fp32"), "auto": make("auto", precision="auto")}
        sides = {"plain fp32": partial(Plain(trainers["fp32"]).step, images, labels)}
        for trainer in trainers.values():
            sides[f"{trainer.precision}, the trainer's"] = partial(trainer.train_step, images, labels)
        medians = alternate(sides, settings.rounds, device)
    peaks = peaks_of(device, (trainer.precision for trainer in trainers.values()))
    gflop = 3 * forward_gflop(trainers["fp32"].net, 32) * settings.batch  # forward, and two products backward
    rows = []
    for name, seconds in medians.items():
        peak = peaks[name.removeprefix("plain ").split(",")[0]]
        faster = medians["plain fp32"] / seconds
        rows.append((name, f"{seconds * 1000:.0f}", f"{faster:.2f}x", f"{gflop / seconds:.0f}"))
        rows[-1] += (f"{gflop / seconds / peak:.0%}",)
    print(f"a training step of {settings.batch} gray images of 32x32 at (2, 80, 10); {describe(device)}")
    print_table(("", "ms", "faster", "GFLOP/s", "of peak"), rows)


if __name__ == "__main__":
    main()
