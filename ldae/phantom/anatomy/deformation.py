"""Smooth invertible deformations: individual shape, and the motion of ventricles and hippocampi.

Both are flows of stationary velocity fields, so they fold nowhere and their inverse is the flow of the negated field.
Maps are backward: for each point of the image they name the point of the template that is seen there.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import Template, load_template, template_grid
from ldae.base.ranges import checked, not_negative, positive
from ldae.phantom.anatomy.lattice import FWHM_PER_SIGMA, Array, sample_at
from ldae.phantom.population import AnatomicalState
from ldae.volume import Grid

__all__ = ["ShapeConfig", "at_shape_lattice", "draw_shape", "exponential", "shape_lattice", "structure_displacement"]

SHAPE_LATTICE_MM = 4.0
STRUCTURE_LATTICE_MM = 3.0
SQUARINGS = 5

# Where ventricles and hippocampi may move anything, lower and upper corner in RAS mm.
STRUCTURE_BOX_MM = ((-54.0, -66.0, -39.0), (54.0, 48.0, 45.0))
VENTRICLE_SMOOTHING_MM = 4.0
HIPPOCAMPUS_SMOOTHING_MM = 3.0


@dataclass(frozen=True)
@checked
class ShapeConfig:
    """Variation of shape between subjects, besides ageing and disease.

    Attributes:
        scales_mm: correlation lengths of the velocity field, full width at half maximum of its kernel, mm.
        amplitudes_mm: standard deviation of displacement at each scale and in each direction, mm.
        axis_scale_sd: relative standard deviation of the head's length along each axis at constant volume.
    """

    scales_mm: tuple[float, float] = positive((56.0, 28.0))
    amplitudes_mm: tuple[float, float] = not_negative((2.2, 0.8))
    axis_scale_sd: float = not_negative(0.012)


def exponential(velocity: Array) -> Array:
    """The flow of a stationary velocity field after unit time, by scaling and squaring (Arsigny 2006).

    Velocity and the displacement that is returned are in lattice units, (X, Y, Z, 3).
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
    """Lattice on which shape is drawn: fixed, so that a subject keeps its shape at every voxel size."""
    return template_grid(SHAPE_LATTICE_MM, margin_mm=20.0)


def at_shape_lattice(field: Array, points_mm: npt.NDArray[np.floating]) -> Array:
    """A field on the shape lattice, (X, Y, Z, C), at points in RAS mm, (N, 3) to (N, C)."""
    lattice = shape_lattice()
    index = (points_mm - lattice.affine[:3, 3]) / lattice.spacing
    return sample_at(field, np.asarray(index, dtype=np.float32))


@functools.lru_cache(maxsize=1)
def _shape_lattice_brain() -> npt.NDArray[np.bool_]:
    """The lattice points in the template's brain, (X, Y, Z)."""
    return load_template(1.0).brain_mask.resample_to(shape_lattice()).data > 0.5


def draw_shape(config: ShapeConfig, intracranial_scale: float, rng: np.random.Generator) -> Array:
    """Draw a head: the template point, RAS mm, that is seen at each point of the shape lattice, (X, Y, Z, 3).

    The intracranial scale is a volume relative to the template.
    """
    grid = shape_lattice()
    velocity = np.zeros((*grid.shape, 3), dtype=np.float32)
    for scale_mm, amplitude_mm in zip(config.scales_mm, config.amplitudes_mm, strict=True):
        sigma = scale_mm / FWHM_PER_SIGMA / SHAPE_LATTICE_MM
        for axis in range(3):
            noise = rng.standard_normal(grid.shape, dtype=np.float32)
            smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
            # White noise smoothed by a 3D Gaussian keeps this standard deviation.
            expected = (2.0 * np.sqrt(np.pi) * sigma) ** -1.5
            velocity[..., axis] += smooth * np.float32(amplitude_mm / expected / SHAPE_LATTICE_MM)
    displacement = exponential(velocity) * np.float32(SHAPE_LATTICE_MM)
    # Registration has centred every head, so shape may not shift the brain as a whole.
    displacement -= displacement[_shape_lattice_brain()].mean(axis=0)
    position = np.moveaxis(grid.world_coordinates().astype(np.float32), 0, -1) + displacement
    stretch = config.axis_scale_sd * rng.standard_normal(3)
    scale = np.cbrt(intracranial_scale) * np.exp(stretch - stretch.mean())
    centre = grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]
    return np.asarray((position - centre) / scale + centre, dtype=np.float32)


def _boundary_field(mask: Array, smoothing_mm: float, nodes: Sequence[npt.NDArray[np.intp]]) -> Array:
    """The gradient of a smoothed mask at lattice nodes, its greatest length 1; it points into the structure."""
    smooth = ndimage.gaussian_filter(mask, smoothing_mm)
    gradient = np.stack([component[np.ix_(*nodes)] for component in np.gradient(smooth)], axis=-1)
    return np.asarray(gradient / np.linalg.norm(gradient, axis=-1).max(), dtype=np.float32)


@functools.lru_cache(maxsize=1)
def structure_fields(anatomy: Template) -> tuple[Array, Array, Array]:
    """Velocity fields that widen the ventricles and shrink the left and right hippocampus by at most 1 mm.

    Each is (X, Y, Z, 3) on a lattice inside `STRUCTURE_BOX_MM`, in lattice units per mm of amplitude.
    """
    first, last = (np.array(corner) - anatomy.grid.affine[:3, 3] for corner in STRUCTURE_BOX_MM)
    step = int(STRUCTURE_LATTICE_MM)
    nodes = [np.arange(int(a), int(b) + 1, step) for a, b in zip(first, last, strict=True)]
    per_lattice = np.float32(1.0 / STRUCTURE_LATTICE_MM)
    # Backward maps: to move a boundary outward, the image must look further inside.
    return (
        _boundary_field(anatomy.ventricles.data, VENTRICLE_SMOOTHING_MM, nodes) * per_lattice,
        -per_lattice * _boundary_field(anatomy.hippocampus_left.data, HIPPOCAMPUS_SMOOTHING_MM, nodes),
        -per_lattice * _boundary_field(anatomy.hippocampus_right.data, HIPPOCAMPUS_SMOOTHING_MM, nodes),
    )


def structure_displacement(state: AnatomicalState, points_mm: Array, anatomy: Template) -> Array:
    """Motion of an anatomy by ageing and disease; amplitudes of zero give exactly zero.

    Displacement from positions in the template, RAS mm, (N, 3), to the template points that are now seen there, mm, (N, 3).
    """
    ventricles, left, right = structure_fields(anatomy)
    velocity = np.float32(state.ventricle_mm) * ventricles
    velocity += np.float32(state.hippocampus_left_mm) * left
    velocity += np.float32(state.hippocampus_right_mm) * right
    displacement = exponential(velocity) * np.float32(STRUCTURE_LATTICE_MM)
    index = (points_mm - np.array(STRUCTURE_BOX_MM[0], dtype=np.float32)) / np.float32(STRUCTURE_LATTICE_MM)
    # Outside the box nothing moves; most points are there and need no interpolation.
    inside = ((index > 0) & (index < np.array(displacement.shape[:3]) - 1)).all(axis=1)
    moved = np.zeros_like(points_mm)
    moved[inside] = sample_at(displacement, index[inside])
    return moved
