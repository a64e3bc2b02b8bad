"""Pose of a raw head in the scanner, the grid it is stored on, and the affine that takes it back to the template."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine, from_matvec
from nibabel.orientations import inv_ornt_aff
from nibabel.quaternions import angle_axis2mat

from ldae.base.ranges import Range, checked, within
from ldae.errors import ConfigError
from ldae.phantom.anatomy.deformation import at_shape_lattice, shape_lattice
from ldae.phantom.anatomy.lattice import Array, upsample_to
from ldae.phantom.anatomy.tissue import ROTATION_CENTRE_MM
from ldae.volume import Grid

__all__ = ["HeadShape", "Matrix", "RawConfig", "best_affine", "draw_native_grid", "draw_pose", "template_points"]

Matrix = npt.NDArray[np.float64]

# The map from native voxels to template points is smooth: it is evaluated on a lattice, then interpolated.
MAP_LATTICE_MM = 4.0
INVERSE_ITERATIONS = 8


@dataclass(frozen=True)
@checked
class RawConfig:
    """Ranges of pose, grid and brightness of raw heads; each is drawn anew for every session.

    Attributes:
        max_rotation_deg: the head is turned in scanner space by up to this angle about an axis of any direction; the
            angle is uniform. At most 90.
        max_translation_mm: the head's centre is shifted by up to this distance in any direction; uniform. At most 200.
        max_oblique_deg: the planes of the slices are tilted against scanner space by up to this angle. At most 45.
        max_in_plane_ratio: the larger voxel edge within the slice relative to the smaller, at most.
        max_slice_mm: the slices' thickness is uniform between the voxel size and this.
        any_storage_order: axes are stored in any of the 48 orders and directions (the header says which), not as RAS.
        margin_mm: least and greatest room between the head and the border of the image.
        neck_mm: least and greatest length of face and neck below the brain that the field of view holds.
        bias_sd: standard deviation of each coefficient of the logarithm of the bias field.
        white_matter_range: least and greatest stored brightness of white matter; uniform on a logarithmic scale.
    """

    max_rotation_deg: float = within(15.0, Range(0, 90))
    max_translation_mm: float = within(20.0, Range(0, 200))
    max_oblique_deg: float = within(10.0, Range(0, 45))
    max_in_plane_ratio: float = within(1.2, Range(1, 4))
    max_slice_mm: float = within(3.0, Range(0.5, 10))
    any_storage_order: bool = True
    margin_mm: tuple[float, float] = within((4.0, 25.0), Range(0, 200))
    neck_mm: tuple[float, float] = within((15.0, 75.0), Range(0, 110))
    bias_sd: float = within(0.2, Range(0, 1))
    white_matter_range: tuple[float, float] = within((60.0, 4000.0), Range(10, 1e6))

    def __post_init__(self) -> None:
        for name in ("margin_mm", "neck_mm", "white_matter_range"):
            low, high = getattr(self, name)
            if low > high:
                msg = f"{name} takes the least and the greatest, got {getattr(self, name)}; correct them"
                raise ConfigError(msg)


def draw_pose(config: RawConfig, rng: np.random.Generator) -> Matrix:
    """Rigid motion of a head, RAS mm in template orientation to RAS mm of the scanner, (4, 4)."""
    axis, angle = rng.standard_normal(3), np.deg2rad(rng.uniform(0, config.max_rotation_deg))
    rotation = angle_axis2mat(angle, axis)
    direction = rng.standard_normal(3)
    shift = direction / np.linalg.norm(direction) * rng.uniform(0, config.max_translation_mm)
    return np.asarray(from_matvec(rotation, np.array(ROTATION_CENTRE_MM) - rotation @ ROTATION_CENTRE_MM + shift))


def draw_native_grid(
    config: RawConfig, voxel_size_mm: float, head_mm: npt.NDArray[np.floating], rng: np.random.Generator
) -> Grid:
    """Draw a grid around points of a head, RAS mm, (N, 3): tilted planes, voxels that are no cubes, axes in any order."""
    axis, angle = rng.standard_normal(3), np.deg2rad(rng.uniform(0, config.max_oblique_deg))
    tilt = angle_axis2mat(angle, axis)
    spacing = np.full(3, voxel_size_mm)
    slice_axis, in_plane = (int(i) for i in rng.permutation(3)[:2])
    spacing[slice_axis] = rng.uniform(voxel_size_mm, max(voxel_size_mm, config.max_slice_mm))
    # Half of all scans have square pixels.
    spacing[in_plane] *= max(1.0, rng.uniform(2.0 - config.max_in_plane_ratio, config.max_in_plane_ratio))
    spacing = np.round(spacing, 3)
    along = head_mm @ tilt
    low = along.min(axis=0) - rng.uniform(*config.margin_mm, size=3)
    high = along.max(axis=0) + rng.uniform(*config.margin_mm, size=3)
    # The lower border cuts the neck, wherever the planes are tilted to.
    low[2] = along[:, 2].min()
    shape = np.ceil((high - low) / spacing).astype(int)
    affine = from_matvec(tilt * spacing, tilt @ low)
    order, flips = rng.permutation(3), rng.random(3) < 0.5
    if config.any_storage_order:
        places = np.argsort(order)
        affine = affine @ inv_ornt_aff(np.column_stack([places, np.where(flips[places], -1, 1)]), shape)
        shape = shape[order]
    d, h, w = shape.tolist()
    return Grid((d, h, w), affine)


def best_affine(source_mm: npt.NDArray[np.floating], target_mm: npt.NDArray[np.floating]) -> Matrix:
    """Least-squares affine between matched points, both (N, 3); returns (4, 4)."""
    centre = source_mm.mean(axis=0, dtype=np.float64)
    centred = source_mm - centre
    target_centre = target_mm.mean(axis=0, dtype=np.float64)
    linear = np.linalg.lstsq(centred, target_mm - target_centre, rcond=None)[0].T
    return np.asarray(from_matvec(linear, target_centre - linear @ centre))


@dataclass(frozen=True, eq=False)
class HeadShape:
    """A head's shape at any point: an affine, and bending, which continues beyond the lattice as at its border.

    Attributes:
        affine: least-squares affine of the shape on its lattice, subject's RAS mm to template RAS mm, (4, 4).
        bending: what the affine leaves on the shape lattice, mm, (X, Y, Z, 3).
    """

    affine: Matrix
    bending: Array

    @classmethod
    def from_lattice(cls, shape_mm: Array) -> "HeadShape":
        """Split template positions on the shape lattice, (X, Y, Z, 3); see `draw_shape`."""
        world = np.moveaxis(shape_lattice().world_coordinates(), 0, -1)
        affine = best_affine(world.reshape(-1, 3), shape_mm.reshape(-1, 3))
        return cls(affine, np.asarray(shape_mm - (world @ affine[:3, :3].T + affine[:3, 3]), dtype=np.float32))

    def to_template(self, points_mm: npt.NDArray[np.floating]) -> Array:
        """Template points seen at points of the subject's head in template orientation, RAS mm, (N, 3)."""
        bent = at_shape_lattice(self.bending, points_mm)
        return np.asarray(apply_affine(self.affine, points_mm) + bent, dtype=np.float32)

    def from_template(self, points_mm: npt.NDArray[np.floating]) -> Array:
        """Points of the subject's head at which template points are seen: the inverse of `to_template`, (N, 3)."""
        back = np.linalg.inv(self.affine)
        points = np.asarray(points_mm, dtype=np.float64)
        guess = apply_affine(back, points)
        for _ in range(INVERSE_ITERATIONS):
            guess = guess + (points - self.to_template(guess)) @ back[:3, :3].T
        return np.asarray(guess, dtype=np.float32)


def template_points(grid: Grid, factors: tuple[int, int, int], pose: Matrix, shape: HeadShape) -> Array:
    """Template points seen at the parts of a native grid's voxels, RAS mm, (D * f, H * g, W * h, 3).

    Each voxel is divided into `factors` parts along the axes; for the pose see `draw_pose`.
    """
    spacing = np.array(grid.spacing)
    part = spacing / factors
    d, h, w = (n * f for n, f in zip(grid.shape, factors, strict=True))
    fine = Grid((d, h, w), from_matvec(np.diag(part), (part - spacing) / 2))
    a, b, c = (int(np.ceil(n * s / MAP_LATTICE_MM)) + 2 for n, s in zip(grid.shape, spacing, strict=True))
    lattice = Grid((a, b, c), from_matvec(np.eye(3) * MAP_LATTICE_MM, np.full(3, -MAP_LATTICE_MM)))
    local = lattice.world_coordinates().reshape(3, -1)
    native = (grid.affine[:3, :3] / spacing) @ local + grid.affine[:3, 3:]
    back = np.linalg.inv(pose)
    subject = (back[:3, :3] @ native + back[:3, 3:]).T
    return upsample_to(fine, shape.to_template(subject).reshape(a, b, c, 3), lattice)
