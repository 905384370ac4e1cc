"""Finding image files, and saying in words what was not taken."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from data.images import readable_formats
from utils.errors import DataError
from utils.figures import figures_in, say_left_out
from utils.text import printable

# images that Pillow does not decode, at least not in every installation
PHOTOS = {*".heic .heif .hif .avif .jxl .svg .dng .cr2 .cr3 .nef .arw .orf .raf .rw2".split()}
SHOWN = 8  # kinds of files that a line names


def find_images(
    path: str | Path,
    unreadable: dict[Path, DataError] | None = None,
    skipped: list[Path] | None = None,
    hidden: list[Path] | None = None,
) -> list[Path]:
    """List the image files below a folder.

    Recursive, sorted by path, without hidden files and folders. Follows links to folders, but reads each folder
    once, so link cycles end. A path that is not a folder is returned unchanged. Files are selected by extension:
    `read_image` rejects what is not a regular file, such as a pipe. Figures that this program drew are left out, which
    the user is told.

    Args:
        path: file or folder.
        unreadable: if given, collects the errors of folders that cannot be listed, which are then in the results.
        skipped: if given, collects the files without an image extension.
        hidden: if given, collects the hidden folders, whose names begin with a dot.

    Raises:
        DataError: `path` does not exist, or a folder cannot be listed and `unreadable` is None.
    """
    path = Path(path)
    if not os.path.lexists(path):  # unlike path.exists(), False rather than an exception for an invalid name
        raise DataError(f"{path}: no such file or folder")
    if not os.path.isdir(path):
        return [path]
    extensions = _image_extensions()
    found: list[Path] = []
    figures: list[Path] = []
    visited: set[tuple[int, int]] = set()  # device and inode
    folders = [path]
    while folders:  # os.walk recurses before Python 3.12, and folders can be nested too deep for that
        folder = folders.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            problem = DataError(f"{folder}: this folder cannot be listed ({error.strerror})")
            if unreadable is None:
                raise problem from error
            unreadable[folder] = problem
            found.append(folder)
            continue
        subfolders: list[Path] = []
        others: list[Path] = []
        drawn = figures_in(folder, [entry.name for entry in listed])
        figures += [folder / name for name in sorted(drawn)]
        for entry in listed:
            if entry.name in drawn:
                continue
            inside = folder / entry.name
            if entry.name.startswith("."):
                if hidden is not None and _is_folder(entry):
                    hidden.append(inside)
                continue
            kind = subfolders if _is_folder(entry) else found if inside.suffix.lower() in extensions else others
            kind.append(inside)
        folders += reversed(subfolders)  # the last one is popped next
        if skipped is not None:
            skipped += others
    if figures:
        say_left_out(figures[0], len(figures))
    return sorted(found)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # e.g. a link to itself
        return False


def _image_extensions() -> set[str]:
    formats = {*readable_formats(), "MPO"}  # opened by the JPEG plugin
    return {ext for ext, name in Image.registered_extensions().items() if name in formats}


def describe_skipped(files: Iterable[Path], folder: Path | None = None) -> str:
    """Files without an image's extension by kind, the most frequent first, as "20 .heic, 1 .txt".

    With ``folder`` also by its sub-folders, as "20 .heic in cat, 1 .txt in dog". Photos are followed by what to do.
    """
    counts = Counter((_kind(file), "" if folder is None else file.relative_to(folder).parts[0]) for file in files)
    shown = [f"{count} {kind}" + (f" in {printable(place)}" if place else "") for (kind, place), count in
             counts.most_common(SHOWN)]  # fmt: skip
    if len(counts) > SHOWN:
        shown.append(f"and {sum(counts.values()) - sum(count for _, count in counts.most_common(SHOWN))} more")
    photos = sorted({kind for kind, _ in counts} & PHOTOS)
    advice = f"; {', '.join(photos)} cannot be read here: convert to JPEG or PNG" if photos else ""
    return ", ".join(shown) + advice


def is_photo(file: Path) -> bool:
    """Whether a file without an image's extension is a photo all the same, such as HEIC."""
    return _kind(file) in PHOTOS


def _kind(file: Path) -> str:
    return printable(file.suffix.lower())[:20] or "without an extension"
