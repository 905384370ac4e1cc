"""The training and validation images of a classifier."""

from typing import Annotated

from pydantic import Field

from data import DatasetName, ImageSet, check_readable, load_split
from evaluation.evaluate import check_labelled
from model import SIDES
from utils.console import notify
from utils.distributed import main_first, rank
from utils.errors import UserError

Side = Annotated[int, Field(ge=SIDES[0], le=SIDES[-1])]  # pixels


def load_labelled(
    dataset: DatasetName, image_size: Side | None, data_dir: str | None, skip_bad_images: bool
) -> tuple[ImageSet, ImageSet]:
    """The training and the validation images, each with a class; the arguments are those of `load_split`.

    Raises UserError, DataError: also for a class of which no training image can be read.
    """

    def load(split: str) -> ImageSet:
        return main_first(lambda: load_split(dataset, split, image_size, data_dir, skip_bad_images=True))

    train, validation = load("train"), load("validation")
    if not skip_bad_images:
        check_readable(train, validation)
    lost = {bad.label for bad in train.bad} - {*train.labels.tolist()}
    if lost:
        raise UserError(f"no image of the class {train.class_names[min(lost)]} can be read; {train.describe_bad()}")
    check_labelled(train, f"{dataset} training")
    check_labelled(validation, f"{dataset} validation")
    return train, validation


def say_left_out(*splits: ImageSet) -> None:
    """Tell the user what is not among the images of ``splits``; several may list the same folder."""
    if rank() == 0:
        for line in dict.fromkeys(line for split in splits for line in split.lines()):
            notify(line)
