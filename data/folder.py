"""A user's own images: one sub-folder per class, images of any size."""

import os
from pathlib import Path

import torch

from data.images import find_images, read_images
from data.splits import SEED
from data.types import ImageSet, Source
from utils.errors import DataError

SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}

Files = dict[str, list[Path]]  # class name -> its files, classes and files sorted


def load(split: str, image_size: tuple[int, int], data_dir: Path | None) -> ImageSet:
    """Read one split, uint8 [N, 3, H, W].

    DIR/train/CLASS/*, DIR/validation (or val)/CLASS/* and DIR/test/CLASS/* if DIR has a folder `train`;
    otherwise DIR/CLASS/*, of which a fixed 20 % per class is validation. Classes are numbered by sorted name;
    the classes of train apply to every split.

    Raises:
        DataError: no folder, no images, a missing split or class, or an image that cannot be read.
    """
    if data_dir is None:
        raise DataError("the data set 'folder' needs data_dir: a folder with one sub-folder per class")
    if not os.path.isdir(data_dir):
        raise DataError(f"{data_dir}: no such folder, set data_dir to one with a sub-folder per class")
    if os.path.isdir(data_dir / "train"):
        class_names, files = _ready_split(data_dir, split)
    else:
        class_names, files = _own_split(data_dir, split)
    chosen = [(file, class_names.index(name)) for name, group in files.items() for file in group]
    paths = [file for file, _ in chosen]
    return ImageSet(
        images=read_images(paths, SOURCE.channels, image_size, f"reading folder {split}"),
        labels=torch.tensor([label for _, label in chosen]),
        class_names=class_names,
        paths=tuple(path.relative_to(data_dir).as_posix() for path in paths),
    )


def _ready_split(data_dir: Path, split: str) -> tuple[tuple[str, ...], Files]:
    folders = [data_dir / name for name in SPLIT_FOLDERS[split] if os.path.isdir(data_dir / name)]
    if not folders:
        raise DataError(f"{data_dir} has a folder train but none for {split}: add {data_dir / split}")
    class_names = tuple(_files_by_class(data_dir / "train"))
    files = _files_by_class(folders[0])
    unknown = sorted(set(files) - set(class_names))
    if unknown:
        raise DataError(
            f"{folders[0]} has the class {unknown[0]!r}, which is not in {data_dir / 'train'}: "
            "all splits need the same class names"
        )
    return class_names, files


def _own_split(data_dir: Path, split: str) -> tuple[tuple[str, ...], Files]:
    if split == "test":
        raise DataError(f"{data_dir} has no split 'test': sort it into folders train, validation and test")
    files = _files_by_class(data_dir)
    parts = {name: _split_class(group)[split] for name, group in files.items()}
    if not any(parts.values()):
        raise DataError(f"{data_dir} has one image per class, none left for validation: add images")
    return tuple(files), parts


def _split_class(files: list[Path]) -> dict[str, list[Path]]:
    # Per class, as stratify= rejects classes of a few images.
    from sklearn.model_selection import train_test_split

    if len(files) == 1:
        return {"train": files, "validation": []}
    train, validation = train_test_split(files, test_size=0.2, random_state=SEED)
    return {"train": sorted(train), "validation": sorted(validation)}


def _files_by_class(folder: Path) -> Files:
    files: Files = {}
    for file in find_images(folder):  # sorted, so the classes come in order too
        name, *rest = file.relative_to(folder).parts
        if rest:  # a file beside the class folders has no class
            files.setdefault(name, []).append(file)
    if not files:
        raise DataError(f"{folder} has no images in class sub-folders: put them in {folder / 'CLASS'}")
    return files


SOURCE = Source(channels=3, image_size=32, splits=("train", "validation", "test"), load=load)
