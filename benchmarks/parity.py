"""Numerical parity of a device with the CPU: python -m benchmarks.parity [--device cuda] [--data_dir DIR].

One line per check, with its value and limit; the exit status is 1 if any check failed. Log-likelihoods are of the
checkpoint's validation images or, if their folder is missing, of images that its network draws on the CPU.
"""

import argparse
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import describe
from data import load_split
from evaluation.scoring import Scorer
from model import PRETRAINED, PixelCNN, bits_per_dim, image_generators, load_checkpoint, log_likelihood, sample
from model.sampling.sampler import Sampler
from utils.device import pick_device
from utils.precision import pick_precision
from utils.script import run_script

NATS = 0.05  # largest difference in fp32, of about 8,000
SAME_LABELS = 0.995
SAME_LABELS_16 = 0.97  # in 16 bits without rescoring: bf16 changed 7 of 519 labels on a CPU
SAME_VALUES = 0.99
GRADIENT = 1e-4
DRAWN = 64  # images, if there is no data set
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Check:
    """A measured value, and whether it is within its limit (none: only reported)."""

    name: str
    figure: str
    limit: str = "none"
    passed: bool = True

    def __str__(self) -> str:
        return f"{self.name:<44} {self.figure:<34} limit: {self.limit:<16} {'ok' if self.passed else 'FAILED'}"


def share(name: str, equal: Tensor, least: float, more: str = "") -> Check:
    """A check of the fraction of true entries."""
    of_all = equal.double().mean().item()
    return Check(name, f"{of_all:.3%} of {equal.numel()}{more}", f">= {least:.1%}", of_all >= least)


def random_net(nr_filters: int) -> PixelCNN:
    """A small network on the CPU with non-zero weights, without dropout."""
    torch.manual_seed(0)
    net = PixelCNN(1, nr_filters, 3, dropout=0.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net


def pictures(checkpoint: str, data_dir: str | None, count: int | None) -> Tensor:
    """Images for the checkpoint's network, uint8 [N, C, H, W]."""
    net = load_checkpoint(checkpoint)
    folder = Path(data_dir or f"datasets/{net.dataset}")
    if net.dataset == "digits" or folder.is_dir():
        images = load_split(net.dataset, "validation", net.image_size, data_dir).images[:count]
        print(f"{len(images)} validation images of {net.dataset}")
        return images
    labels = torch.arange(count or DRAWN) % net.num_classes
    print(f"{folder} is not a folder: using {len(labels)} images drawn by the network")
    return sample(net, labels, net.image_size, image_generators(0, 0, len(labels)))


def likelihoods(device: torch.device, checkpoint: str, images: Tensor) -> Iterator[Check]:
    """log p(image | class) of all images and classes, against fp32 on the CPU."""
    truth = Scorer(load_checkpoint(checkpoint), "fp32", image_size=tuple(images.shape[2:]))(images)
    net = load_checkpoint(checkpoint, device)
    for precision in ("fp32", "bf16", "fp16", "auto"):
        if precision == "fp16" and device.type != "cuda":
            continue
        if precision == "bf16" and device.type == "cuda" and pick_precision("auto", device) != "bf16":
            continue  # not native there
        scorer = Scorer(net, precision, image_size=tuple(images.shape[2:]))
        scores = scorer(images)
        apart = (scores - truth).abs()
        name = f"log p in {precision}"
        if precision == "fp32":
            largest = apart.max().item()
            yield Check(name, f"largest difference {largest:.4f} nat", f"< {NATS} nat", largest < NATS)
        else:
            name += f" ({scorer.precision})" if precision == "auto" else ""
            yield Check(name, f"mean difference {apart.mean().item():.3f} nat")
        least = SAME_LABELS_16 if precision in ("bf16", "fp16") else SAME_LABELS
        yield share(f"labels in {precision}", scores.argmax(1) == truth.argmax(1), least)


def samples(device: torch.device, size: int) -> Iterator[Check]:
    """Incremental against naive sampling (one forward pass per pixel), in fp32 with the same random numbers."""
    net = random_net(8).eval().to(device)
    labels = torch.arange(8) % net.num_classes
    incremental, full = (
        sample(net, labels, (size, size), image_generators(0, 0, len(labels)), method)
        for method in ("incremental", "full")
    )
    equal = incremental == full
    # a value rounded to its neighbour changes what is drawn after it: a few unequal images are expected
    whole = int(equal.flatten(1).all(dim=1).sum())
    yield share(f"samples of {size}x{size}, values", equal, SAME_VALUES, f", {whole} of {len(equal)} images")


def graphs(device: torch.device, checkpoint: str, images: Tensor) -> Iterator[Check]:
    """Rows replayed as CUDA graphs against the same rows run eagerly, bit for bit."""
    net = load_checkpoint(checkpoint, device)
    for batch in (16, 100):
        labels = torch.arange(batch) % net.num_classes
        for kept in (0, 6):
            keep = images[torch.arange(batch) % len(images), :, :kept].to(device) if kept else None
            plain, graphed = (Sampler(net, tuple(images.shape[2:]), graphs=graphs) for graphs in (False, True))
            for number in (1, 2):  # in the second batch every row is replayed
                one, other = (
                    sampler(labels, image_generators(number, 0, batch), keep=keep) for sampler in (plain, graphed)
                )
                yield share(f"graphs, batch {batch}, {kept} rows kept, draw {number}", one == other, 1.0)
            captured = len(graphed.rows.graphs)
            yield Check(f"graphs, batch {batch}, {kept} rows kept", f"{captured} captured", "> 0", captured > 0)


def gradients(device: torch.device, size: int) -> Iterator[Check]:
    """The gradient of bits/dim, in fp32."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(16) % 4
    found = []
    for where in (CPU, device):
        net = random_net(16).to(where)
        loss = bits_per_dim(-log_likelihood(net, images.to(where), labels.to(where)).mean(), tuple(images.shape[1:]))
        loss.backward()
        found.append(torch.cat([p.grad.flatten().cpu().double() for p in net.parameters()]))
    apart = ((found[1] - found[0]).norm() / found[0].norm()).item()
    yield Check("gradient in fp32", f"relative difference {apart:.2e}", f"< {GRADIENT}", apart < GRADIENT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto (CUDA if available), cpu, cuda, cuda:1, ...")
    parser.add_argument("--checkpoint", default=PRETRAINED)
    parser.add_argument("--data_dir", help="folder of the checkpoint's data set; default: datasets/NAME")
    parser.add_argument("--images", type=int, help="use the first N images only; default: all")
    parser.add_argument("--size", type=int, default=16, help="image side for the small random networks")
    settings = parser.parse_args()
    device = pick_device(settings.device)
    print(describe(device))
    images = pictures(settings.checkpoint, settings.data_dir, settings.images)
    groups = {
        "gradients": lambda: gradients(device, settings.size),
        "samples": lambda: samples(device, settings.size),
        "graphs": lambda: graphs(device, settings.checkpoint, images),
        "likelihoods": lambda: likelihoods(device, settings.checkpoint, images),
    }
    if device.type != "cuda":
        del groups["graphs"]
        print("CUDA graphs against eager rows: skipped, the device is not a GPU")
    failed = 0
    for name, group in groups.items():
        try:
            for check in group():
                print(check, flush=True)
                failed += not check.passed
        except Exception:  # run the other checks anyway
            traceback.print_exc(file=sys.stdout)
            print(f"{name}: FAILED")
            failed += 1
    print(f"{failed} checks failed" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
