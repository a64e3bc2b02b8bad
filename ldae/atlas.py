"""The MNI152 template (ICBM 2009a, symmetric) that nilearn's wheel carries: anatomy without a download."""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.errors import VolumeError
from ldae.image_files import check_size
from ldae.volume import Grid, Volume

__all__ = ["Template", "load_template", "template_grid"]

# The box of the lateral ventricles, lower and upper corner in RAS mm.
VENTRICLE_BOX_MM = ((-42.0, -50.0, -16.0), (42.0, 32.0, 34.0))

# Voxels around the template's files that its grid of 1 mm may reach into.
ROOM = 16

HIPPOCAMPUS_CENTRE_MM = (27.0, -21.0, -15.0)
"""Centre of the right hippocampus in RAS mm; the left one mirrors it in x."""

HIPPOCAMPUS_RADII_MM = (9.0, 17.0, 8.0)
"""Half axes of the ellipsoid that stands for a hippocampus, in mm."""


@dataclass(frozen=True, eq=False)
class Template:
    """The template's image and maps, all on one grid; maps are fractions of a voxel, 0..1.

    Attributes:
        t1: skull-stripped T1 intensity, 0..1, 0 outside the brain.
        grey_matter: grey-matter fraction inside the brain mask.
        white_matter: white-matter fraction inside the brain mask.
        csf: the rest of the brain mask, cerebrospinal fluid.
        brain_mask: brain and the fluid around it.
        ventricles: the lateral ventricles, left and right (17 ml), 0 or 1 on the template's own voxels.
        hippocampus_left: an ellipsoid at the left hippocampus (x < 0), inside the brain mask.
        hippocampus_right: its mirror image.
    """

    t1: Volume
    grey_matter: Volume
    white_matter: Volume
    csf: Volume
    brain_mask: Volume
    ventricles: Volume
    hippocampus_left: Volume
    hippocampus_right: Volume

    @property
    def grid(self) -> Grid:
        """The grid that all maps share."""
        return self.t1.grid

    def resample_to(self, grid: Grid) -> "Template":
        """The same anatomy on another grid, smoothed first where that grid is coarser."""
        return Template(**{name: getattr(self, name).resample_to(grid) for name in self.__dataclass_fields__})


def _native_template() -> Template:
    """The template on the 1 mm grid of its files. Not kept: it takes 280 MB, and reading it again 0.7 s."""
    from nilearn import datasets

    t1_image = datasets.load_mni152_template(resolution=1)
    affine = np.asarray(t1_image.affine, dtype=np.float64)
    mask = datasets.load_mni152_brain_mask(resolution=1).get_fdata(dtype=np.float32) > 0
    grey = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32) * mask
    white = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32) * mask
    csf = np.clip(mask - grey - white, 0.0, 1.0)
    left, right = (_hippocampus(Grid(mask.shape, affine), side) * mask for side in (-1.0, 1.0))
    maps = {
        "t1": t1_image.get_fdata(dtype=np.float32) * mask,
        "grey_matter": grey,
        "white_matter": white,
        "csf": csf,
        "brain_mask": mask,
        "ventricles": _ventricles(csf, affine),
        "hippocampus_left": left,
        "hippocampus_right": right,
    }
    return Template(**{name: Volume(data.astype(np.float32), affine) for name, data in maps.items()})


