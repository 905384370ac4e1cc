"""Classification benchmark: python -m benchmarks.classifier [--device cuda] [--checkpoint CKPT --data_dir DIR].

classify.py (folded weights, all classes in one batch, 16 bits where native) against a naive fp32 loop that calls the
network, with PyTorch's own elu and glu, once per class. With a checkpoint, both label its data set's validation
images: reports how often they agree, and the mean difference of their log-likelihoods.
"""

import argparse
from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import alternate, describe, forward_gflop, make_net, peaks_of, plain_blocks, print_table
from data import load_split
from evaluation.scoring import Scorer
from model import PixelCNN, load_checkpoint, log_likelihood
from utils.device import pick_device


@torch.no_grad()
def once_a_class(net: PixelCNN, images: Tensor, batch_size: int = 32) -> Tensor:
    """The naive loop over classes: uint8 [N, C, H, W] -> nats [N, num_classes]."""
    device = next(net.parameters()).device
    scores = []
    with plain_blocks():
        for batch in images.split(batch_size):
            batch = batch.to(device)
            of_class = [torch.full((len(batch),), label, device=device) for label in range(net.num_classes)]
            scores.append(torch.stack([log_likelihood(net, batch, labels) for labels in of_class], dim=1).cpu())
    return torch.cat(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoint", help="compare the predictions on this network's validation images")
    parser.add_argument("--data_dir")
    settings = parser.parse_args()
    device = pick_device(settings.device)
    if settings.checkpoint:
        net = load_checkpoint(settings.checkpoint, device)
        images = load_split(net.dataset, "validation", net.image_size, settings.data_dir).images
        ours, plain = Scorer(net)(images), once_a_class(net, images)
        agree = (ours.argmax(1) == plain.argmax(1)).double().mean().item()
        apart = (ours - plain).abs().mean().item()
        print(f"{len(images)} validation images: predictions agree on {agree:.2%}, mean difference {apart:.3f} nats")
        return
    net = make_net(device)
    images = torch.randint(0, 256, (settings.images, 3, 32, 32), dtype=torch.uint8)
    sides = {"fp32, class by class": partial(once_a_class, net, images)}
    for precision in ("fp32", "auto"):
        scorer = Scorer(net, precision)
        sides[f"{scorer.precision}, all classes"] = partial(scorer, images)
    medians = alternate(sides, settings.rounds, device)
    peaks = peaks_of(device, (name.split(",")[0] for name in sides))
    gflop = forward_gflop(net, 32) * net.num_classes * settings.images
    base = medians["fp32, class by class"]
    print(f"classifying 32x32, 4 classes at (2, 80, 10); {describe(device)}")
    rows = []
    for name, seconds in medians.items():
        share = gflop / seconds / peaks[name.split(",")[0]]
        rows.append((name, f"{settings.images / seconds:.2f}", f"{base / seconds:.2f}x", f"{gflop / seconds:.0f}"))
        rows[-1] += (f"{share:.0%}",)
    print_table(("", "images/s", "speed-up", "GFLOP/s", "of peak"), rows)


if __name__ == "__main__":
    main()
