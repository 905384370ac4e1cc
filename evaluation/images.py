"""The images that are classified: files and folders, or a split of a data set."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data import ImageSet, find_images, read_image
from data.find import describe_skipped
from data.types import BadImage
from model import PixelCNN
from utils.errors import DataError, UserError
from utils.text import composed, listed, printable


@dataclass(frozen=True)
class Images:
    """Images to classify: names and true labels (-1 unknown) in order, and ``read(i)`` -> uint8 [C, H, W].

    ``read`` raises DataError for an image that cannot be read. ``files`` are those that are read, which nothing may
    overwrite; ``notes`` are lines about files that are left out.
    """

    names: Sequence[str]
    truth: Sequence[int]
    read: Callable[[int], Tensor]
    files: Iterable[str | Path] = ()
    notes: Sequence[str] = ()


def true_label(file: Path, folder: Path, class_names: Sequence[str]) -> int:
    """The class that a folder between ``folder`` and ``file`` is named after, the innermost; -1 if there is none.

    ``class_names`` are in composed Unicode, as those of a checkpoint; the folders' names may be decomposed.
    """
    for part in map(composed, reversed(file.relative_to(folder).parts[:-1])):
        if part in class_names:
            return class_names.index(part)
    return -1


def images_of_paths(paths: Sequence[str], net: PixelCNN) -> Images:
    """The images of files and folders (searched recursively), in order. Raises DataError, UserError."""
    files: list[Path] = []
    truth: list[int] = []
    unreadable: dict[Path, DataError] = {}  # folders that cannot be listed, and the error of their rows
    skipped: list[Path] = []
    hidden: list[Path] = []
    if not any(map(os.path.lexists, paths)):
        raise UserError(f"{printable(paths[0])}: no such file or folder")
    for path in paths:
        # the row of a missing file gets an error
        found = find_images(path, unreadable, skipped, hidden) if os.path.lexists(path) else [Path(path)]
        if not found:
            others = f", but {describe_skipped(skipped)}" if skipped else ""
            raise UserError(
                f"{printable(path)} has no files with an image's extension (.png, .jpg, ...){others}; "
                "give a folder with images, or files"
            )
        files += found
        truth += [-1 if file == Path(path) else true_label(file, Path(path), net.class_names) for file in found]

    def read(i: int) -> Tensor:
        if files[i] in unreadable:
            raise unreadable[files[i]]
        return read_image(files[i], net.image_channels, net.image_size)

    return Images([str(file) for file in files], truth, read, files, skipped_lines(skipped, hidden))


def images_of_uploads(files: Sequence[str | Path], net: PixelCNN) -> Images:
    """Images of unknown class, called by their file names alone: neither names nor errors tell where they lie."""
    names = [Path(file).name for file in files]

    def read(i: int) -> Tensor:
        try:
            return read_image(files[i], net.image_channels, net.image_size)
        except DataError as error:
            problem = str(error).replace(str(files[i]), names[i])
        raise DataError(problem)

    return Images(names, [-1] * len(names), read, files)


def skipped_lines(skipped: Sequence[Path], hidden: Sequence[Path]) -> list[str]:
    """Lines about the files without an image's extension, and the images in hidden folders."""
    lines = []
    if skipped:
        example, kinds = printable(skipped[0]), describe_skipped(skipped)
        lines.append(f"skipped: {len(skipped)} files without an image's extension, such as {example} ({kinds})")
    found = [image for folder in hidden for image in find_images(folder, unreadable={})]
    if found:
        lines.append(
            f"skipped: {len(found)} images in folders whose names begin with a dot, such as {printable(found[0])}"
        )
    return lines


def check_data_set(split: ImageSet, net: PixelCNN) -> None:
    """Raise UserError if the network was trained on images of another data set."""
    if split.class_names != net.class_names or split.images.shape[1] != net.image_channels:
        raise UserError(
            f"a checkpoint of another data set ({net.dataset}): "
            f"it has {describe(net.class_names, net.image_channels)}, "
            f"these images have {describe(split.class_names, split.images.shape[1])}"
        )


def images_of_split(split: ImageSet, net: PixelCNN, files: Iterable[Path] = ()) -> Images:
    """The images of a data set's split, in ``files``; ``read`` raises for those that are bad.

    Raises UserError if the network was trained on another data set's.
    """
    check_data_set(split, net)
    names, truth = list(split.paths), split.labels.tolist()
    rows: list[int | BadImage] = list(range(len(split)))
    for bad in split.bad:
        names.insert(bad.position, bad.path)
        truth.insert(bad.position, bad.label)
        rows.insert(bad.position, bad)

    def read(i: int) -> Tensor:
        row = rows[i]
        if isinstance(row, BadImage):
            raise DataError(row.error)
        return split.images[row]

    return Images(names, truth, read, files, split.notes)


def files_of_split(split: ImageSet, dataset: str, name: str, data_dir: str | None) -> list[Path]:
    """Where the files of a split called ``name`` are that were read, as far as each image has one."""
    root = Path(data_dir or Path("datasets", dataset))
    folders = (root, root / dataset)  # cpen455 may be in a folder of its name
    return [folder / path for folder in folders for path in (*split.paths, f"{name}.csv")]


def describe(class_names: Sequence[str], channels: int) -> str:
    classes = f"{len(class_names)} class{'es' if len(class_names) > 1 else ''}"
    return f"{channels} channel{'s' if channels > 1 else ''} and {classes} ({listed(class_names, 10)})"
