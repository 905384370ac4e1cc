"""Drawing many images, shared between processes."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model import PixelCNN, Sampler, image_generators
from utils.distributed import rank, world_size
from utils.errors import UserError
from utils.files import check_writable
from utils.memory import out_of_memory, release_failed_batch
from utils.text import printable

__all__ = ["MAX_PER_CLASS", "draw_images", "prepare_folder"]

MAX_PER_CLASS = 1_000_000  # each class has that many image numbers of its own


def prepare_folder(folder: Path, stems: Sequence[str], overwrite: bool) -> None:
    """Make the folder of the draws, new or empty; with ``overwrite`` remove the draws in it, completions too: files
    called <stem>_0001.png, ... or <anything>_<stem>_0001.png, ...

    Raises UserError where the folder holds files and may not be overwritten, or cannot be written.
    """
    check_writable(folder / f"{stems[0]}_0001.png")
    if not overwrite and any(folder.iterdir()):
        raise UserError(
            f"{printable(folder)} holds files; give another --out, or --overwrite true to replace its draws"
        )
    earlier = re.compile(rf"(.+_)?({'|'.join(map(re.escape, stems))})_\d{{4,}}\.png", re.DOTALL)
    for file in folder.iterdir():
        if earlier.fullmatch(file.name):
            file.unlink()


def draw_images(
    net: PixelCNN,
    classes: Sequence[int],
    per_class: int,
    seed: int = 0,
    temperature: float = 1.0,
    batch_size: int = 64,
    keep: Tensor | None = None,
) -> Iterator[tuple[int, int, Tensor]]:
    """Draw ``per_class`` images (at most MAX_PER_CLASS) of each class: (class, number from 0, uint8 [C, H, W]) in turn.

    The random numbers of an image depend on ``seed``, its class and its number within the class alone: not on the
    other classes, ``per_class`` or ``batch_size``. The number of images drawn together changes the rounding of sums,
    and where that tips a level, the rest of an image. ``batch_size`` is halved when memory runs out. ``keep`` uint8
    [C, rows, W] are top rows that every image has; the rest is drawn. Several processes share the images; each yields
    its own. Raises UserError where not one image fits in memory.
    """
    wanted = [(label, number) for label in classes for number in range(per_class)][rank() :: world_size()]
    sampler = Sampler(net, net.image_size)
    with tqdm(total=len(wanted), desc="drawing", unit="image", disable=None if rank() == 0 else True) as bar:
        while wanted:
            batch = wanted[:batch_size]
            generators = [image_generators(seed, label * MAX_PER_CLASS + number, 1)[0] for label, number in batch]
            try:
                images = sampler(
                    torch.tensor([label for label, _ in batch]),
                    generators,
                    temperature,
                    None if keep is None else keep.expand(len(batch), -1, -1, -1),
                    progress=not bar.disable,
                ).cpu()
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise UserError("not one image fits in memory; free some, or use --device cpu") from None
                batch_size = len(batch) // 2
                sampler = Sampler(net, net.image_size)
                release_failed_batch(error)
                continue
            for (label, number), image in zip(batch, images, strict=True):
                yield label, number, image
            wanted = wanted[len(batch) :]
            bar.update(len(batch))
