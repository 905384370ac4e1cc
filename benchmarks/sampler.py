"""Sampling benchmark: python -m benchmarks.sampler [--device cuda].

Incremental sampling against one forward pass over the same batch and against naive sampling (method="full"), which
runs the whole network for each of the H * W pixels; it is timed on a few pixels, which all cost the same, and scaled.
"first s" is the first draw, which creates the sampler's state, on CUDA with its graphs; it is not in the timing.
"""

import argparse
import time

import torch

from benchmarks.timing import alternate, describe, forward_gflop, make_net, peak_gflops, print_table, synchronize
from model import Sampler, image_generators, to_unit
from model.mixture import mixture_noise
from model.sampling.sampler import FullRows
from utils.device import pick_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--size", type=int, default=32, help="image side")
    parser.add_argument("--pixels", type=int, default=2, help="pixels of naive sampling timed per round")
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    device, size = pick_device(settings.device), settings.size
    net = make_net(device)
    peak = peak_gflops(device, torch.float32)
    gflop = forward_gflop(net, size)
    rows = []
    with torch.inference_mode():
        for batch in settings.batches:
            labels = torch.arange(batch, device=device) % net.num_classes
            images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
            x = to_unit(images)
            noise = mixture_noise(torch.rand(batch, 13, settings.pixels, device=device), 10)

            draw, sampler = FullRows(net, images), Sampler(net, (size, size))
            draw.begin(labels)

            def full(draw=draw, noise=noise):
                for j in range(settings.pixels):
                    draw.pixel(0, j, noise[0][:, :, j], noise[1][:, :, j])

            def incremental(sampler=sampler, labels=labels):
                sampler(labels, image_generators(0, 0, len(labels)))

            start = time.perf_counter()
            incremental()
            synchronize(device)
            first = time.perf_counter() - start
            medians = alternate(
                {
                    "incremental": incremental,
                    "forward": lambda x=x, labels=labels: net(x, labels),
                    "full": full,
                },
                settings.rounds,
                device,
            )
            drawn, forward = medians["incremental"], medians["forward"]
            whole = medians["full"] / settings.pixels * size * size
            achieved = gflop * batch / drawn
            rows.append(
                (
                    batch,
                    f"{drawn:.3f}",
                    f"{drawn / batch * 1000:.1f}",
                    f"{first:.3f}",
                    f"{forward:.3f}",
                    f"{drawn / forward:.2f}",
                    f"{whole:.0f}",
                    f"{whole / drawn:.0f}x",
                    f"{achieved:.0f}",
                    f"{achieved / peak:.0%}",
                )
            )
    print(f"sampling {size}x{size} at (2, 80, 10) in fp32; {describe(device)}; peak {peak:.0f} GFLOP/s")
    header = (
        *("batch", "incremental s", "ms/image", "first s", "forward s", "passes", "naive s", "speed-up"),
        *("GFLOP/s", "of peak"),
    )
    print_table(header, rows)


if __name__ == "__main__":
    main()
