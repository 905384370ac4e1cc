"""A Fréchet distance that needs no Inception weights: python -m evaluation.pixel_distance --reference cpen455:test ...

It is that of FID (Heusel et al. 2017), pytorch-fid's own function, between Gaussians fitted to images shrunk to 8x8
pixels instead of features of a network: 192 numbers for three channels. It depends on colours and coarse shapes only
and is not comparable with FID; its values for real, noisy and sampled images are comparable with each other.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data import DATASETS, load_split
from evaluation.fid_statistics import gaussian
from evaluation.generation import draw_images
from evaluation.images import check_data_set
from model import PRETRAINED, load_checkpoint
from utils.arguments import parse_settings
from utils.console import notify
from utils.device import pick_device
from utils.errors import DataError, UserError
from utils.script import run_script
from utils.text import printable
from utils.values import PathName, Seed

SIDE = 8
NOISE = (8, 32, 64)  # standard deviations, in levels


def pixel_distance(images: Tensor, reference: Tensor) -> float:
    """The Fréchet distance of uint8 [N, C, H, W] and [M, C, H, W], both shrunk to 8x8, pixels in [0, 1].

    N and M at least 2, and better more than 64 C: with fewer it is biased upwards.
    """
    from pytorch_fid.fid_score import calculate_frechet_distance

    ours, theirs = (
        gaussian(F.adaptive_avg_pool2d(pixels.double() / 255, SIDE).flatten(1).numpy())
        for pixels in (images, reference)
    )
    return float(calculate_frechet_distance(*ours, *theirs))


@dataclass
class PixelDistanceSettings:
    """Settings of evaluation.pixel_distance.

    Args:
        checkpoint: a .pt file of pcnn_train.py; by default the pretrained checkpoint.
        reference: DATASET:SPLIT that all are measured against.
        real: the split of the same data set that shows how near real images come.
        data_dir: where the data set's files are; datasets/NAME by default.
        seed: of the samples and the noise.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
    """

    checkpoint: PathName = PRETRAINED
    reference: str = "cpen455:test"
    real: str = "validation"
    data_dir: PathName | None = None
    seed: Seed = 0
    device: str = "auto"


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(PixelDistanceSettings, __doc__, argv)
    net = load_checkpoint(settings.checkpoint, pick_device(settings.device))
    dataset, _, split = settings.reference.partition(":")
    if dataset not in DATASETS:
        raise UserError(f"--reference {printable(settings.reference)}: give DATASET:SPLIT, as in cpen455:test")
    splits = [load_split(dataset, name, net.image_size, settings.data_dir) for name in (split, settings.real)]
    for name, part in zip((split, settings.real), splits, strict=True):
        for line in part.lines():
            notify(line)
        check_data_set(part, net)
        if len(part) < 2:
            raise DataError(f"{dataset}:{name} has {len(part)} images; the distance needs two or more")
    reference, real = (part.images for part in splits)
    noise = torch.Generator().manual_seed(settings.seed)
    count = -(-len(real) // net.num_classes)
    samples = draw_images(net, range(net.num_classes), count, net.image_size, seed=settings.seed)
    drawn = torch.stack([image for *_, image in samples])[: len(real)]
    rows = {f"real ({settings.real})": real}
    for deviation in NOISE:
        noisy = real + deviation * torch.randn(real.shape, generator=noise)
        rows[f"real with noise of {deviation} levels"] = noisy.round().clamp(0, 255).to(torch.uint8)
    rows["samples"] = drawn
    rows["uniform noise"] = torch.randint(0, 256, real.shape, generator=noise, dtype=torch.uint8)
    print(f"Fréchet distance of {SIDE}x{SIDE} pixels (not FID) of {len(real)} images to {len(reference)} of {split}:")
    for name, images in rows.items():
        print(f"| {name} | {pixel_distance(images, reference):.2f} |")
    return 0


if __name__ == "__main__":
    run_script(main)
