"""Shapes in millimetres: growing, shrinking and closing masks whose voxels need not be cubes.

Beyond the field of view the masks are unknown, not empty: a border that cuts the head is no surface of it.
"""

import itertools
import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.volume import Grid, Volume

__all__ = ["box_corners_mm", "close", "coarse_grid", "depth_mm", "grow", "largest_piece", "mask_of_head", "mask_volume"]
__all__ += ["otsu_threshold", "shrink", "smooth_inside"]

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]


def depth_mm(mask: Mask, spacing: Spacing) -> npt.NDArray[np.float64]:
    """Distance of each voxel of the mask to the nearest voxel outside it, in mm; 0 outside, (D, H, W)."""
    if mask.all():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing), dtype=np.float64)


def grow(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """All voxels within a distance of the mask, (D, H, W)."""
    return np.asarray(depth_mm(~mask, spacing) <= radius_mm)


def shrink(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """The voxels of the mask farther than a distance from all that is outside it, (D, H, W)."""
    return np.asarray(depth_mm(mask, spacing) > radius_mm)


def close(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """The mask with clefts narrower than twice the radius bridged and holes filled, (D, H, W)."""
    margin = [math.ceil(radius_mm / size) + 1 for size in spacing]
    padded = np.pad(mask, [(n, n) for n in margin])
    bridged = ndimage.binary_fill_holes(shrink(grow(padded, radius_mm, spacing), radius_mm, spacing))
    return np.asarray(bridged[tuple(slice(n, -n) for n in margin)] | mask)


def largest_piece(mask: Mask) -> Mask:
    """The largest connected component, (D, H, W); an empty mask stays empty."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))


def mask_of_head(volume: Volume) -> Mask:
    """Voxels brighter than the background by Otsu's threshold, the largest connected piece, (D, H, W)."""
    # The threshold is found below the brightest percent: fat and vessels would pull it up.
    clipped = np.minimum(volume.data, np.percentile(volume.data, 99.0))
    return largest_piece(np.asarray(clipped > otsu_threshold(clipped)))


def otsu_threshold(values: npt.NDArray[np.float32]) -> float:
    """The threshold that parts values, of two or three axes, into two classes best (Otsu 1979)."""
    import SimpleITK

    otsu = SimpleITK.OtsuThresholdImageFilter()
    otsu.Execute(SimpleITK.GetImageFromArray(values))
    return float(otsu.GetThreshold())


def smooth_inside(values: npt.NDArray, mask: Mask, width_voxels: float) -> npt.NDArray:
    """Mean of the mask's values, weighted by a Gaussian of some standard deviation in voxels, (D, H, W)."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), width_voxels)
    return np.asarray(ndimage.gaussian_filter(values * mask, width_voxels) / np.maximum(weight, 1e-3))


def box_corners_mm(grid: Grid) -> npt.NDArray[np.float64]:
    """The outer voxel centres of a grid at its eight corners, RAS mm and 1, (4, 8)."""
    ends = itertools.product(*((0.0, n - 1.0) for n in grid.shape))
    return np.asarray(grid.affine @ np.array([[*corner, 1.0] for corner in ends]).T)


def mask_volume(mask: Mask, affine: npt.NDArray[np.float64]) -> Volume:
    """A mask as a volume of zeros and ones."""
    return Volume(mask.astype(np.float32), affine)


def coarse_grid(grid: Grid, voxel_size_mm: float, *, finer_too: bool = False) -> Grid:
    """The grid's own axes and field of view with voxels of about `voxel_size_mm` where its own are finer.

    With `finer_too`, where its own are coarser as well.
    """
    spacing, shape = np.asarray(grid.spacing), np.asarray(grid.shape)
    wanted = np.full(3, voxel_size_mm) if finer_too else np.maximum(spacing, voxel_size_mm)
    target = np.maximum(np.round(shape * spacing / wanted), 1).astype(int)
    step = shape / target
    affine = np.array(grid.affine)
    affine[:3, :3] = affine[:3, :3] * step
    affine[:3, 3] = (grid.affine @ np.append((step - 1) / 2, 1.0))[:3]
    d, h, w = (int(n) for n in target)
    return Grid((d, h, w), affine)
