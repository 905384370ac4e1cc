"""The training, held-out and validation images of a classifier."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from data import DatasetName, ImageSet, check_readable, load_split
from data.folder import refuse_one_class
from data.splits import hold_out
from evaluation.evaluate import check_labelled
from model import SIDES
from utils.console import notify
from utils.distributed import main_first, rank
from utils.errors import UserError

Side = Annotated[int, Field(ge=SIDES[0], le=SIDES[-1])]  # pixels


def load_labelled(
    dataset: DatasetName,
    image_size: Side | None,
    data_dir: str | None,
    skip_bad_images: bool,
    alternative: str | None = "",
) -> tuple[ImageSet, ImageSet]:
    """The training and the validation images, each with a class; says what was left out.

    Args:
        dataset, image_size, data_dir, skip_bad_images: as of `load_split`.
        alternative: to adding classes to a folder of one, as of `refuse_one_class`; None where one class will do.

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
    if dataset == "folder" and train.num_classes == 1 and alternative is not None:
        assert data_dir is not None  # else nothing was loaded
        refuse_one_class(Path(data_dir), alternative)
    if rank() == 0:
        for line in dict.fromkeys([*train.lines(), *validation.lines()]):  # both may list the same folder
            notify(line)
    return train, validation


def held_out(train: ImageSet, flag: str, instead: str = "leave it out") -> tuple[ImageSet, ImageSet]:
    """The training images as `hold_out` divides them for ``flag``.

    Raises UserError, with the advice to add images or ``instead``, where none would be held out.
    """
    rest, held = hold_out(train)
    if not len(held):
        raise UserError(f"{flag}: no class has two training images; add some, or {instead}")
    return rest, held
