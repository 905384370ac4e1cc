"""Splits of data sets that come as image files, fixed, stratified ones of those that come as arrays, and the images of
a split that are held out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from data.images import read_images, resize_images
from data.types import BadImage, ImageSet

SEED = 0  # part of the data sets' definition: another seed gives other train and validation images


def stratified_split(labels: Sequence[int] | np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split 0 .. N-1 into (train, validation) indices, ascending; validation is `fraction` of each class."""
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(labels))
    train, validation = train_test_split(indices, test_size=fraction, stratify=labels, random_state=SEED)
    return np.sort(train), np.sort(validation)


def hold_out(split: ImageSet) -> tuple[ImageSet, ImageSet]:
    """A fixed division of training images into (the rest, the held-out tenth), each in the order of ``split``.

    A tenth of each class is held out, rounded, but at least one image of a class of two or more; none of a class of
    one. It depends on the labels and their order alone. ``bad`` and ``notes`` stay with the rest.
    """
    from sklearn.model_selection import train_test_split

    chosen: list[int] = []
    for label in split.labels.unique().tolist():  # per class, as stratify= rejects classes of a few images
        numbers = (split.labels == label).nonzero()[:, 0].tolist()
        if len(numbers) > 1:
            chosen += train_test_split(numbers, test_size=max(1, round(len(numbers) / 10)), random_state=SEED)[1]
    held = torch.zeros(len(split), dtype=torch.bool)
    held[chosen] = True
    rest, kept_out = (split.part(rows.nonzero()[:, 0]) for rows in (~held, held))
    return rest, dataclasses.replace(kept_out, bad=(), notes=())


def split_files(
    files: Sequence[Path],
    labels: Sequence[int],
    class_names: Sequence[str],
    paths: Sequence[str],
    channels: int,
    image_size: tuple[int, int],
    description: str,
    notes: Sequence[str] = (),
) -> ImageSet:
    """The images of files with ``labels``, in order; those that cannot be read are in ``bad``."""
    images, errors = read_images(files, channels, image_size, description)
    kept = [i for i in range(len(files)) if i not in errors]
    return ImageSet(
        images=images,
        labels=torch.tensor([labels[i] for i in kept], dtype=torch.int64),
        class_names=tuple(class_names),
        paths=tuple(paths[i] for i in kept),
        bad=tuple(BadImage(i, paths[i], labels[i], error) for i, error in errors.items()),
        notes=tuple(notes),
    )


def split_arrays(
    name: str,
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    image_size: tuple[int, int],
    fraction: float,
) -> ImageSet:
    """A split of uint8 images [N, C, h, w], labels [N]: train and validation share them by `stratified_split`."""
    if split != "test":
        train, validation = stratified_split(labels, fraction)
        chosen = train if split == "train" else validation
        images, labels = images[chosen], labels[chosen]
    return ImageSet(
        images=resize_images(torch.from_numpy(np.ascontiguousarray(images)), image_size, f"resizing {name} {split}"),
        labels=torch.from_numpy(labels).long(),
        class_names=tuple(class_names),
        paths=tuple(f"{name}/{split}/{i:05d}" for i in range(len(labels))),
    )
