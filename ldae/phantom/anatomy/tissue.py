"""Tissue fractions of a subject on the cohort's grid, with the true volumes.

Work is done on a grid of about 2 mm that divides the cohort's voxels evenly; fractions are then averaged over each
voxel, so that coarse images have the partial volumes of a coarse scanner.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import Template, load_template
from ldae.contract import Modality
from ldae.phantom.anatomy.deformation import shape_lattice, structure_displacement
from ldae.phantom.anatomy.lattice import Array, Table, between, upsample_to
from ldae.phantom.population import AnatomicalState, PopulationConfig, with_severity
from ldae.volume import Grid

__all__ = [
    "Composition",
    "RigidMotion",
    "SubjectMap",
    "map_points",
    "map_subject",
    "render",
    "severity_effect",
    "tissue_means",
    "tissue_slope",
    "white_matter_factor",
]

WORKING_VOXEL_MM = 2.0
CORTEX_THICKNESS_MM = 2.5
ROTATION_CENTRE_MM = (0.0, -17.0, 5.0)
# Points are looked up so many at a time, to save memory.
BLOCK = 1_000_000

# Signal of grey matter, white matter and fluid at echo time 100 ms and repetition time TR, the brightest of which is white matter
# in T1w: rho (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2) of FLAIR (TR 9 s, TI 2.5 s), rho (1 - exp(-TR/T1)) exp(-TE/T2) of T2w
# (TR 5 s). At 3 T, rounded: T1 1330, 830 and 4000 ms, T2 110, 80 and 2000 ms (Wansapura et al. 1999, but for fluid), and the
# proton density rho 0.8, 0.7 and 1, which is an assumption.
OTHER_MEANS = {"FLAIR": (0.88, 0.71, 0.13), "T2w": (0.41, 0.26, 0.88)}

# Channels of the packed template.
GREY, WHITE, CSF, TEXTURE, VENTRICLES, HIPPOCAMPI, CORTEX_RIM, HIPPOCAMPUS_RIM = range(8)


@functools.lru_cache
def tissue_means(modality: Modality = "T1w") -> tuple[float, float, float]:
    """Intensity of pure grey matter, white matter and fluid; of T1w by least squares inside the template's mask."""
    if modality != "T1w":
        return OTHER_MEANS[modality]
    template = load_template(1.0)
    inside = template.brain_mask.data > 0.5
    fractions = [m.data[inside] for m in (template.grey_matter, template.white_matter, template.csf)]
    normal = np.array([[float(np.sum(a * b, dtype=np.float64)) for a in fractions] for b in fractions])
    right = np.array([float(np.sum(a * template.t1.data[inside], dtype=np.float64)) for a in fractions])
    grey, white, csf = np.linalg.solve(normal, right).tolist()
    return grey, white, csf


def tissue_slope(modality: Modality) -> float:
    """Change of intensity for a change of 1 in T1w, from white toward grey matter: 1 of T1w, negative of the others."""
    (grey, white, _), (t1_grey, t1_white, _) = tissue_means(modality), tissue_means()
    return (grey - white) / (t1_grey - t1_white)


def white_matter_factor(darkening: float, modality: Modality) -> float:
    """Factor of white matter's mean; where T1w darkens, as white matter grows like grey, the others brighten."""
    return 1.0 - darkening * (tissue_slope(modality) * (tissue_means()[1] / tissue_means(modality)[1]))


@functools.lru_cache(maxsize=1)
def tissue_source(spacing_mm: float, fine: Template) -> Table:
    """An anatomy's maps, smoothed and sampled at `spacing_mm`; near is within 8 mm of any brain.

    Channels: fractions of grey matter, white matter and fluid; texture (T1 less its fit by tissue means); masks of ventricles
    and hippocampi; grey matter lost per mm of cortical thinning; tissue lost per mm of hippocampal shrinking.
    """
    grey, white, csf = fine.grey_matter.data, fine.white_matter.data, fine.csf.data
    means = tissue_means()
    texture = fine.t1.data - means[0] * grey - means[1] * white - means[2] * csf
    outer_csf = ndimage.gaussian_filter(csf * (fine.ventricles.data < 0.5), 1.5)
    cortex_rim = grey * np.clip(outer_csf / 0.2, 0.0, 1.0) / CORTEX_THICKNESS_MM
    hippocampi = fine.hippocampus_left.data + fine.hippocampus_right.data
    gradient = np.stack(np.gradient(ndimage.gaussian_filter(hippocampi, 2.0)))
    hippocampus_rim = np.linalg.norm(gradient, axis=0)
    maps = (grey, white, csf, texture, fine.ventricles.data, hippocampi, cortex_rim, hippocampus_rim)
    sigma = np.sqrt(max(spacing_mm**2 - 1.0, 0.0) / 12.0)
    channels = []
    for data in maps:
        smooth = ndimage.gaussian_filter(data, sigma) if sigma > 0.1 else data
        for axis in range(3):
            smooth = between(smooth, np.arange(0.0, smooth.shape[axis] - 1, spacing_mm), axis)
        channels.append(smooth)
    table = np.ascontiguousarray(np.stack(channels, axis=-1), dtype=np.float32)
    # Beyond the lattice its border continues, and there is nothing beyond the brain.
    for axis in range(3):
        np.moveaxis(table, axis, 0)[[0, -1]] = 0.0
    brain = table[..., :3].sum(axis=-1) > 0.05
    nearby = ndimage.binary_dilation(brain, iterations=max(1, round(8.0 / spacing_mm)))
    return Table(table, fine.grid.affine[:3, 3].astype(np.float32), spacing_mm, nearby)


