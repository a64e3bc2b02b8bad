"""Drawn scans against real ones, by features of a fixed kind: distance of the distributions, coverage, and novelty."""

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

__all__ = ["coverage", "kernel_distance", "novelty"]

Array = npt.NDArray[np.float64]

DEGREE = 3


def kernel_distance(first: Array, second: Array) -> float:
    """Unbiased squared maximum mean discrepancy with a cubic kernel (Binkowski et al. 2018); about 0 for one distribution.

    Features, (N, S) and (M, S), are standardised; N and M are at least 2.
    """

    def kernel(a: Array, b: Array) -> Array:
        return np.asarray((a @ b.T / a.shape[1] + 1) ** DEGREE)

    def within(a: Array) -> float:
        values = kernel(a, a)
        return float((values.sum() - np.trace(values)) / (len(a) * (len(a) - 1)))

    return within(first) + within(second) - 2 * float(kernel(first, second).mean())


def coverage(real: Array, drawn: Array, neighbours: int = 5) -> float:
    """Share of real scans with a drawn one nearer than their k-th nearest real neighbour (Naeem et al. 2020).

    Of features, (N, S) and (M, S); of the neighbours, at most N - 1 are taken.
    """
    radius = np.sort(cdist(real, real), axis=1)[:, min(neighbours, len(real) - 1)]
    return float((cdist(real, drawn).min(axis=1) < radius).mean())


def novelty(drawn: Array, training: Array, real: Array) -> float:
    """Median distance of features, (M, S), to the nearest training scan, relative to that of real scans of other people.

    0 for copies of training scans; about 1 for scans as new as those of other people.
    """
    own, others = (np.median(cdist(each, training).min(axis=1)) for each in (drawn, real))
    return float(own / max(others, 1e-12))
