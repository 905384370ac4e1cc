"""Write a split as PNG files in class sub-folders: python -m data.export digits validation OUT [--data_dir DIR]."""

from pathlib import Path

from jsonargparse import ArgumentParser
from PIL import Image

from data.registry import load_split
from data.types import ImageSet
from utils.arguments import parse_flags
from utils.console import notify
from utils.errors import DataError
from utils.script import run_script


def export_split(split: ImageSet, folder: str | Path) -> None:
    """Write each image as ``folder/<class name>/<number>.png``; images of unknown class go to ``folder`` itself.

    Raises DataError if the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder} is not empty; give a new folder")
        names = [name.replace("/", "_") for name in split.class_names]  # Fashion-MNIST has a T-shirt/top
        for name in names if (split.labels >= 0).any() else ():
            (folder / name).mkdir()
        for number, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            where = folder / names[label] if label >= 0 else folder
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(where / f"{number:05d}.png")
    except OSError as error:
        raise DataError(f"cannot write the images to {folder}: {error.strerror or error}") from None


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, exit_on_error=False)
    parser.add_argument("dataset", help="name of the data set")
    parser.add_argument("split", help="train, validation or test")
    parser.add_argument("out", help="a new or empty folder")
    parser.add_argument("--data_dir", type=str | None, help="folder with the data set's files")
    parser.add_argument("--image_size", type=int | None, help="side in pixels, a multiple of 4")
    parser.add_argument("--skip_bad_images", type=bool, default=False, help="leave out images that cannot be read")
    settings = parse_flags(parser, argv)
    where = (settings.image_size, settings.data_dir, settings.skip_bad_images)
    split = load_split(settings.dataset, settings.split, *where)
    for line in split.lines():
        notify(line)
    export_split(split, settings.out)
    print(f"{len(split)} images in {settings.out}")


if __name__ == "__main__":
    run_script(main)
