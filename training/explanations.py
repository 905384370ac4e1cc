"""What decided: where in an image its best class is likelier than its second."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from data import DataError
from model import PixelCNN, pixel_log_prob, to_unit
from training.pictures import check_writable, file_stems, printable, replacing, to_picture
from training.predictions import Images, Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["explain", "explanation_maps"]

BATCH = 8
OVERVIEW = 12  # images in overview.png
NATS = 99.0  # percentile of a map at which its colours saturate, so that one pixel does not pale the rest


@torch.inference_mode()
def explanation_maps(net: PixelCNN, images: Tensor, best: Tensor, second: Tensor) -> Tensor:
    """log p(x_i | x_<i, best) - log p(x_i | x_<i, second) of each pixel i, nats: they sum to that of the whole image.

    images uint8 [B, C, H, W], best and second int64 [B] -> float32 [B, H, W] on the network's device.
    """
    device = next(net.parameters()).device
    x = to_unit(images.to(device))
    of_best, of_second = (pixel_log_prob(x, net(x, y.to(device)).float()) for y in (best, second))
    return of_best - of_second


def explain(
    net: PixelCNN, images: Images, predictions: Sequence[Prediction], folder: str | Path, mirror: bool = False
) -> Iterator[Path]:
    """Write a picture <image>.png of each labelled image into ``folder``, and overview.png of the first ones.

    With ``mirror`` the maps are the mean of the image's and of its mirror image's, as `MirrorScorer` scores. Yields
    the paths of the images' pictures as they are written. Raises UserError where one cannot be.
    """
    folder = Path(folder)
    check_writable(folder / "overview.png")
    stems = file_stems(["overview", *(Path(p.name).stem for p in predictions)])[1:]
    todo = [i for i, p in enumerate(predictions) if not p.error and p.second >= 0]
    shown = []
    for start in range(0, len(todo), BATCH):
        numbers, pixels = [], []
        for i in todo[start : start + BATCH]:
            try:
                pixels.append(images.read(i))
            except DataError:  # it was there a moment ago
                continue
            numbers.append(i)
        if not numbers:
            continue
        best, second = (
            torch.tensor([getattr(predictions[i], which) for i in numbers]) for which in ("label", "second")
        )
        batch = torch.stack(pixels)
        maps = explanation_maps(net, batch, best, second).cpu()
        if mirror:
            maps = (maps + explanation_maps(net, batch.flip(3), best, second).cpu().flip(2)) / 2
        for i, image, nats in zip(numbers, pixels, maps, strict=True):
            path = folder / f"{stems[i]}.png"
            picture([(predictions[i], image, nats)], net.class_names, path, columns=1)
            shown = [*shown, (predictions[i], image, nats)][:OVERVIEW]
            yield path
    if shown:
        picture(shown, net.class_names, folder / "overview.png", columns=3)


def picture(
    rows: Sequence[tuple[Prediction, Tensor, Tensor]], class_names: Sequence[str], path: Path, columns: int
) -> None:
    """Each image beside its map, ``columns`` pairs a row."""
    from matplotlib.figure import Figure

    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(5.4 * columns, 2.9 * lines), layout="constrained")
    panels = figure.subplots(lines, 2 * columns, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for (prediction, image, nats), left, right in zip(rows, panels[::2], panels[1::2], strict=False):
        pair(figure, left, right, prediction, image, nats, class_names)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=80, format="png")


def pair(
    figure: "Figure",
    left: "Axes",
    right: "Axes",
    prediction: Prediction,
    image: Tensor,
    nats: Tensor,
    class_names: Sequence[str],
) -> None:
    best, second = (printable(class_names[label])[:20] for label in (prediction.label, prediction.second))
    left.imshow(to_picture(image), cmap="gray", vmin=0, vmax=255)
    left.set_title(f"{best} {prediction.confidence:.2f}", parse_math=False)
    limit = max(1e-6, float(torch.quantile(nats.abs().flatten(), NATS / 100)))
    right.imshow(to_picture(image).convert("L"), cmap="gray", vmin=0, vmax=255)
    colours = right.imshow(nats.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.75)
    right.set_title(f"red: {best}, blue: {second} ({nats.sum():+.0f} nats)", fontsize=9, parse_math=False)
    figure.colorbar(colours, ax=right, shrink=0.8, extend="both")