@dataclass(frozen=True)
class RigidMotion:
    """Residual misregistration: the head's pose relative to the template's.

    Attributes:
        rotation_deg: about x, y and z through the brain's centre, degrees.
        translation_mm: along x, y and z, mm.
    """

    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    translation_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def move(self, points_mm: Array) -> Array:
        """Small rotation (to first order) and translation of points, (N, 3)."""
        x, y, z = np.deg2rad(self.rotation_deg)
        skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        shift = np.array(self.translation_mm) - skew @ ROTATION_CENTRE_MM
        columns = [points_mm[:, axis].copy() for axis in range(3)]
        moved = np.empty_like(points_mm)
        for axis in range(3):
            turned = sum(np.float32(skew[axis, other]) * columns[other] for other in range(3) if other != axis)
            moved[:, axis] = columns[axis] + turned + np.float32(shift[axis])
        return moved


@dataclass(frozen=True, eq=False)
class SubjectMap:
    """Template points of a subject's working voxels.

    Attributes:
        grid: the cohort's grid.
        parts: working voxels in a voxel.
        anatomy: the brain that is deformed, in template space.
        source: its maps.
        points_mm: template points of the working voxels near the brain, RAS mm, (N, 3).
        voxel_index: flat index of the voxel that each of them belongs to, (N,).
    """

    grid: Grid
    parts: int
    anatomy: Template
    source: Table
    points_mm: Array
    voxel_index: npt.NDArray[np.intp]


def map_subject(grid: Grid, shape_mm: Array, anatomy: Template) -> SubjectMap:
    """Bring a head's shape from its lattice, see `draw_shape`, to the working grid of an axis-aligned, isotropic grid."""
    voxel_mm = grid.spacing[0]
    factor = max(1, round(voxel_mm / WORKING_VOXEL_MM))
    spacing = voxel_mm / factor
    affine = np.array(grid.affine)
    affine[:3, :3] /= factor
    affine[:3, 3] -= (voxel_mm - spacing) / 2
    d, h, w = (n * factor for n in grid.shape)
    points = upsample_to(Grid((d, h, w), affine), shape_mm, shape_lattice()).reshape(-1, 3)
    return map_points(grid, (factor, factor, factor), points, spacing, anatomy)


