"""Training step benchmark: python -m benchmarks.train_step [--device cuda] [--variants ...] [--hybrid] [--profile].

Our step against a plain one: the same network in eager fp32 with PyTorch's own elu, dropout and glu, unfused Adam and a
moving average; on CUDA its convolutions use TF32, PyTorch's default, ours do not. Timings of the variants alternate in
one process; "first 4 s" is the time of the first four steps, with compilation (uncached) and capture; "loss" is that of
step 20 from the same weights. --profile counts launches and waits of a step. --curves PNG trains on the digits with
each precision, and compiled, and plots the losses.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import (
    alternate,
    describe,
    forward_gflop,
    make_net,
    peaks_of,
    plain_blocks,
    print_table,
    synchronize,
)
from data import load_split
from model import PixelCNN, bits_per_dim, log_likelihood
from training.settings import TrainSettings
from training.step import TrainingStep
from utils.device import cudnn_benchmark, pick_device
from utils.precision import pick_precision

Step = Callable[[Tensor, Tensor, int], Tensor]

# precision and settings of each; "auto" is bf16 where native
VARIANTS = {
    "fp32": ("fp32", {"compile": False}),
    "auto": ("auto", {"compile": False}),
    "bf16": ("bf16", {"compile": False}),
    "fp16": ("fp16", {"compile": False}),
    "compiled": ("auto", {"compile": True}),
    "muon": ("auto", {"compile": False, "optimizer": "muon"}),
    "graph": ("auto", {"compile": False, "cuda_graph": True}),
    "graph+muon": ("auto", {"compile": False, "cuda_graph": True, "optimizer": "muon"}),
    "graph+compiled": ("auto", {"compile": True, "cuda_graph": True}),
}
DEFAULT = {
    "cpu": ["fp32", "auto", "muon"],
    "cuda": ["fp32", "auto", "muon", "compiled", "graph", "graph+muon", "graph+compiled"],
}


class Plain:
    """The plain training step."""

    def __init__(self, net: PixelCNN, settings: TrainSettings):
        self.net, self.settings = net, settings
        self.optimizer = torch.optim.Adam(net.parameters(), lr=settings.lr, betas=(0.95, 0.9995), foreach=False)
        self.average = [parameter.detach().clone() for parameter in net.parameters()]

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        with plain_blocks():
            loss = bits_per_dim(-log_likelihood(self.net, images, labels).mean(), tuple(images.shape[1:]))
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        for average, parameter in zip(self.average, self.net.parameters(), strict=True):
            average.mul_(self.settings.ema).add_(parameter.detach(), alpha=1 - self.settings.ema)
        return loss.detach()[None]


def make_step(name: str, net: PixelCNN, device: torch.device, **more) -> tuple[TrainingStep, str]:
    """A variant, and its precision."""
    precision, settings = VARIANTS[name]
    precision = pick_precision(precision, device)
    return TrainingStep(net, TrainSettings(**{"cuda_graph": False} | settings, **more), precision, 10**6), precision


def digits(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of 16 digits."""
    split = load_split("digits", "train")
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        index = torch.randint(len(split.labels), (16,), generator=generator)
        yield split.images[index], split.labels[index]


