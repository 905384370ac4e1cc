"""The CPEN455 course data set: 64x64 JPEGs of burgers, pandas, koalas and pizzas, listed in CSV files."""

import csv
import os
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from data.splits import split_files
from data.types import ImageSet, Source
from utils.download import download
from utils.errors import DataError, reason

ARCHIVE_URL = "https://github.com/DSL-Lab/CPEN455HW-2023W2/archive/refs/heads/main.zip"
CLASS_NAMES = ("burger", "panda", "koala", "pizza")
LABELS = {str(label): label for label in range(-1, len(CLASS_NAMES))}  # -1 is unknown
IMAGENET_CLASSES = (933, 388, 105, 963)  # cheeseburger, giant panda, koala, pizza
CONTENTS = "train.csv, validation.csv, test.csv and the folders train, validation, test"


def load(split: str, image_size: tuple[int, int], data_dir: Path | None) -> ImageSet:
    """Read one split, uint8 [N, 3, H, W]; test labels are -1. A missing folder is downloaded.

    Raises:
        DataError: the download fails, or the CSV is missing or invalid.
    """
    folder = _find_folder(split, data_dir)
    names, labels = read_csv(folder / f"{split}.csv")
    files = [folder / name for name in names]
    return split_files(files, labels, CLASS_NAMES, names, SOURCE.channels, image_size, f"reading cpen455 {split}")


def split_folder(split: str, data_dir: Path | None) -> Path:
    """The folder with a split's 64x64 image files; a missing data folder is downloaded.

    Raises:
        DataError: as `load`.
    """
    folder = _find_folder(split, data_dir) / split
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder, put the {split} images there")
    return folder


def _find_folder(split: str, data_dir: Path | None) -> Path:
    data_dir = data_dir or Path("datasets", "cpen455")
    if not os.path.exists(data_dir):
        _download(data_dir)
    for folder in (data_dir, data_dir / "cpen455"):
        if os.path.isfile(folder / f"{split}.csv"):
            return folder
    raise DataError(
        f"{data_dir} has no {split}.csv: put {CONTENTS} there, "
        "or give a folder that does not exist yet, to download them"
    )


def read_csv(path: Path) -> tuple[list[str], list[int]]:
    """Read rows `path,label`, the path relative to the CSV's folder; return the paths and the labels.

    Raises:
        DataError: names the row that is invalid or whose file is missing.
    """
    names, labels = [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # -sig: spreadsheets write a byte order mark
            reader = csv.reader(file)
            for row in reader:
                if any(cell.strip() for cell in row):
                    name, label = _parse_row(row, path.parent, f"{path}, row {reader.line_num}")
                    names.append(name)
                    labels.append(label)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except (csv.Error, OSError) as error:
        raise DataError(f"{path} cannot be read as CSV ({error})") from error
    if not names:
        raise DataError(f"{path} has no rows: each row must be path,label")
    return names, labels


def _parse_row(row: list[str], folder: Path, where: str) -> tuple[str, int]:
    if len(row) != 2:
        raise DataError(f"{where}: {len(row)} columns, each row must be path,label")
    name, label = row[0].strip(), row[1].strip()
    if Path(name).anchor or ".." in Path(name).parts:
        raise DataError(f"{where}: {name!r} is outside the data folder, give it relative to {folder}")
    if label not in LABELS:
        raise DataError(f"{where}: label {label!r} is not a whole number from -1 to {len(CLASS_NAMES) - 1}")
    if not os.path.isfile(folder / name):
        raise DataError(f"{where}: the file {name!r} is missing from {folder}")
    return name, LABELS[label]


def _download(folder: Path) -> None:
    """Download the starter repository and put its `data` folder at `folder`, atomically.

    Raises:
        DataError: the archive cannot be downloaded or unpacked, or `folder` cannot be written.
    """
    nearest = next(parent for parent in folder.absolute().parents if os.path.exists(parent))
    print(f"downloading {ARCHIVE_URL} to {folder}", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix=".cpen455-", dir=nearest) as temporary:
            archive = Path(temporary, "archive.zip")
            download(ARCHIVE_URL, archive)
            unpacked = _unpack(archive, Path(temporary, "unpacked"))
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(unpacked, folder)
    except Exception as error:  # network, disk and zip errors have no common class
        if os.path.isfile(folder / "train.csv"):
            return  # another process was faster
        raise DataError(
            f"cpen455 could not be downloaded to {folder} ({reason(error)}): put {CONTENTS} there, "
            "from the folder `data` of github.com/DSL-Lab/CPEN455HW-2023W2"
        ) from error


def _unpack(archive: Path, into: Path) -> Path:
    with zipfile.ZipFile(archive) as zipped:
        members = [name for name in zipped.namelist() if PurePosixPath(name).parts[1:2] == ("data",)]
        zipped.extractall(into, members)  # drops absolute and .. parts of names, so it stays below `into`
    for csv_file in into.glob("*/data/train.csv"):
        return csv_file.parent
    raise ValueError("the archive has no */data/train.csv")


SOURCE = Source(
    channels=3,
    image_size=32,
    splits=("train", "validation", "test"),
    load=load,
    imagenet_classes=IMAGENET_CLASSES,
)
