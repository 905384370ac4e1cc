"""Attribution maps: the per-pixel log-likelihood ratio of an image's two most probable classes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from evaluation.images import Images
from evaluation.predictions import Prediction
from model import PixelCNN, pixel_log_prob, to_unit
from plots.attribution import Attribution, plot_attributions
from plots.fonts import class_labels
from utils.errors import DataError, UserError
from utils.figures import is_figure
from utils.files import check_folder
from utils.memory import FittingBatches
from utils.outputs import check_inputs
from utils.text import file_stems, printable

BATCH = 8
FIGURES = ("overview", "confusion", "reliability")  # no map has such a name
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


def map_paths(names: Sequence[str], folder: Path) -> list[Path]:
    """The file of the map of each image."""
    stems = file_stems([*FIGURES, *(Path(name).stem for name in names)])[len(FIGURES) :]
    return [folder / f"{stem}.png" for stem in stems]


def check_maps(names: Sequence[str], folder: str | Path, inputs: Iterable[str | Path]) -> None:
    """Make the folder of the maps of the images ``names``. Raises UserError where one would overwrite one of the files
    ``inputs`` or a file that is no figure of this program, or cannot be written.
    """
    outputs = [Path(folder, "overview.png"), *map_paths(names, Path(folder))]
    check_inputs(outputs, inputs, "--explain", folder)
    for path in outputs:
        if path.is_file() and not is_figure(path):
            raise UserError(f"--explain {printable(folder)} would overwrite {printable(path)}; give another folder")
    check_folder(folder)


def write_attributions(
    net: PixelCNN, images: Images, predictions: Sequence[Prediction], folder: str | Path, mirror: bool = False
) -> Iterator[Path | DataError]:
    """Write the map of each classified image to ``folder``/<image>.png, and the first ones to overview.png.

    ``folder`` must exist; see `check_maps`.
    With ``mirror`` the maps are the mean of the image's and of its mirror image's, as `MirrorScorer` scores. Yields
    each path as it is written, and the error of each image that cannot be read any more. Raises UserError where a map
    cannot be written.
    """
    folder = Path(folder)
    paths = map_paths([p.name for p in predictions], folder)
    labels = class_labels(net.class_names)
    todo = [i for i, p in enumerate(predictions) if not p.error and p.second >= 0]
    shown: list[Attribution] = []

    def draw(numbers: Sequence[int]) -> tuple[list[DataError], list[tuple[int, Tensor, Tensor]]]:
        """The errors of images, and (number, image, map) of each that can be read."""
        pixels, errors = {}, []
        for i in numbers:
            try:
                pixels[i] = images.read(i)
            except DataError as error:  # removed since it was classified
                errors.append(error)
        if not pixels:
            return errors, []
        batch = torch.stack(list(pixels.values()))
        best = torch.tensor([predictions[i].label for i in pixels])
        second = torch.tensor([predictions[i].second for i in pixels])
        maps = attribution_maps(net, batch, best, second).cpu()
        if mirror:
            maps = (maps + attribution_maps(net, batch.flip(3), best, second).cpu().flip(2)) / 2
        return errors, list(zip(pixels, batch, maps, strict=True))

    for _, (errors, drawn) in FittingBatches(BATCH).map(draw, todo):
        yield from errors
        for i, image, nats in drawn:
            p = predictions[i]
            attribution = Attribution(image, nats, labels[p.label], labels[p.second], p.confidence)
            plot_attributions([attribution], paths[i], columns=1)
            shown = [*shown, attribution][:OVERVIEW]
            yield paths[i]
    if shown:
        plot_attributions(shown, folder / "overview.png", columns=3)