def map_points(
    grid: Grid, factors: tuple[int, int, int], points_mm: Array, spacing_mm: float, anatomy: Template
) -> SubjectMap:
    """Keep the parts of a grid's voxels that look near an anatomy's brain.

    Args:
        grid: the image's grid, in any orientation.
        factors: parts that a voxel is divided into along each axis.
        points_mm: template points of all parts, RAS mm, (D * f * H * g * W * h, 3).
        spacing_mm: size of a part.
        anatomy: the brain that is deformed, in template space.
    """
    # The template need not be finer than the working grid, and has nothing finer than 1 mm.
    source = tissue_source(float(np.clip(spacing_mm, 1.0, 2.0)), anatomy)
    inside = np.concatenate(
        [source.is_near(points_mm[start : start + BLOCK]) for start in range(0, len(points_mm), BLOCK)]
    )
    fine_shape = tuple(n * f for n, f in zip(grid.shape, factors, strict=True))
    fine_index = np.unravel_index(np.flatnonzero(inside), fine_shape)
    voxel_index = np.ravel_multi_index(tuple(i // f for i, f in zip(fine_index, factors, strict=True)), grid.shape)
    return SubjectMap(grid, int(np.prod(factors)), anatomy, source, points_mm[inside], voxel_index)


@dataclass(frozen=True, eq=False)
class Composition:
    """Tissue in each voxel of a head, before it is scanned.

    Attributes:
        grey: grey-matter fraction, (D, H, W).
        white: white-matter fraction.
        csf: fluid fraction; the three sum to the brain mask's.
        texture: T1 intensity beyond the tissue means.
        volumes_ml: true volumes by name, in millilitres.
        displacement_mm: template point seen at each voxel less the voxel's own position, (D, H, W, 3); NaN where
            no brain is near. None unless it was to be kept.
    """

    grey: Array
    white: Array
    csf: Array
    texture: Array
    volumes_ml: dict[str, float]
    displacement_mm: Array | None = None


def render(
    subject: SubjectMap, state: AnatomicalState, motion: RigidMotion | None = None, *, keep_displacement: bool = False
) -> Composition:
    """Move the template's tissue into a subject's head in some state: one map, one interpolation."""
    points = subject.points_mm if motion is None else motion.move(subject.points_mm)
    moved = points + structure_displacement(state, points, subject.anatomy)
    maps = subject.source.sample(moved)
    grey, white, csf = maps[:, GREY], maps[:, WHITE], maps[:, CSF]

    thinned = np.clip(np.float32(state.cortex_mm) * maps[:, CORTEX_RIM], -csf, grey)
    grey, csf = grey - thinned, csf + thinned
    # Fluid takes the place that a shrinking hippocampus leaves (the temporal horn); its rim widens with the shift.
    left = moved[:, 0] < 0
    shrunk_mm = np.where(left, state.hippocampus_left_mm, state.hippocampus_right_mm).astype(np.float32)
    lost = np.clip(shrunk_mm * maps[:, HIPPOCAMPUS_RIM], 0.0, 1.0)
    csf = csf + lost * (grey + white)
    grey, white = grey * (1 - lost), white * (1 - lost)

    hippocampi, part_ml = maps[:, HIPPOCAMPI], subject.grid.voxel_volume_ml / subject.parts
    volumes = {
        name: float(values.sum(dtype=np.float64)) * part_ml
        for name, values in (
            ("ventricles_ml", maps[:, VENTRICLES]),
            ("hippocampus_left_ml", hippocampi[left]),
            ("hippocampus_right_ml", hippocampi[~left]),
            ("gm_ml", grey),
            ("wm_ml", white),
            ("csf_ml", csf),
        )
    }
    volumes["brain_ml"] = volumes["gm_ml"] + volumes["wm_ml"]
    return Composition(
        grey=_pool(subject, grey),
        white=_pool(subject, white),
        csf=_pool(subject, csf),
        texture=_pool(subject, maps[:, TEXTURE]),
        volumes_ml=volumes,
        displacement_mm=_pool_displacement(subject, moved) if keep_displacement else None,
    )


def _pool(subject: SubjectMap, values: Array) -> Array:
    """Mean over each voxel; working voxels far from the brain count as 0. (N,) to (D, H, W)."""
    size = int(np.prod(subject.grid.shape))
    total = np.bincount(subject.voxel_index, weights=values, minlength=size)
    return np.asarray(total / subject.parts, dtype=np.float32).reshape(subject.grid.shape)


def _pool_displacement(subject: SubjectMap, moved_mm: Array) -> Array:
    """Mean template point of each voxel less the voxel's centre, mm, (D, H, W, 3)."""
    size = int(np.prod(subject.grid.shape))
    count = np.bincount(subject.voxel_index, minlength=size)
    # Only voxels with all their parts near the brain have a mean point at their centre.
    whole = np.where(count == subject.parts, count, np.nan)
    sums = [np.bincount(subject.voxel_index, weights=moved_mm[:, a], minlength=size) / whole for a in range(3)]
    mean = np.stack(sums, axis=-1).reshape(*subject.grid.shape, 3)
    return np.asarray(mean - np.moveaxis(subject.grid.world_coordinates(), 0, -1), dtype=np.float32)


def severity_effect(
    head: SubjectMap, state: AnatomicalState, population: PopulationConfig, modality: Modality
) -> Array:
    """Change of a subject's clean image for one unit of severity, (D, H, W).

    The difference of the subject half a unit up and half a unit down, without noise, motion, field or a scanner's contrast, on
    the mean intensities of the modality.
    """
    more, less = (with_severity(state, change, population) for change in (0.5, -0.5))
    return _clean(render(head, more), more, modality) - _clean(render(head, less), less, modality)


def _clean(head: Composition, state: AnatomicalState, modality: Modality) -> Array:
    grey, white, csf = (np.float32(mean) for mean in tissue_means(modality))
    white *= np.float32(white_matter_factor(state.white_matter_darkening, modality))
    return grey * head.grey + white * head.white + csf * head.csf
