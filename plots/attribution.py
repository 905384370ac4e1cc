"""Attribution maps beside their images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from plots.figure import save_figure
from plots.images import to_pil

COLOURS, OPACITY = "RdBu_r", 0.75
SATURATION = 99.0  # percentile of a map at which its colours saturate, so that one pixel does not pale the rest


@dataclass(frozen=True)
class Attribution:
    """An image with the log-likelihood ratio of its two most probable classes.

    Args:
        image: uint8 [C, H, W].
        nats: of each pixel, float [H, W].
        best, second: names of the classes, as in `class_labels`.
        confidence: posterior probability of the best one.
    """

    image: Tensor
    nats: Tensor
    best: str
    second: str
    confidence: float


def plot_attributions(attributions: Sequence[Attribution], path: str | Path, columns: int) -> None:
    """A PNG of each image beside its map, ``columns`` pairs per row. Raises UserError."""
    columns = min(columns, len(attributions))
    rows = -(-len(attributions) // columns)
    figure = Figure(figsize=(5.4 * columns, 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, 2 * columns, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for attribution, left, right in zip(attributions, panels[::2], panels[1::2], strict=False):
        plot_pair(attribution, left, right)
    save_figure(figure, path, dpi=80)


def plot_pair(attribution: Attribution, left: Axes, right: Axes) -> None:
    image, nats = to_pil(attribution.image), attribution.nats
    best, second = (name[:20] for name in (attribution.best, attribution.second))
    left.imshow(image, cmap="gray", vmin=0, vmax=255)
    left.set_title(f"{best} {attribution.confidence:.2f}", parse_math=False)
    limit = saturation(nats)
    right.imshow(image.convert("L"), cmap="gray", vmin=0, vmax=255)
    colours = right.imshow(nats.numpy(), cmap=COLOURS, vmin=-limit, vmax=limit, alpha=OPACITY)
    right.set_title(f"red: {best}, blue: {second} ({nats.sum():+.0f} nats)", fontsize=9, parse_math=False)
    right.figure.colorbar(colours, ax=right, shrink=0.8, extend="both")


def saturation(nats: Tensor) -> float:
    """The size at which the colours of a map saturate, in nats, above 0."""
    return max(1e-6, float(torch.quantile(nats.abs().flatten(), SATURATION / 100)))


def attribution_picture(image: Tensor, nats: Tensor, side: int = 384) -> Image.Image:
    """A map over its image in gray, as `plot_attributions` draws it, alone and enlarged to ``side`` pixels.

    image uint8 [C, H, W], nats float [H, W]; every pixel is a square. Red is for the first class, blue for the second.
    """
    shades = (nats / saturation(nats) / 2 + 0.5).clamp(0, 1).numpy()
    colours = Image.fromarray((colormaps[COLOURS](shades)[..., :3] * 255).round().astype("uint8"))
    picture = Image.blend(to_pil(image).convert("L").convert("RGB"), colours, OPACITY)
    factor = max(1, side // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
