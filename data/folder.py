"""A user's own images: one sub-folder per class, images of any size."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from data.find import describe_skipped, find_images, is_photo
from data.splits import SEED, split_files
from data.types import ImageSet, Source
from utils.errors import DataError
from utils.text import composed, listed, printable

SPLIT_FOLDERS = {  # names of their folders, in any letter case
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
SPLIT_NAMES = {name for names in SPLIT_FOLDERS.values() for name in names}

Files = dict[str, list[Path]]  # class name -> its files, classes and files sorted


@dataclass(frozen=True)
class Listing:
    """The files of one split by class, before any is opened."""

    class_names: tuple[str, ...]  # of the training images, which number the classes of every split
    files: Files
    notes: tuple[str, ...]  # lines about what was left out


def load(split: str, image_size: tuple[int, int], data_dir: Path | None) -> ImageSet:
    """Read one split, uint8 [N, 3, H, W].

    DIR/train/CLASS/*, DIR/validation/CLASS/* and DIR/test/CLASS/* if DIR has a folder for training, by any of the
    names in SPLIT_FOLDERS; otherwise DIR/CLASS/*, of which a fixed 20 % per class is validation. Classes are numbered
    by sorted name, so that 10 comes before 2; the classes of train apply to every split. Names that differ only in
    their Unicode form, composed or decomposed, are one class.

    Raises:
        DataError: no folder, no images, a missing split or class.
    """
    data_dir = existing(data_dir)
    listing = list_split(split, data_dir)
    numbers = {name: number for number, name in enumerate(listing.class_names)}
    chosen = [(file, numbers[name]) for name, group in listing.files.items() for file in group]
    return split_files(
        files=[file for file, _ in chosen],
        labels=[label for _, label in chosen],
        class_names=listing.class_names,
        paths=[file.relative_to(data_dir).as_posix() for file, _ in chosen],
        channels=SOURCE.channels,
        image_size=image_size,
        description=f"reading folder {split}",
        notes=listing.notes,
    )


def refuse_one_class(data_dir: Path, alternative: str = "") -> NoReturn:
    """Raise DataError about training images of a single class; it names the level below if that has several.

    ``alternative`` is what the user can do instead of adding classes.
    """
    train = training_folder(data_dir)
    ((name, files),) = _files_by_class(train or data_dir).files.items()
    folders = [file.parent for file in files]
    top = Path(os.path.commonpath(folders))
    below = sorted({folder.relative_to(top).parts[0] for folder in folders if folder != top})
    advice = f"add the others{alternative}"
    if len(below) > 1:
        shown = listed(below, 5)
        if train is None:
            advice = f"if {shown} are the classes, give --data_dir {printable(top)}"
        else:
            advice = f"if {shown} are the classes, move them out of {printable(top)}, into the folder of the split"
    raise DataError(f"{printable(data_dir)} has only one class of training images, {printable(name)}: {advice}")


def existing(data_dir: Path | None) -> Path:
    """``data_dir``; raises DataError if there is none."""
    if data_dir is None:
        raise DataError("the data set 'folder' needs data_dir: a folder with one sub-folder per class")
    if not os.path.isdir(data_dir):
        raise DataError(f"{data_dir}: no such folder, set data_dir to one with a sub-folder per class")
    return data_dir


def list_split(split: str, data_dir: Path) -> Listing:
    """The files of one split. Raises DataError, as `load`."""
    train = training_folder(data_dir)
    return _own_split(data_dir, split) if train is None else _ready_split(data_dir, train, split)


def training_folder(data_dir: Path) -> Path | None:
    """The folder of the training split; None where there is none, or its own files show it to be a class."""
    train = _split_folder(data_dir, "train")
    if train is None:
        return None
    shown = [entry for entry in _entries(train) if not entry.name.startswith(".")]
    return train if not shown or any(os.path.isdir(entry.path) for entry in shown) else None


def _split_folder(data_dir: Path, split: str) -> Path | None:
    """The folder of a split. Raises DataError where there are two."""
    names = SPLIT_FOLDERS[split]
    found = sorted(e.name for e in _entries(data_dir) if e.name.casefold() in names and os.path.isdir(e.path))
    if len(found) > 1:
        raise DataError(f"{data_dir} has {len(found)} folders for {split} ({', '.join(found)}): keep one")
    return data_dir / found[0] if found else None


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: this folder cannot be listed ({error.strerror})") from error


def _ready_split(data_dir: Path, train: Path, split: str) -> Listing:
    folder = _split_folder(data_dir, split)
    if folder is None:
        others = ", ".join(SPLIT_FOLDERS[split][1:])
        raise DataError(
            f"{data_dir} has a folder {train.name} but none for {split}: add {data_dir / split} (or call it {others})"
        )
    training = _files_by_class(train)
    listing = training if folder == train else _files_by_class(folder)
    unknown = sorted(set(listing.files) - set(training.files))
    if unknown:
        raise DataError(
            f"{folder} has the class {unknown[0]!r}, which is not in {train}: all splits need the same class names"
        )
    return Listing(training.class_names, listing.files, listing.notes)


def _own_split(data_dir: Path, split: str) -> Listing:
    if split == "test":
        raise DataError(f"{data_dir} has no split 'test': sort it into folders train, validation and test")
    listing = _files_by_class(data_dir)
    splits = [name for name in listing.class_names if name.casefold() in SPLIT_NAMES]
    if len(splits) == len(listing.class_names):
        raise DataError(
            f"{data_dir} has folders for splits ({', '.join(splits)}), but no classes to train on: "
            f"put the training images in {data_dir / 'train' / 'CLASS'}"
        )
    parts = {name: _split_class(group)[split] for name, group in listing.files.items()}
    if not any(parts.values()):
        raise DataError(f"{data_dir} has one image per class, none left for validation: add images")
    taken = [f"{printable(data_dir)}: {', '.join(splits)} is taken for a class, not for a split"] if splits else []
    return Listing(listing.class_names, parts, (*listing.notes, *taken))


def _split_class(files: list[Path]) -> dict[str, list[Path]]:
    # Per class, as stratify= rejects classes of a few images.
    from sklearn.model_selection import train_test_split

    if len(files) == 1:
        return {"train": files, "validation": []}
    train, validation = train_test_split(files, test_size=0.2, random_state=SEED)
    return {"train": sorted(train), "validation": sorted(validation)}


def _files_by_class(folder: Path) -> Listing:
    """The files of the class folders below ``folder``, with notes on what was left out. Raises DataError."""
    skipped: list[Path] = []
    hidden: list[Path] = []
    files: Files = {}
    beside = 0
    for file in find_images(folder, skipped=skipped, hidden=hidden):
        name, *rest = file.relative_to(folder).parts
        if rest:
            files.setdefault(composed(name), []).append(file)
        else:
            beside += 1  # it has no class
    where = printable(folder)
    if not files:
        seen = f" (it has {describe_skipped(skipped)})" if skipped else ""
        raise DataError(f"{folder} has no images in class sub-folders{seen}: put them in {folder / 'CLASS'}")
    inside = [file for file in skipped if file.parent != folder]
    lost = [file for file in inside if composed(file.relative_to(folder).parts[0]) not in files]
    if any(map(is_photo, lost)):
        raise DataError(f"{where} has a class without any image that can be read: {describe_skipped(lost, folder)}")
    notes = []
    if inside:
        notes.append(f"{where}: left out {describe_skipped(inside, folder)}")
    if beside:
        notes.append(f"{where}: left out {beside} images that lie beside the class folders")
    dotted = [printable(path.name) for path in hidden if path.parent == folder and _has_images(path)]
    if dotted:
        notes.append(f"{where}: left out the images of {', '.join(dotted)}: a class's name begins with no dot")
    return Listing(tuple(sorted(files)), {name: files[name] for name in sorted(files)}, tuple(notes))


def _has_images(folder: Path) -> bool:
    try:
        return bool(find_images(folder))
    except DataError:  # it is left out anyway
        return False


SOURCE = Source(channels=3, image_size=32, splits=("train", "validation", "test"), load=load)
