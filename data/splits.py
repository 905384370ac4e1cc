"""Fixed, stratified splits."""

from collections.abc import Sequence

import numpy as np

SEED = 0  # part of the data sets' definition: another seed gives other train and validation images


def stratified_split(labels: Sequence[int] | np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split 0 .. N-1 into (train, validation) indices, ascending; validation is `fraction` of each class."""
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(labels))
    train, validation = train_test_split(indices, test_size=fraction, stratify=labels, random_state=SEED)
    return np.sort(train), np.sort(validation)
