"""Pictures on disk: draws of the model, a labelled grid, a confusion matrix. Every file is PNG and appears whole."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from model import PixelCNN, Sampler, image_generators
from training.cli import UserError, out_of_memory
from training.distributed import rank, world_size
from training.scoring import forget_failed_batch

__all__ = [
    "MAX_PER_CLASS",
    "check_writable",
    "confusion_picture",
    "draw_images",
    "escaped",
    "file_stems",
    "labelled_grid",
    "prepare_folder",
    "printable",
    "replacing",
    "write_png",
]

MAX_PER_CLASS = 1_000_000  # each class has that many image numbers of its own
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TILE = 96  # pixels that an image of a grid is enlarged to at most; larger ones stay as they are


def printable(name: str | os.PathLike) -> str:
    r"""A name on one line of valid Unicode: control characters and bytes that are no UTF-8 become \xNN or \uNNNN."""
    return UNPRINTABLE.sub(lambda match: escaped(match[0]), os.fspath(name))


def escaped(character: str) -> str:
    r"""\xNN of a character below 128, or of a byte that is no UTF-8 (a surrogate in Python's names); else \uNNNN."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, renamed to it at the end: nobody sees half a file.

    Raises UserError where it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be written ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Make the folder of ``path`` where it is missing; raise UserError unless a file can be written there."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be written ({error.strerror or error})") from None
    if path.is_dir():
        raise UserError(f"{printable(path)} is a folder; give the name of a file")


def file_stems(class_names: Sequence[str]) -> list[str]:
    """A name fit for files for every class, at most 50 characters, distinct even where case does not count."""
    stems: list[str] = []
    taken: set[str] = set()
    for index, name in enumerate(class_names):
        stem = re.sub(r"[^\w+.-]+", "_", printable(name)).strip("._")[:40] or "class"
        while stem.casefold() in taken:
            stem = f"{stem}-{index}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


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
                forget_failed_batch(error)
                continue
            for (label, number), image in zip(batch, images, strict=True):
                yield label, number, image
            wanted = wanted[len(batch) :]
            bar.update(len(batch))


def to_picture(image: Tensor) -> Image.Image:
    """uint8 [C, H, W], C = 1 or 3 -> a gray or RGB picture of the same levels."""
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).cpu().contiguous().numpy())


def write_png(image: Tensor, path: str | Path) -> None:
    """Write uint8 [C, H, W], C = 1 or 3, as a PNG file of the same levels. Raises UserError."""
    with replacing(path) as partial:
        to_picture(image).save(partial, format="PNG")


def labelled_grid(
    images: Tensor, labels: Tensor, class_names: Sequence[str], path: str | Path, columns: int = 10
) -> None:
    """Write a PNG grid with a row for each class that occurs, its name at the left.

    Args:
        images: uint8 [N, C, H, W], N at least 1. Images below 96 pixels are enlarged by a whole factor, every
            pixel a square.
        labels: int64 [N].
        class_names: of all labels.
        columns: the first ``columns`` images of each class are shown, so that a large draw stays viewable.

    Raises UserError where ``path`` cannot be written.
    """
    from torchvision.utils import make_grid

    images, labels = images.cpu(), labels.cpu()
    rows = labels.unique().tolist()
    columns = min(columns, int(labels.bincount().max()))
    tiles = images.new_full((len(rows), columns, *images.shape[1:]), 255)
    for row, label in zip(tiles, rows, strict=True):
        chosen = images[labels == label][:columns]
        row[: len(chosen)] = chosen
    factor = max(1, TILE // max(images.shape[2:]))
    tiles = tiles.flatten(0, 1).repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    grid = to_picture(make_grid(tiles, nrow=columns, padding=4, pad_value=255))

    font = ImageFont.load_default(16)
    names = [printable(class_names[label]) for label in rows]
    margin = 16 + int(max(font.getlength(name) for name in names))
    picture = Image.new("RGB", (margin + grid.width, grid.height), "white")
    picture.paste(grid, (margin, 0))
    for row, name in enumerate(names):
        middle = (row + 0.5) * grid.height / len(rows)
        ImageDraw.Draw(picture).text((margin - 8, middle), name, fill="black", font=font, anchor="rm")
    with replacing(path) as partial:
        picture.save(partial, format="PNG")


def confusion_picture(
    truth: Sequence[int], predicted: Sequence[int], class_names: Sequence[str], path: str | Path
) -> None:
    """Write the confusion matrix as PNG: true classes down, predicted ones across, counts in the cells of up to 40.

    ``truth`` and ``predicted`` are labels, 0 .. num_classes-1, of the same N images. Raises UserError where
    ``path`` cannot be written.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import confusion_matrix

    classes = range(len(class_names))
    counts = confusion_matrix(truth, predicted, labels=classes)
    side = 2.5 + 0.5 * len(class_names)  # inches
    figure = Figure(figsize=(side, side), layout="constrained")  # no pyplot: it keeps figures and picks a display
    axes = figure.add_subplot()
    axes.imshow(counts, cmap="Blues")
    names = [printable(name) for name in class_names]
    axes.set_xticks(classes, names, rotation=90, parse_math=False)  # a $ in a name is a $
    axes.set_yticks(classes, names, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    for i in classes if len(class_names) <= 40 else ():  # 10,000 numbers would take longer than many an epoch
        for j in classes:
            colour = "white" if 2 * counts[i, j] > counts.max() else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