def _axes_mm(grid: Grid) -> list[npt.NDArray[np.float64]]:
    """World coordinates along each axis of an axis-aligned grid in mm, each broadcastable to (D, H, W)."""
    axes = [grid.affine[i, i] * np.arange(n) + grid.affine[i, 3] for i, n in enumerate(grid.shape)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _ventricles(csf: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The two largest connected fluid spaces inside the ventricle box, (D, H, W).

    The cut through the midline parts left from right, and the cisterns behind the third ventricle into halves that
    are smaller than either; without it the second largest space would be those cisterns.
    """
    axes = _axes_mm(Grid(csf.shape, affine))
    candidates = (csf > 0.5) & (np.abs(axes[0]) > 0.5)
    for axis, low, high in zip(axes, *VENTRICLE_BOX_MM, strict=True):
        candidates = candidates & (axis > low) & (axis < high)
    labels, _ = ndimage.label(candidates)
    return np.isin(labels, 1 + np.argsort(-np.bincount(labels.ravel())[1:], kind="stable")[:2])


def _hippocampus(grid: Grid, side: float) -> npt.NDArray[np.bool_]:
    """The ellipsoid of one side (-1 left, +1 right), (D, H, W)."""
    centre = np.array(HIPPOCAMPUS_CENTRE_MM) * (side, 1.0, 1.0)
    axes = _axes_mm(grid)
    distance = sum(((axes[i] - centre[i]) / HIPPOCAMPUS_RADII_MM[i]) ** 2 for i in range(3))
    return np.asarray(distance <= 1.0)


@functools.lru_cache(maxsize=1)
def _brain_box_mm() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lower and upper corner of the brain mask in RAS mm, outer voxel faces."""
    from nilearn import datasets

    mask = datasets.load_mni152_brain_mask(resolution=1)
    occupied = np.argwhere(np.asarray(mask.dataobj) > 0)
    origin = np.asarray(mask.affine)[:3, 3]
    return occupied.min(axis=0) + origin - 0.5, occupied.max(axis=0) + origin + 0.5


def template_grid(voxel_size_mm: float, *, multiple: int = 8, margin_mm: float = 2.0) -> Grid:
    """The axis-aligned RAS grid around the template's brain, in MNI space.

    Its shape holds the brain and the margin in the fewest voxels that are whole multiples of `multiple` along each
    axis. The origin is rounded to whole millimetres (so that 1 mm voxels coincide with the template's own), which
    moves the brain's centre from the grid's by half a millimetre at most.

    Args:
        voxel_size_mm: edge of a voxel in mm.
        multiple: every axis length is a multiple of this (networks halve the grid several times).
        margin_mm: empty space that is left on each side of the brain, in mm.

    Returns:
        The grid: (40, 48, 40) at 4 mm, (32, 40, 32) at 5 mm.

    Raises:
        VolumeError: if an argument is out of range, or the grid larger than allowed.
    """
    if not np.isfinite(voxel_size_mm) or voxel_size_mm <= 0:
        msg = f"voxel_size_mm must be a positive number of millimetres, got {voxel_size_mm!r}; 1 to 6 are usual"
        raise VolumeError(msg)
    if multiple < 1 or margin_mm < 0:
        msg = f"multiple must be at least 1 and margin_mm at least 0, got {multiple!r} and {margin_mm!r}"
        raise VolumeError(msg)
    low, high = _brain_box_mm()
    blocks = np.ceil((high - low + 2 * margin_mm) / (voxel_size_mm * multiple) - 1e-9)
    d, h, w = (int(n) * multiple for n in blocks)
    check_size((d, h, w), where=f"voxels of {voxel_size_mm:g} mm")
    x, y, z = (low + high) / 2
    affine = np.array(Grid.centred((d, h, w), voxel_size_mm, (x, y, z)).affine)
    affine[:3, 3] = np.floor(affine[:3, 3] + 0.5)
    return Grid((d, h, w), affine)


@functools.lru_cache(maxsize=8)
def load_template(voxel_size_mm: float = 1.0) -> Template:
    """The template on `template_grid(voxel_size_mm)`; read once, then kept. Voxels coarser than its own 1 mm are averages.

    Raises:
        VolumeError: if the voxel size is not positive.
    """
    native, grid = _native_template(), template_grid(voxel_size_mm)
    if voxel_size_mm != 1.0:
        return native.resample_to(grid)
    # The template's own voxels are cut out, not interpolated, which would take seconds.
    start = np.rint(np.linalg.inv(native.grid.affine) @ grid.affine[:, 3]).astype(int)[:3]
    box = tuple(slice(low + ROOM, low + ROOM + n) for low, n in zip(start, grid.shape, strict=True))
    maps = {name: np.pad(getattr(native, name).data, ROOM)[box].copy() for name in Template.__dataclass_fields__}
    return Template(**{name: Volume(data, grid.affine) for name, data in maps.items()})
