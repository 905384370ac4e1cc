"""Images as PNG files, alone and as a labelled grid."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from plots.fonts import class_labels, default_font, font_file
from utils.figures import SOFTWARE
from utils.files import atomic_write

TILE = 96  # pixels that an image of a grid is enlarged to at most; larger ones stay as they are
MAX_HEIGHT = 10_000  # pixels up to which a grid of many rows is enlarged
MIN_ROW = 16  # pixels of a row, so that the names do not overlap


def to_pil(image: Tensor) -> Image.Image:
    """uint8 [C, H, W], C = 1 or 3 -> a gray or RGB picture of the same levels."""
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).cpu().contiguous().numpy())


def write_png(image: Tensor, path: str | Path) -> None:
    """Write uint8 [C, H, W], C = 1 or 3, as a PNG file of the same levels. Raises UserError."""
    with atomic_write(path) as partial:
        to_pil(image).save(partial, format="PNG")


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


def write_zip(pictures: Iterable[tuple[str, Image.Image]], path: str | Path) -> None:
    """Write named pictures as PNG files into a ZIP file. Raises UserError."""
    with atomic_write(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, picture in pictures:
            archive.writestr(name, png_bytes(picture))


def labelled_grid(
    images: Tensor, labels: Tensor, class_names: Sequence[str], path: str | Path, columns: int = 10
) -> None:
    """Write what `grid_picture` draws as PNG. Raises UserError where ``path`` cannot be written."""
    picture = grid_picture(images, labels, class_names, columns)
    mark = PngInfo()
    mark.add_text("Software", SOFTWARE)
    with atomic_write(path) as partial:
        picture.save(partial, format="PNG", pnginfo=mark)


def grid_picture(images: Tensor, labels: Tensor, class_names: Sequence[str], columns: int = 10) -> Image.Image:
    """A grid with a row for each class that occurs, its name at the left.

    Args:
        images: uint8 [N, C, H, W], N at least 1. Images below 96 pixels are enlarged by a whole factor, every
            pixel a square.
        labels: int64 [N].
        class_names: of all labels.
        columns: the first ``columns`` images of each class are shown, so that a large draw stays viewable.
    """
    from torchvision.utils import make_grid

    images, labels = images.cpu(), labels.cpu()
    rows = labels.unique().tolist()
    columns = min(columns, int(labels.bincount().max()))
    tiles = images.new_full((len(rows), columns, *images.shape[1:]), 255)
    for row, label in zip(tiles, rows, strict=True):
        chosen = images[labels == label][:columns]
        row[: len(chosen)] = chosen
    room = max(MIN_ROW, MAX_HEIGHT // len(rows))
    factor = max(1, min(TILE // max(images.shape[2:]), room // images.shape[2]))
    tiles = tiles.flatten(0, 1).repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    grid = to_pil(make_grid(tiles, nrow=columns, padding=4, pad_value=255))

    labels_drawn = class_labels(class_names)
    names = [labels_drawn[label] for label in rows]
    fonts = [ImageFont.truetype(font_file(name) or default_font(), 14) for name in names]
    margin = 16 + int(max(font.getlength(name) for font, name in zip(fonts, names, strict=True)))
    picture = Image.new("RGB", (margin + grid.width, grid.height), "white")
    picture.paste(grid, (margin, 0))
    for row, (name, font) in enumerate(zip(names, fonts, strict=True)):
        middle = (row + 0.5) * grid.height / len(rows)
        ImageDraw.Draw(picture).text((margin - 8, middle), name, fill="black", font=font, anchor="rm")
    return picture
