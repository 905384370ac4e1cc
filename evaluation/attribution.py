"""Attribution maps: the per-pixel log-likelihood ratio of an image's two most probable classes."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from evaluation.images import Images
from evaluation.predictions import Prediction
from model import PixelCNN, pixel_log_prob, to_unit
from plots.attribution import Attribution, plot_attributions
from utils.errors import DataError
from utils.files import check_writable
from utils.memory import FittingBatches
from utils.text import file_stems

BATCH = 8
OVERVIEW = 12  # images in overview.png


@torch.inference_mode()
def attribution_maps(net: PixelCNN, images: Tensor, best: Tensor, second: Tensor) -> Tensor:
    """log p(x_i | x_<i, best) - log p(x_i | x_<i, second) of each pixel i, nats: they sum to that of the whole image.

    images uint8 [B, C, H, W], best and second int64 [B] -> float32 [B, H, W] on the network's device.
    """
    device = next(net.parameters()).device
    x = to_unit(images.to(device))
    of_best, of_second = (pixel_log_prob(x, net(x, y.to(device)).float()) for y in (best, second))
    return of_best - of_second


def write_attributions(
    net: PixelCNN, images: Images, predictions: Sequence[Prediction], folder: str | Path, mirror: bool = False
) -> Iterator[Path]:
    """Write the map of each classified image to ``folder``/<image>.png, and the first ones to overview.png.

    With ``mirror`` the maps are the mean of the image's and of its mirror image's, as `MirrorScorer` scores. Yields
    each path as it is written. Raises UserError where one cannot be.
    """
    folder = Path(folder)
    check_writable(folder / "overview.png")
    stems = file_stems(["overview", *(Path(p.name).stem for p in predictions)])[1:]
    todo = [i for i, p in enumerate(predictions) if not p.error and p.second >= 0]
    shown: list[Attribution] = []

    def draw(numbers: Sequence[int]) -> list[tuple[int, Tensor, Tensor]]:
        """(number, image, map) of each image that is still there."""
        pixels = {}
        for i in numbers:
            with suppress(DataError):  # removed since it was classified
                pixels[i] = images.read(i)
        if not pixels:
            return []
        batch = torch.stack(list(pixels.values()))
        best = torch.tensor([predictions[i].label for i in pixels])
        second = torch.tensor([predictions[i].second for i in pixels])
        maps = attribution_maps(net, batch, best, second).cpu()
        if mirror:
            maps = (maps + attribution_maps(net, batch.flip(3), best, second).cpu().flip(2)) / 2
        return list(zip(pixels, batch, maps, strict=True))

    for _, drawn in FittingBatches(BATCH).map(draw, todo):
        for i, image, nats in drawn:
            path = folder / f"{stems[i]}.png"
            p = predictions[i]
            attribution = Attribution(image, nats, net.class_names[p.label], net.class_names[p.second], p.confidence)
            plot_attributions([attribution], path, columns=1)
            shown = [*shown, attribution][:OVERVIEW]
            yield path
    if shown:
        plot_attributions(shown, folder / "overview.png", columns=3)
