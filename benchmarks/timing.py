"""Shared by the benchmarks: alternating timings in one process, the machine's peak, tables."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import layers.blocks
from layers.activation import Padding
from model import PixelCNN
from utils.precision import DTYPES


def make_net(device: torch.device, *settings: int, **more: float) -> PixelCNN:
    """A network, by default the published configuration, with the same random weights each time."""
    torch.manual_seed(0)
    return PixelCNN(*settings, **more).to(device).eval()


def plain_concat_elu(*parts: torch.Tensor, padding: Padding | None = None) -> torch.Tensor:
    x = torch.cat(parts, dim=1)
    x = F.elu(torch.cat((x, -x), dim=1))
    return F.pad(x, padding) if padding else x


@contextmanager
def plain_blocks() -> Iterator[None]:
    """Inside, blocks use PyTorch's own elu, dropout and glu, and TF32 is on, PyTorch's default."""
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, True
    ours = {name: getattr(layers.blocks, name) for name in ("concat_elu", "dropout", "gated_residual")}
    layers.blocks.concat_elu = plain_concat_elu
    layers.blocks.dropout = F.dropout
    layers.blocks.gated_residual = lambda x, update: x + F.glu(update, dim=1)
    try:
        yield
    finally:
        for name, value in ours.items():
            setattr(layers.blocks, name, value)
        torch.backends.cudnn.allow_tf32 = tf32


def alternate(sides: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds per call of each side; calls alternate, after one warm-up call each."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(rounds + 1):
        for name, side in sides.items():
            synchronize(device)
            start = time.perf_counter()
            side()
            synchronize(device)
            if index:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forward_gflop(net: PixelCNN, size: int) -> float:
    """GFLOP of one forward pass for one image (a multiply-add is two)."""
    device = next(net.parameters()).device
    x = torch.zeros(1, net.image_channels, size, size, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, torch.zeros(1, dtype=torch.long, device=device))
    return counter.get_total_flops() / 1e9


def peak_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """Peak GFLOP/s of several large matrix products, by BLAS or as a 1x1 convolution."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device).to(dtype)
    x, weight = a.view(1, 64, -1, n).permute(0, 3, 1, 2), a.view(n, 1, 1, n).permute(0, 3, 1, 2)  # channels last
    sides = {"product": lambda: a @ a, "convolution": lambda: F.conv2d(x, weight)}
    best = min(min(alternate(sides, 1, device).values()) for _ in range(5))
    return 2 * n**3 / best / 1e9


def peaks_of(device: torch.device, precisions: Iterable[str]) -> dict[str, float]:
    """Peak GFLOP/s of the named precisions only: a CPU takes minutes for a large product in fp16."""
    return {name: peak_gflops(device, DTYPES.get(name, torch.float32)) for name in set(precisions)}


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns, the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *padded[1:]]))
