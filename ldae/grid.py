"""Grid: where voxels are in the world.

World coordinates are RAS millimetres (x to the right, y to the front, z up), as in NIfTI. An affine maps voxel
indices (i, j, k) to world coordinates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.errors import VolumeError

__all__ = ["Grid"]


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of voxels in the world.

    Attributes:
        shape: number of voxels along each axis.
        affine: voxel indices to RAS millimetres, (4, 4), invertible.

    Raises:
        VolumeError: if the shape is not three positive integers or the affine is singular or not finite.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            msg = f"a grid needs three positive axis lengths, got {self.shape}; check the image's dimensions"
            raise VolumeError(msg)
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            msg = f"an affine must be a finite 4x4 matrix, got shape {affine.shape}; rewrite the image's header"
            raise VolumeError(msg)
        volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
        if volume_mm3 < 1e-9:
            msg = (
                f"the affine is singular (a voxel of {volume_mm3:.2g} mm3), so voxels have no place in the world; "
                "rewrite the image's header with its true voxel size"
            )
            raise VolumeError(msg)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid) and self.shape == other.shape and np.allclose(self.affine, other.affine, atol=1e-4)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def size_words(self) -> str:
        """Its extent along each axis, such as `192 x 240 x 192 mm`."""
        return " x ".join(f"{n * mm:.0f}" for n, mm in zip(self.shape, self.spacing, strict=True)) + " mm"

    @classmethod
    def centred(
        cls, shape: tuple[int, int, int], voxel_size_mm: float, centre_mm: tuple[float, float, float]
    ) -> "Grid":
        """An axis-aligned RAS grid of isotropic voxels around a point.

        Args:
            shape: number of voxels along each axis.
            voxel_size_mm: edge of a voxel in mm.
            centre_mm: world coordinates of the grid's middle in mm.
        """
        affine = np.diag([voxel_size_mm] * 3 + [1.0])
        affine[:3, 3] = np.asarray(centre_mm) - voxel_size_mm * (np.asarray(shape) - 1) / 2
        return cls(shape, affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each axis in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def world_coordinates(self) -> npt.NDArray[np.float64]:
        """RAS millimetres of every voxel centre, (3, D, H, W)."""
        indices = np.indices(self.shape).reshape(3, -1)
        world = self.affine[:3, :3] @ indices + self.affine[:3, 3:]
        return world.reshape(3, *self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Grid":
        """The inverse of :meth:`to_dict`."""
        d, h, w = plain["shape"]
        return cls((d, h, w), np.asarray(plain["affine"]))
