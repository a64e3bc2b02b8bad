"""Values on lattices: interpolation, lookup, and smooth noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from ldae.volume import Grid

__all__ = ["FWHM_PER_SIGMA", "Array", "Table", "between", "sample_at", "smooth_noise", "upsample_to"]

Array = npt.NDArray[np.float32]

CHUNK = 16384
FWHM_PER_SIGMA = 2.3548


def sample_at(table: Array, points: Array) -> Array:
    """Trilinear interpolation of many channels at once; beyond the border the border's values continue.

    Args:
        table: values on a lattice, (X, Y, Z, C).
        points: positions in lattice indices, (N, 3).

    Returns:
        Values, (N, C).
    """
    extent = table.shape[:3]
    flat = table.reshape(-1, table.shape[3])
    offsets = [int(np.ravel_multi_index(corner, extent)) for corner in np.ndindex(2, 2, 2)]
    out = np.empty((len(points), table.shape[3]), dtype=np.float32)
    # A chunk's corners stay in the processor's cache; a sparse product adds all channels of a corner in one go.
    for start in range(0, len(points), CHUNK):
        chunk = points[start : start + CHUNK]
        count = len(chunk)
        first = np.zeros(count, dtype=np.int32)
        sides = []
        for axis, n in enumerate(extent):
            position = np.clip(chunk[:, axis], 0, np.float32(n - 1))
            lower = np.minimum(position.astype(np.int32), n - 2)
            upper_weight = position - lower
            sides.append((1 - upper_weight, upper_weight))
            first = first * n + lower
        weights = np.empty((count, 8), dtype=np.float32)
        indices = np.empty((count, 8), dtype=np.int32)
        for corner, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
            np.multiply(sides[0][i] * sides[1][j], sides[2][k], out=weights[:, corner])
            np.add(first, offsets[corner], out=indices[:, corner])
        rows = np.arange(0, 8 * count + 1, 8, dtype=np.int32)
        out[start : start + count] = (
            sparse.csr_array((weights.ravel(), indices.ravel(), rows), shape=(count, len(flat))) @ flat
        )
    return out


def between(values: npt.NDArray[np.floating], position: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.floating]:
    """Linear interpolation along one axis at fractional indices; beyond the ends the values continue linearly."""
    lower = np.clip(np.floor(position).astype(int), 0, values.shape[axis] - 2)
    weight = (position - lower).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return np.asarray(values.take(lower, axis=axis) * (1 - weight) + values.take(lower + 1, axis=axis) * weight)


def upsample_to(grid: Grid, values: Array, lattice: Grid) -> Array:
    """Trilinear interpolation of a lattice's values, (X, Y, Z, C), on an axis-aligned grid, (D, H, W, C)."""
    for axis in range(3):
        world = grid.affine[axis, axis] * np.arange(grid.shape[axis]) + grid.affine[axis, 3]
        values = between(values, (world - lattice.affine[axis, 3]) / lattice.affine[axis, axis], axis)
    return values


@dataclass(frozen=True, eq=False)
class Table:
    """Maps side by side on a lattice, for one interpolation of all of them.

    Attributes:
        values: (X, Y, Z, C).
        origin_mm: first lattice point, RAS mm, (3,).
        spacing_mm: distance of lattice points.
        nearby: lattice points near anything that the maps show, (X, Y, Z).
    """

    values: Array
    origin_mm: Array
    spacing_mm: float
    nearby: npt.NDArray[np.bool_]

    def sample(self, points_mm: Array) -> Array:
        """The maps at points, RAS mm, (N, 3) to (N, C)."""
        return sample_at(self.values, self._index(points_mm))

    def is_near(self, points_mm: Array) -> npt.NDArray[np.bool_]:
        """True where the lattice point nearest to each point is marked as nearby; False outside, (N, 3) to (N,)."""
        nearest = np.rint(self._index(points_mm)).astype(np.int32)
        inside = np.asarray(((nearest >= 0) & (nearest < self.nearby.shape)).all(axis=1))
        inside[inside] = self.nearby[tuple(nearest[inside].T)]
        return inside

    def _index(self, points_mm: Array) -> Array:
        return np.asarray((points_mm - self.origin_mm) / np.float32(self.spacing_mm), dtype=np.float32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], fwhm_mm: npt.ArrayLike, spacing_mm: npt.ArrayLike
) -> Array:
    """White noise smoothed by a Gaussian of some full width at half maximum, then scaled to unit variance."""
    sigma = np.asarray(fwhm_mm) / FWHM_PER_SIGMA / np.asarray(spacing_mm)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)
