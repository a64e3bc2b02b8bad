"""N4 bias-field correction on the scan's own grid, shrunken, since the field is smooth."""

import numpy as np

from ldae.head.morphology import coarse_grid, mask_of_head, mask_volume
from ldae.volume import Volume, to_itk

__all__ = ["correct_bias"]

SHRUNKEN_MM = 6.0
ITERATIONS = (50, 40, 30)
# N4 takes logarithms: the darkest voxels of the mask are lifted to this share of the mask's median.
FLOOR = 1e-3
# A field beyond this factor is N4 running away in a corner without tissue, not a coil.
MAX_FACTOR = 8.0


def correct_bias(volume: Volume, mask: Volume | None = None) -> Volume:
    """The scan divided by its N4 bias field, which averages 1 over the mask, so that intensities keep their unit.

    Args:
        volume: the scan on its native grid, before any resampling.
        mask: region of the fit, above 0.5, on any grid; the head by Otsu's threshold if None.

    Returns:
        The corrected scan on the same grid.
    """
    import SimpleITK

    grid = coarse_grid(volume.grid, SHRUNKEN_MM)
    small = volume.resample_to(grid)
    fitted = mask_of_head(small) if mask is None else mask.resample_to(grid).data > 0.5
    if not fitted.any():
        return volume
    floor = FLOOR * float(np.median(small.data[fitted]))
    if floor <= 0:
        return volume
    image = to_itk(Volume(np.maximum(small.data, floor), grid.affine))
    # The control-point mesh starts with one span an axis and doubles at each of three levels: four at the last. Finer
    # fields start to eat the contrast of grey and white.
    n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(ITERATIONS))
    n4.SetConvergenceThreshold(1e-4)
    n4.Execute(image, SimpleITK.Cast(to_itk(mask_volume(fitted, grid.affine)), SimpleITK.sitkUInt8))
    log_field = SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    log_field = log_field - log_field[fitted].mean()
    limit = np.log(MAX_FACTOR)
    # Beyond the outer voxel centres the field is constant.
    bounded = np.pad(np.clip(log_field, -limit, limit).astype(np.float32), 1, mode="edge")
    affine = np.array(grid.affine)
    affine[:3, 3] -= affine[:3, :3].sum(axis=1)
    factor = np.exp(Volume(bounded, affine).resample_to(volume.grid).data)
    return Volume(np.asarray(volume.data / factor, dtype=np.float32), volume.affine)
