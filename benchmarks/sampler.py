"""Drawing images: python -m benchmarks.sampler [--device cuda].

The incremental sampler against one forward pass over the same batch and against method="full", which runs the whole
network for each of the H * W pixels. "full" is timed on some of its pixels, which all cost the same, and scaled.
"""

import argparse

import torch

from benchmarks.timing import alternate, describe, forward_gflop, make_net, peak_gflops, print_table
from model import image_generators, sample, to_unit
from model.mixture import mixture_noise
from model.sampler import FullRows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    parser.add_argument("--pixels", type=int, default=2, help="of method='full' that are timed a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    settings = parser.parse_args()
    device, size = torch.device(settings.device), settings.size
    net = make_net(device)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    peak = peak_gflops(device, dtype)
    gflop = forward_gflop(net, size)
    rows = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        for batch in settings.batches:
            labels = torch.arange(batch, device=device) % net.num_classes
            images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
            x = to_unit(images)
            noise = mixture_noise(torch.rand(batch, 13, settings.pixels, device=device), 10)

            draw = FullRows(net, labels, images)

            def full(draw=draw, noise=noise):
                for j in range(settings.pixels):
                    draw.pixel(0, j, noise[0][:, :, j], noise[1][:, :, j])

            medians = alternate(
                {
                    "incremental": lambda labels=labels: sample(
                        net, labels, (size, size), image_generators(0, 0, len(labels))
                    ),
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
                    f"{forward:.3f}",
                    f"{drawn / forward:.2f}",
                    f"{whole:.0f}",
                    f"{whole / drawn:.0f}x",
                    f"{achieved:.0f}",
                    f"{achieved / peak:.0%}",
                )
            )
    print(f"sampling {size}x{size} at (2, 80, 10), {settings.precision}; {describe(device)}; peak {peak:.0f} GFLOP/s")
    header = (
        *("batch", "incremental s", "ms an image", "forward s", "passes", "full s", "full/incremental"),
        *("GFLOP/s", "of peak"),
    )
    print_table(header, rows)


if __name__ == "__main__":
    main()