def curves(device: torch.device, path: str, steps: int = 300) -> None:
    """Losses of plain fp32 and of our step in fp32, bf16 and compiled, from the same weights and batches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in ("plain fp32", "fp32", "bf16", "compiled"):
        net = make_net(device, 1, 32, 5, 1, 10, dropout=0.1).train()
        step: Step = Plain(net, TrainSettings(lr=1e-3))
        if not name.startswith("plain"):
            step, precision = make_step(name, net, device, lr=1e-3)
            name = f"{precision}, compiled" if name == "compiled" else name
        losses = []
        for seed, (images, labels) in enumerate(digits(steps)):
            losses.append(step(images.to(device), labels.to(device), seed)[0].item())
        smooth = torch.tensor(losses).unfold(0, 20, 10).mean(1)
        axes.plot(torch.arange(len(smooth)) * 10 + 10, smooth, label=name)
        print(f"{name}: mean loss of the last 100 of {steps} steps {sum(losses[steps - 100 :]) / 100:.4f}")
    axes.set(xlabel="step", ylabel="bits per dimension (mean of 20 steps)", ylim=(None, float(smooth[2])))
    axes.legend()
    figure.savefig(path, dpi=100)


def count_events(step: Callable[[], Tensor], device: torch.device, steps: int = 5) -> dict[str, float]:
    """Kernels, launches, waits for the device, device time and wall time of one step, by torch.profiler."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    for _ in range(2):  # the profiler's first start takes seconds
        with profile(activities=activities, acc_events=True) as profiler:
            synchronize(device)
            start = time.perf_counter()
            for _ in range(steps):
                step()
            synchronize(device)
            wall = time.perf_counter() - start
    averages = profiler.key_averages()
    of_device = [
        event
        for event in averages
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]

    def named(*words: str) -> float:
        return sum(event.count for event in averages if any(word in event.key for word in words)) / steps

    print(averages.table(sort_by="self_cuda_time_total" if of_device else "self_cpu_time_total", row_limit=15))
    return {
        "operators": named("aten::"),
        "kernels": sum(event.count for event in of_device) / steps,
        "launches": named("LaunchKernel", "GraphLaunch"),
        "waits": named("StreamSynchronize", "EventSynchronize"),
        "device ms": sum(event.self_device_time_total for event in of_device) / steps / 1000,
        "wall ms": wall / steps * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=32, help="image side")
    parser.add_argument("--net", type=int, nargs=3, default=(2, 80, 10), metavar=("R", "F", "K"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help=f"default: {DEFAULT}")
    parser.add_argument("--hybrid", action="store_true", help="hybrid objective with one negative class")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, help="steps per timing; default: 1 on a CPU, 20 on a GPU")
    parser.add_argument("--profile", action="store_true", help="count operators, kernels, launches and waits")
    parser.add_argument("--curves", metavar="PNG", help="only plot loss curves of small networks")
    settings = parser.parse_args()
    device = pick_device(settings.device)
    if settings.curves:
        curves(device, settings.curves)
        return
    repeat = settings.repeat or (20 if device.type == "cuda" else 1)
    torch.manual_seed(0)
    shape = (settings.batch, 3, settings.size, settings.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    labels = torch.arange(settings.batch, device=device) % 4
    hybrid = {"discriminative_weight": 0.1, "negatives": 1} if settings.hybrid else {}

    net = make_net(device, *settings.net).train()
    gflop = 3 * forward_gflop(net, settings.size) * settings.batch * (2 if hybrid else 1)  # the backward pass costs two
    steps: dict[str, Step] = {} if hybrid else {"plain fp32": Plain(net, TrainSettings())}
    precisions = {"plain fp32": "fp32"}
    for name in dict.fromkeys(settings.variants or DEFAULT[device.type]):
        step, precision = make_step(name, make_net(device, *settings.net).train(), device, **hybrid)
        label = precision if name == "auto" else name if name in precision else f"{precision}, {name}"
        steps[label], precisions[label] = step, precision

    torch.compiler.config.force_disable_caches = True
    with cudnn_benchmark(device.type == "cuda"):
        first, loss = {}, {}
        for name, step in steps.items():
            start = time.perf_counter()
            for seed in range(20):
                loss[name] = step(images, labels, seed)[0].item()
                if seed < 4:
                    first[name] = time.perf_counter() - start
            if "compiled" in name and step.uncompiled is None:
                sys.exit(f"error: {name}: torch.compile failed")
        if settings.profile:
            counts = {
                name: count_events(partial(step, images, labels, 20), device)
                for name, step in steps.items()
                if not name.startswith("plain")
            }
            print(f"a step of {settings.batch} images at {tuple(settings.net)}; {describe(device)}")
            header = next(iter(counts.values()))
            rows = [(name, *(f"{value:.1f}" for value in found.values())) for name, found in counts.items()]
            print_table(("", *header), rows)
            return

        def several(step: Step) -> None:
            for seed in range(repeat):
                step(images, labels, seed)

        medians = alternate({name: partial(several, step) for name, step in steps.items()}, settings.rounds, device)
    peaks = peaks_of(device, precisions.values())
    base = next(iter(medians.values()))
    rows = []
    for name, seconds in medians.items():
        rate = gflop / (seconds / repeat)
        rows.append((name, f"{seconds / repeat * 1000:.1f}", f"{base / seconds:.2f}x", f"{rate:.0f}"))
        rows[-1] += (f"{rate / peaks[precisions[name]]:.0%}", f"{first[name]:.1f}", f"{loss[name]:.4f}")
    kind = "hybrid step" if hybrid else "training step"
    print(f"a {kind} of {shape[0]} images of {shape[2]}x{shape[3]} at {tuple(settings.net)}; {describe(device)}")
    print_table(("", "ms", "speed-up", "GFLOP/s", "of peak", "first 4 s", "loss"), rows)


if __name__ == "__main__":
    main()
