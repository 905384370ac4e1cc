"""Write a split as PNG files in class sub-folders: python -m data.export digits validation OUT [--data_dir DIR]."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data.registry import load_split
from data.types import ImageSet
from utils.arguments import parse_settings
from utils.console import notify
from utils.errors import DataError, UserError, reason
from utils.files import atomic_write, check_folder
from utils.outputs import write_errors
from utils.script import run_script
from utils.values import PathName, PositiveInt


@dataclass
class ExportSettings:
    """Settings of data.export.

    Args:
        dataset: name of the data set.
        split: train, validation or test.
        out: a new or empty folder.
        data_dir: folder with the data set's files; datasets/NAME by default.
        image_size: side in pixels, a multiple of 4; the data set's own by default.
        skip_bad_images: leave out images that cannot be read.
    """

    dataset: str
    split: str
    out: PathName
    data_dir: PathName | None = None
    image_size: PositiveInt | None = None
    skip_bad_images: bool = False


def export_split(split: ImageSet, folder: str | Path) -> None:
    """Write each image as ``folder/<class name>/<number>.png``; images of unknown class go to ``folder`` itself.

    Raises UserError if the folder is not empty or cannot be written.
    """
    check_folder(folder)
    folder = Path(folder)
    with write_errors(folder):
        used = any(folder.iterdir())
    if used:
        raise DataError(f"{folder} is not empty; give a new folder")
    names = [name.replace("/", "_") for name in split.class_names]  # Fashion-MNIST has a T-shirt/top
    try:
        for name in names if (split.labels >= 0).any() else ():
            (folder / name).mkdir()
        for number, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            where = folder / names[label] if label >= 0 else folder
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            with atomic_write(where / f"{number:05d}.png") as partial:
                Image.fromarray(pixels.numpy()).save(partial, format="PNG")
    except (OSError, UserError) as error:
        problem = f"the images cannot all be written to {folder} ({reason(error)}); remove it before you repeat this"
        raise DataError(problem) from None


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(ExportSettings, __doc__, argv, positional=["dataset", "split", "out"])
    where = (settings.image_size, settings.data_dir, settings.skip_bad_images)
    split = load_split(settings.dataset, settings.split, *where)
    for line in split.lines():
        notify(line)
    export_split(split, settings.out)
    print(f"{len(split)} images in {settings.out}")


if __name__ == "__main__":
    run_script(main)
