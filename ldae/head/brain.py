"""Brain extraction: the template's brain mask moved to the scan, and its surface to the edge of the tissue."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import load_template, template_grid
from ldae.errors import CohortError
from ldae.head.morphology import (
    Mask,
    box_corners_mm,
    close,
    coarse_grid,
    depth_mm,
    grow,
    largest_piece,
    mask_volume,
    shrink,
)
from ldae.volume import Grid, Volume

__all__ = ["brain_of_mask", "brain_of_stripped", "extract_brain", "inside", "template_brain"]

WORKING_MM = 1.5
# How far the brain's surface may lie outside the carried template mask, and how deep inside tissue is taken as given.
REACH_MM, CERTAIN_MM = 7.0, 8.0
OPEN_MM, CLOSE_MM = 2.0, 12.0
# The dark rim of fluid between brain and skull that belongs to the mask.
FLUID_MM = 3.0
# Where tissue begins on the way from fluid (0) to grey matter (1): thin gyri are mixed with fluid.
TISSUE_SHARE = 0.25
# The surface is smoothed by a Gaussian of this width.
SMOOTH_MM = 1.5
DEPTH_LIMIT_MM = 10.0
# A stripped image is brain where it exceeds this share of its bright tissue.
STRIPPED_SHARE = 0.02


def extract_brain(scan: Volume, affine_native_to_template: npt.NDArray[np.float64]) -> Volume:
    """Surface of the brain and its fluid, as the depth below it.

    Grey and white matter are found by intensity within reach of the moved template mask, separated from meninges by
    opening, closed over sulci and ventricles, and extended by a thin rim of dark fluid. A depth, unlike a mask, can be
    interpolated: `inside(surface, grid)` is the mask on any grid.

    Args:
        scan: a bias-corrected T1w head.
        affine_native_to_template: scan to template (RAS mm), (4, 4).

    Returns:
        Depth below the brain's surface in mm, negative outside, within 10; on the scan's axes with cubic voxels.

    Raises:
        CohortError: if no brain tissue is found where the template's brain lies.
    """
    grid = _window(coarse_grid(scan.grid, WORKING_MM, finer_too=True), affine_native_to_template)
    image = scan.resample_to(grid).data
    depth = _template_depth(grid, affine_native_to_template)
    low, high = _tissue_range(image[depth > CERTAIN_MM / 2])
    spacing = grid.spacing
    within_reach = depth > -REACH_MM
    bright = (image > low) & (image < high) & within_reach
    core = largest_piece(shrink(bright | (depth > CERTAIN_MM), OPEN_MM, spacing))
    if not core.any():
        msg = "no brain tissue found inside the template's brain; check the overlay and that the scan is T1w"
        raise CohortError(msg)
    parenchyma = grow(core, OPEN_MM + WORKING_MM / 2, spacing) & (bright | (depth > CERTAIN_MM))
    filled = close(largest_piece(parenchyma), CLOSE_MM, spacing) & within_reach
    rim = grow(filled, FLUID_MM, spacing) & (image < low)
    mask = largest_piece(shrink(filled | rim, WORKING_MM, spacing))
    return _surface(grow(mask, WORKING_MM, spacing), grid)


def brain_of_stripped(scan: Volume) -> Volume:
    """Surface of a stripped brain: everything but background, closed; as :func:`extract_brain`."""
    bright = scan.data > STRIPPED_SHARE * np.percentile(scan.data, 99.0)
    return _surface(close(largest_piece(bright), CLOSE_MM, scan.spacing), scan.grid, smooth_mm=0.0)


def brain_of_mask(mask: Volume, grid: Grid) -> Volume:
    """Surface of a given brain mask, above 0 inside, on any grid in the space of the scan's; as :func:`extract_brain`.

    Raises:
        CohortError: if the mask marks nothing, or everything, within the scan's field of view.
    """
    inner = mask_volume(mask.data > 0, mask.affine).resample_to(grid).data >= 0.5
    if not inner.any() or inner.all():
        marked = "all" if inner.any() else "nothing"
        rule = "it must be above 0 inside the brain, 0 outside, and in the scan's own space"
        msg = f"the brain mask marks {marked} of the scan's field of view; {rule}"
        raise CohortError(msg)
    return _surface(inner, grid, smooth_mm=0.0)


def inside(surface: Volume, grid: Grid) -> Mask:
    """Voxels of a grid below a brain's surface, the largest piece, (D, H, W)."""
    return largest_piece(surface.resample_to(grid, outside=-DEPTH_LIMIT_MM).data > 0)


def template_brain(grid: Grid, affine_native_to_template: npt.NDArray[np.float64], *, margin_mm: float = 0.0) -> Volume:
    """The template's brain mask moved to a scan's grid, 0 and 1, and grown by a margin in template mm."""
    return mask_volume(_template_depth(grid, affine_native_to_template) > -margin_mm, grid.affine)


def _surface(mask: Mask, grid: Grid, *, smooth_mm: float = SMOOTH_MM) -> Volume:
    outer, inner = (np.minimum(depth_mm(part, grid.spacing), DEPTH_LIMIT_MM) for part in (~mask, mask))
    smooth = ndimage.gaussian_filter(inner - outer, [smooth_mm / size for size in grid.spacing], mode="nearest")
    return Volume(smooth.astype(np.float32), grid.affine)


def _template_depth(grid: Grid, affine_native_to_template: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Depth below the surface of the template's brain in template mm, negative outside, at a scan's voxels."""
    around = template_grid(2.0, multiple=1, margin_mm=REACH_MM + 8.0)
    brain = load_template(1.0).brain_mask.resample_to(around).data > 0.5
    depth = depth_mm(brain, around.spacing) - depth_mm(~brain, around.spacing)
    to_native = np.linalg.inv(affine_native_to_template)
    carried = Volume(depth.astype(np.float32), to_native @ around.affine)
    return carried.resample_to(grid, outside=float(depth.min())).data


def _window(grid: Grid, affine_native_to_template: npt.NDArray[np.float64]) -> Grid:
    """The part of the grid that the template's brain and its surroundings can reach."""
    box = template_grid(8.0, multiple=1, margin_mm=2 * REACH_MM)
    voxels = (np.linalg.inv(affine_native_to_template @ grid.affine) @ box_corners_mm(box))[:3]
    low = np.clip(np.floor(voxels.min(axis=1)).astype(int), 0, np.asarray(grid.shape) - 1)
    high = np.clip(np.ceil(voxels.max(axis=1)).astype(int) + 1, low + 1, grid.shape)
    affine = np.array(grid.affine)
    affine[:3, 3] = (grid.affine @ np.append(low, 1.0))[:3]
    d, h, w = (int(n) for n in high - low)
    return Grid((d, h, w), affine)


def _tissue_range(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Lowest and highest intensity of brain tissue, from fluid, grey and white matter as three clusters."""
    from sklearn.cluster import KMeans

    if values.size < 100 or values.std() == 0:
        msg = "the scan shows nothing where the template's brain lies; check its field of view"
        raise CohortError(msg)
    inside = values[(values > np.percentile(values, 0.5)) & (values < np.percentile(values, 99.5))].astype(np.float64)
    # Quantiles stand for the voxels: enough for three means, and no random choice.
    sample = np.quantile(inside, np.linspace(0.0, 1.0, 2000))[:, None]
    start = np.quantile(sample, [0.05, 0.4, 0.8])[:, None]
    fluid, grey, white = sorted(KMeans(3, init=start, n_init=1).fit(sample).cluster_centers_[:, 0])
    return fluid + TISSUE_SHARE * (grey - fluid), white + 1.5 * (white - grey)
