"""Smooth invertible deformations: individual shape, and the motion of ventricles and hippocampi.

Both are flows of stationary velocity fields, so they fold nowhere and their inverse is the flow of the negated field.
Maps are backward: for each point of the image they name the point of the template that is seen there.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from ldae.atlas import Template, load_template, template_grid
from ldae.phantom.population import AnatomicalState
from ldae.volume import Grid

__all__ = ["ShapeConfig", "draw_shape", "exponential", "sample_at", "structure_displacement", "upsample_to"]

Array = npt.NDArray[np.float32]

SHAPE_LATTICE_MM = 4.0
STRUCTURE_LATTICE_MM = 3.0
SQUARINGS = 5
CHUNK = 16384

# Where ventricles and hippocampi may move anything, lower and upper corner in RAS mm.
STRUCTURE_BOX_MM = ((-54.0, -66.0, -39.0), (54.0, 48.0, 45.0))
VENTRICLE_SMOOTHING_MM = 4.0
HIPPOCAMPUS_SMOOTHING_MM = 3.0


@dataclass(frozen=True)
class ShapeConfig:
    """Variation of shape between people, besides ageing and disease.

    Attributes:
        scales_mm: correlation lengths of the velocity field, full width at half maximum of its kernel, mm.
        amplitudes_mm: standard deviation of displacement at each scale and in each direction, mm.
        axis_scale_sd: relative standard deviation of the head's length along each axis at constant volume.
    """

    scales_mm: tuple[float, float] = (56.0, 28.0)
    amplitudes_mm: tuple[float, float] = (2.2, 0.8)
    axis_scale_sd: float = 0.012


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


def exponential(velocity: Array) -> Array:
    """The flow of a stationary velocity field after unit time, by scaling and squaring (Arsigny 2006).

    Args:
        velocity: in lattice units, (X, Y, Z, 3).

    Returns:
        Displacement in lattice units, (X, Y, Z, 3).
    """
    shape = velocity.shape
    identity = np.moveaxis(np.indices(shape[:3], dtype=np.float32), 0, -1).reshape(-1, 3)
    displacement = np.ascontiguousarray(velocity / 2**SQUARINGS, dtype=np.float32)
    for _ in range(SQUARINGS):
        moved = identity + displacement.reshape(-1, 3)
        displacement = displacement + sample_at(displacement, moved).reshape(shape)
    return displacement


@functools.lru_cache(maxsize=1)
def shape_lattice() -> Grid:
    """Where shape is drawn: fixed, so that a subject keeps its shape at every voxel size."""
    return template_grid(SHAPE_LATTICE_MM, margin_mm=20.0)


@functools.lru_cache(maxsize=1)
def _shape_lattice_mm() -> Array:
    """RAS mm of the shape lattice's points, (X, Y, Z, 3)."""
    return np.moveaxis(shape_lattice().world_coordinates().astype(np.float32), 0, -1)


@functools.lru_cache(maxsize=1)
def _shape_lattice_brain() -> npt.NDArray[np.bool_]:
    """The lattice points in the template's brain, (X, Y, Z)."""
    return load_template(1.0).brain_mask.resample_to(shape_lattice()).data > 0.5


def draw_shape(config: ShapeConfig, intracranial_scale: float, rng: np.random.Generator) -> Array:
    """Draw a head: the template point that is seen at each point of the shape lattice.

    Args:
        config: amplitudes.
        intracranial_scale: volume relative to the template.
        rng: the subject's source of randomness.

    Returns:
        Template positions, RAS mm, (X, Y, Z, 3).
    """
    grid = shape_lattice()
    velocity = np.zeros((*grid.shape, 3), dtype=np.float32)
    for scale_mm, amplitude_mm in zip(config.scales_mm, config.amplitudes_mm, strict=True):
        sigma = scale_mm / 2.3548 / SHAPE_LATTICE_MM
        for axis in range(3):
            noise = rng.standard_normal(grid.shape, dtype=np.float32)
            smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
            # White noise smoothed by a 3D Gaussian keeps this standard deviation.
            expected = (2.0 * np.sqrt(np.pi) * sigma) ** -1.5
            velocity[..., axis] += smooth * np.float32(amplitude_mm / expected / SHAPE_LATTICE_MM)
    displacement = exponential(velocity) * np.float32(SHAPE_LATTICE_MM)
    # Registration has centred every head, so shape may not shift the brain as a whole.
    displacement -= displacement[_shape_lattice_brain()].mean(axis=0)
    position = _shape_lattice_mm() + displacement
    stretch = config.axis_scale_sd * rng.standard_normal(3)
    scale = np.cbrt(intracranial_scale) * np.exp(stretch - stretch.mean())
    centre = grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]
    return np.asarray((position - centre) / scale + centre, dtype=np.float32)


