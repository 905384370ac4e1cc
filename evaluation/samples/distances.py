"""The Fréchet distance and the squared kernel distance of features to a reference, and intervals over the samples.

Both are exact for fewer images than features. The trace of the square root of S1 S2 in the Fréchet distance (Heusel et
al. 2017) is the sum of the singular values of A B^T where S1 = A^T A and S2 = B^T B; no matrix root is taken. The
kernel distance is that of KID (Binkowski et al. 2018), which is unbiased.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

GROUPS = 20  # of samples, in the jackknife
ROWS = 1024  # of a matrix of kernels, at a time
CONFIDENCE = 0.95


class Reference:
    """What both distances need of the reference alone.

    Args:
        features: [M, D], M at least 2.

    Raises ValueError for fewer.
    """

    def __init__(self, features: np.ndarray):
        self.features = np.asarray(features, np.float64)
        count = len(self.features)
        if count < 2:
            raise ValueError(f"{count} images; a distance needs a reference of two or more")
        self.mean = self.features.mean(axis=0)
        centred = (self.features - self.mean) / np.sqrt(count - 1)
        few = count <= centred.shape[1]
        self.root = centred if few else np.asarray(np.linalg.qr(centred, mode="r"))  # root^T root = S2
        self.trace = float((self.root**2).sum())

    @cached_property
    def kernel(self) -> float:
        """The mean kernel of two different images."""
        count = len(self.features)
        blocks = (self.features[start : start + ROWS] for start in range(0, count, ROWS))
        total = sum(float(kernel(block, self.features).sum()) for block in blocks)
        with_themselves = (((self.features**2).mean(axis=1) + 1) ** 3).sum()
        return float(total - with_themselves) / (count * (count - 1))


class Distances:
    """Both distances of samples to a reference, also of some of the samples alone.

    Args:
        samples: features [N, D], N at least 2.
        reference: features [M, D], or what was made of them before.

    Raises ValueError for fewer samples.
    """

    def __init__(self, samples: np.ndarray, reference: np.ndarray | Reference):
        self.reference = reference if isinstance(reference, Reference) else Reference(reference)
        self.features = np.asarray(samples, np.float64)
        if len(self) < 2:
            raise ValueError(f"{len(self)} images; a distance needs two or more")
        self._cross = self.features @ self.reference.root.T  # [N, min(M, D)]

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def _kernels(self) -> np.ndarray:
        return kernel(self.features, self.features)

    @cached_property
    def _to_reference(self) -> np.ndarray:
        return kernel(self.features, self.reference.features).mean(axis=1)

    def frechet(self, chosen: np.ndarray | slice = slice(None)) -> float:
        """The Fréchet distance of Gaussians with the means and (unbiased) covariances of both sets.

        It grows as there are fewer images: compare it only with that of as many, to the same reference.

        Args:
            chosen: numbers of two or more samples, each at most once; all by default.
        """
        from scipy.linalg import svdvals

        features, cross = self.features[chosen], self._cross[chosen]
        offset = features.mean(axis=0) - self.reference.mean
        overlap = svdvals(cross - cross.mean(axis=0)).sum() / np.sqrt(len(features) - 1)
        trace = features.var(axis=0, ddof=1).sum()
        return float(offset @ offset + trace + self.reference.trace - 2 * overlap)

    def kernel(self, chosen: np.ndarray | slice = slice(None)) -> float:
        """The squared kernel distance, without bias and thus at times below 0; ``chosen`` as in `frechet`."""
        kernels = self._kernels[chosen][:, chosen]
        count = len(kernels)
        among = (kernels.sum() - np.trace(kernels)) / (count * (count - 1))
        return float(among + self.reference.kernel - 2 * self._to_reference[chosen].mean())


def frechet_distance(samples: np.ndarray, reference: np.ndarray) -> float:
    """The Fréchet distance of features [N, D] and [M, D]; see `Distances`."""
    return Distances(samples, reference).frechet()


def kernel_distance(samples: np.ndarray, reference: np.ndarray) -> float:
    """The squared kernel distance of features [N, D] and [M, D]; see `Distances`."""
    return Distances(samples, reference).kernel()


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """KID's polynomial kernel of features [N, D] and [M, D]: [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def jackknife_interval(
    statistic: Callable[[np.ndarray], float], count: int, labels: Sequence[int] | np.ndarray | None = None
) -> tuple[float, float]:
    """A 95 % interval of a statistic of samples around its value for all of them, the reference being fixed.

    It is that of the delete-a-group jackknife (Kott 2001) with 20 random groups and Student's t. The bootstrap is not
    valid here: a sample drawn twice is a direction less for the covariance, which shifts the Fréchet distance up.

    Args:
        statistic: of the numbers of samples, as `Distances.frechet`.
        count: of the samples, N, at least 3.
        labels: classes [N] of which equally many samples were drawn; each group then has its share of each.

    Raises ValueError for fewer samples.
    """
    from scipy.stats import t

    if count < 3:
        raise ValueError(f"{count} images; an interval needs three or more")
    order = np.random.default_rng(0).permutation(count)
    if labels is not None:
        order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    whole, groups = statistic(order), min(GROUPS, count)
    values = []
    for group in range(groups):
        kept = np.delete(order, slice(group, None, groups))
        values.append((count * whole - len(kept) * statistic(kept)) / (count - len(kept)))
    margin = t.ppf((1 + CONFIDENCE) / 2, groups - 1) * np.std(values, ddof=1) / np.sqrt(groups)
    return float(whole - margin), float(whole + margin)
