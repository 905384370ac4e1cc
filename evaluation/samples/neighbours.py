"""Precision, recall, density and coverage of samples, from the nearest neighbours of features.

Precision and recall are those of Kynkäänniemi et al. 2019, density and coverage those of Naeem et al. 2020.
"""

from dataclasses import dataclass

import numpy as np

from evaluation.metrics import wilson_interval

K = 5  # neighbours


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """What the four metrics are means of: two of N samples, two of M images of the reference.

    A ball reaches from an image to its k-th nearest neighbour in its own set, without its surface.

    Args:
        precision: bool [N], whether a sample is inside a ball of the reference.
        recall: bool [M], whether an image of the reference is inside a ball of the samples.
        density: float64 [N], the number of balls of the reference that a sample is inside, divided by k.
        coverage: bool [M], whether there is a sample inside the ball of an image of the reference.
    """

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray

    def means(self) -> dict[str, float]:
        """The four metrics."""
        return {name: float(values.mean()) for name, values in vars(self).items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals: Wilson's, and for density a bootstrap of the mean (percentiles of 2000 resamples).

        Those of precision and density are over the samples, the reference being fixed, and the other two over the
        images of the reference, the samples being fixed.
        """
        from scipy.stats import bootstrap

        shares = {name: values for name, values in vars(self).items() if values.dtype == bool}
        intervals = {name: wilson_interval(int(values.sum()), len(values)) for name, values in shares.items()}
        limits = bootstrap((self.density,), np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
        return intervals | {"density": (float(limits.low), float(limits.high))}


def neighbourhoods(samples: np.ndarray, reference: np.ndarray, k: int = K) -> Neighbourhoods:
    """The neighbourhoods of features [N, D] and [M, D].

    Raises ValueError where N or M is at most k.
    """
    from sklearn.metrics import pairwise_distances

    x, y = np.asarray(samples, np.float64), np.asarray(reference, np.float64)
    if min(len(x), len(y)) <= k:
        raise ValueError(f"{len(x)} samples and {len(y)} reference images; {k} neighbours need more than {k} of each")
    own, theirs = (np.partition(pairwise_distances(images), k, axis=1)[:, k] for images in (x, y))  # 0th: itself
    distances = pairwise_distances(x, y)
    inside = distances < theirs  # a sample, the ball of an image of the reference
    return Neighbourhoods(
        precision=inside.any(axis=1),
        recall=(distances < own[:, None]).any(axis=0),
        density=inside.sum(axis=1) / k,
        coverage=inside.any(axis=0),
    )