def upsample_to(grid: Grid, values: Array, lattice: Grid) -> Array:
    """Trilinear interpolation of a lattice's values on an axis-aligned grid, one axis after the other.

    Args:
        grid: the target, axis-aligned.
        values: on the lattice, (X, Y, Z, C).
        lattice: where the values are.

    Returns:
        Values on the grid, (D, H, W, C); beyond the lattice they continue linearly.
    """
    for axis in range(3):
        world = grid.affine[axis, axis] * np.arange(grid.shape[axis]) + grid.affine[axis, 3]
        position = (world - lattice.affine[axis, 3]) / lattice.affine[axis, axis]
        lower = np.clip(np.floor(position).astype(int), 0, lattice.shape[axis] - 2)
        weight = (position - lower).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(4)])
        values = values.take(lower, axis=axis) * (1 - weight) + values.take(lower + 1, axis=axis) * weight
    return values


@dataclass(frozen=True, eq=False)
class StructureFields:
    """Velocity fields that widen the ventricles and shrink the hippocampi by at most 1 mm.

    Attributes:
        origin_mm: first lattice point, RAS mm, (3,).
        ventricles: (X, Y, Z, 3), lattice units per mm of amplitude.
        hippocampus_left: as above.
        hippocampus_right: as above.
    """

    origin_mm: Array
    ventricles: Array
    hippocampus_left: Array
    hippocampus_right: Array


def _boundary_field(mask: Array, smoothing_mm: float, nodes: Sequence[npt.NDArray[np.intp]]) -> Array:
    """The gradient of a smoothed mask at lattice nodes, its greatest length 1; it points into the structure."""
    smooth = ndimage.gaussian_filter(mask, smoothing_mm)
    gradient = np.stack([component[np.ix_(*nodes)] for component in np.gradient(smooth)], axis=-1)
    return np.asarray(gradient / np.linalg.norm(gradient, axis=-1).max(), dtype=np.float32)


@functools.lru_cache(maxsize=1)
def structure_fields(anatomy: Template) -> StructureFields:
    """The fields on a lattice inside `STRUCTURE_BOX_MM`, made from an anatomy on 1 mm voxels once."""
    first, last = (np.array(corner) - anatomy.grid.affine[:3, 3] for corner in STRUCTURE_BOX_MM)
    step = int(STRUCTURE_LATTICE_MM)
    nodes = [np.arange(int(a), int(b) + 1, step) for a, b in zip(first, last, strict=True)]
    per_lattice = np.float32(1.0 / STRUCTURE_LATTICE_MM)
    # Backward maps: to move a boundary outward, the image must look further inside.
    return StructureFields(
        origin_mm=np.array(STRUCTURE_BOX_MM[0], dtype=np.float32),
        ventricles=_boundary_field(anatomy.ventricles.data, VENTRICLE_SMOOTHING_MM, nodes) * per_lattice,
        hippocampus_left=-per_lattice * _boundary_field(anatomy.hippocampus_left.data, HIPPOCAMPUS_SMOOTHING_MM, nodes),
        hippocampus_right=-per_lattice
        * _boundary_field(anatomy.hippocampus_right.data, HIPPOCAMPUS_SMOOTHING_MM, nodes),
    )


def structure_displacement(state: AnatomicalState, points_mm: Array, anatomy: Template | None = None) -> Array:
    """How far ageing and disease have moved the anatomy seen at template points.

    Args:
        state: amplitudes; all zero gives exactly zero.
        points_mm: positions in the template, RAS mm, (N, 3).
        anatomy: whose ventricles and hippocampi; None is the template's own.

    Returns:
        Displacement to the template point that is now seen there, mm, (N, 3).
    """
    fields = structure_fields(anatomy or load_template(1.0))
    velocity = np.float32(state.ventricle_mm) * fields.ventricles
    velocity += np.float32(state.hippocampus_left_mm) * fields.hippocampus_left
    velocity += np.float32(state.hippocampus_right_mm) * fields.hippocampus_right
    displacement = exponential(velocity) * np.float32(STRUCTURE_LATTICE_MM)
    index = (points_mm - fields.origin_mm) / np.float32(STRUCTURE_LATTICE_MM)
    # Outside the box nothing moves; most points are there and need no interpolation.
    inside = ((index > 0) & (index < np.array(displacement.shape[:3]) - 1)).all(axis=1)
    moved = np.zeros_like(points_mm)
    moved[inside] = sample_at(displacement, index[inside])
    return moved
