"""Sampling many images, shared between processes, and the folder that they are written to."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model import PixelCNN, Sampler, image_generators
from utils.distributed import rank, shared_batches, world_size
from utils.errors import UserError
from utils.files import check_folder
from utils.memory import FittingBatches
from utils.outputs import check_inputs, identity, write_errors
from utils.text import printable

MAX_PER_CLASS = 1_000_000  # image numbers of different classes never overlap
BATCH_SIZES = {"cpu": 64, "cuda": 512}  # by device
BLANK = 128  # level of rows that are not drawn yet


def sample_name(stem: str, number: int) -> str:
    """The file of image ``number``, from 0."""
    return f"{stem}_{number + 1:04d}.png"


def prepare_folder(
    folder: Path,
    stems: Sequence[str],
    overwrite: bool,
    names: Iterable[str] = (),
    inputs: Sequence[str | Path] = (),
) -> None:
    """Make the folder of the samples, new or empty; with ``overwrite`` remove earlier samples, completions too: files
    called <stem>_0001.png, ... or <anything>_<stem>_0001.png, ..., but none of ``inputs``.

    Raises UserError where the folder holds files and may not be overwritten, one of the files to come, ``names``, would
    overwrite one of ``inputs``, or the folder cannot be written.
    """
    check_folder(folder)
    with write_errors(folder):
        files = sorted(folder.iterdir())
    if files and not overwrite:
        raise UserError(
            f"{printable(folder)} holds files; give another --out, or --overwrite true to replace its samples"
        )
    present = {file.name.casefold() for file in files}  # casefold: some disks ignore the case
    check_inputs((folder / name for name in names if name.casefold() in present), inputs, "--out", folder)
    earlier = re.compile(rf"(.+_)?({'|'.join(map(re.escape, stems))})_\d{{4,}}\.png", re.DOTALL)
    kept = {identity(file) for file in inputs} - {None}
    for file in files:
        if earlier.fullmatch(file.name) and identity(file) not in kept:
            with write_errors(file):
                file.unlink()


def draw_images(
    net: PixelCNN,
    classes: Sequence[int],
    per_class: int,
    image_size: tuple[int, int],
    *,
    seed: int = 0,
    temperature: float = 1.0,
    batch_size: int | None = None,
    keep: Tensor | None = None,
    shared: bool = True,
) -> Iterator[tuple[int, int, Tensor]]:
    """Draw ``per_class`` images of each class: (class, number from 0, uint8 [C, H, W] on the CPU) in turn.

    The random numbers of an image depend on ``seed``, its class and its number within the class alone: not on the
    other classes, ``per_class`` or ``batch_size``. The number of images drawn together changes the rounding of sums,
    and where that changes a level, the rest of an image.

    Args:
        net: the network, in eval mode.
        classes: labels.
        per_class: at most MAX_PER_CLASS.
        image_size: (H, W).
        seed: of the random numbers.
        temperature: above 0; see `Sampler`.
        batch_size: images drawn together, by default the device's default; halved when memory runs out.
        keep: uint8 [C, rows, W], top rows that every image has; the rest is drawn.
        shared: several processes share the images, and each yields its own; else this process draws all.

    Raises UserError where not even one image fits in memory.
    """
    wanted = [(label, number) for label in classes for number in range(per_class)]
    sampler = Sampler(net, image_size)
    batch_size = batch_size or BATCH_SIZES.get(sampler.device.type, BATCH_SIZES["cpu"])
    if shared:  # whole batches, those that one process would draw: their sums are rounded alike
        batch_size = min(batch_size, max(1, -(-len(wanted) // world_size())))
        wanted = [wanted[i] for batch in shared_batches(len(wanted), batch_size) for i in batch]
    quiet = None if rank() == 0 else True
    with tqdm(total=len(wanted), desc="sampling", unit="image", leave=False, disable=quiet) as bar:

        def draw(batch: Sequence[tuple[int, int]]) -> Tensor:
            arguments = sampler_arguments(batch, seed, temperature, keep)
            return sampler(*arguments, progress=not bar.disable).cpu()

        for batch, images in FittingBatches(batch_size).map(draw, wanted):
            for (label, number), image in zip(batch, images, strict=True):
                yield label, number, image
            bar.update(len(batch))


def sampler_arguments(
    batch: Sequence[tuple[int, int]], seed: int, temperature: float, keep: Tensor | None
) -> tuple[Tensor, list[torch.Generator], float, Tensor | None]:
    """What a `Sampler` needs to draw the images ``batch``, pairs of class and number; the rest as in `draw_images`."""
    return (
        torch.tensor([label for label, _ in batch]),
        [image_generators(seed, label * MAX_PER_CLASS + number, 1)[0] for label, number in batch],
        temperature,
        None if keep is None else keep.expand(len(batch), -1, -1, -1),
    )


@dataclass(frozen=True)
class PartlyDrawn:
    """A batch of images of which the top rows are drawn.

    Args:
        batch: class and number, from 0, of each image.
        images: uint8 [B, C, H, W] on the CPU, gray below the rows that are drawn.
        rows: how many rows are drawn, 1 to H.
    """

    batch: Sequence[tuple[int, int]]
    images: Tensor
    rows: int


def draw_rows(
    net: PixelCNN,
    classes: Sequence[int],
    per_class: int,
    image_size: tuple[int, int],
    *,
    seed: int = 0,
    temperature: float = 1.0,
    batch_size: int | None = None,
    keep: Tensor | None = None,
) -> Iterator[PartlyDrawn]:
    """Draw the images of `draw_images` by this process alone, and yield each batch after each of its rows.

    Arguments and errors are those of `draw_images`. A batch that is halved as memory runs out begins anew.
    """
    sampler = Sampler(net, image_size)
    wanted = [(label, number) for label in classes for number in range(per_class)]

    def draw(batch: Sequence[tuple[int, int]]) -> Iterator[PartlyDrawn]:
        for rows, drawn in enumerate(sampler.rows_of(*sampler_arguments(batch, seed, temperature, keep)), 1):
            images = drawn.cpu().clone()
            images[:, :, rows:] = BLANK
            yield PartlyDrawn(batch, images, rows)

    batch_size = batch_size or BATCH_SIZES.get(sampler.device.type, BATCH_SIZES["cpu"])
    for _, drawn in FittingBatches(batch_size).stream(draw, wanted):
        yield drawn


def keep_top(image: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The top rows of an image to complete, uint8 [C, rows, W], and the image with gray below them, uint8 [C, H, W].

    Raises UserError unless some rows are kept and some are left to draw.
    """
    height = image.shape[1]
    if not 0 < rows < height:
        raise UserError(f"--keep_rows {rows}: the network's images have {height} rows; keep 1 to {height - 1}")
    blanked = image.clone()
    blanked[:, rows:] = BLANK
    return image[:, :rows], blanked
