"""Edits as motion: a scan deformed as its decoded edit is against its reconstruction.

In scans unlike those that a model was trained on, a decoded edit changes brightness where a boundary should move. Registering the
reconstruction to the decoded edit turns that change into motion, which is then done to the scan itself.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.base.processes import one_itk_thread

__all__ = ["LEAST_CHANGE", "deform", "find_displacement"]

Image = npt.NDArray[np.float32]

LEAST_CHANGE = 0.05
"""Smaller changes, of intensities in [0, 1], move nothing: they are spread over the brain and mark no boundary."""
ITERATIONS = 20
# Standard deviation of the kernel that smooths the displacement, in voxels.
SMOOTHING = 1.0
# Inside the brain no voxel becomes background.
DARKEST = 1e-3


def find_displacement(reference: Image, edited: Image) -> Image:
    """How a reconstruction has to be deformed to look like a decoded edit (diffeomorphic demons, Vercauteren et al. 2009).

    Args:
        reference: decoded without an edit, (D, H, W) in [0, 1].
        edited: decoded with it.

    Returns:
        (D, H, W, 3) in voxels: what the edit shows at a voxel lies that far away from it in the reference.
    """
    import SimpleITK

    change = edited - reference
    kept = np.sign(change) * np.maximum(np.abs(change) - LEAST_CHANGE, 0.0)
    if not kept.any():
        return np.zeros((*reference.shape, 3), np.float32)
    demons = SimpleITK.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(ITERATIONS)
    demons.SetStandardDeviations(SMOOTHING)
    fixed, moving = (
        SimpleITK.GetImageFromArray(np.ascontiguousarray(each, dtype=np.float32))
        for each in (reference + kept, reference)
    )
    with one_itk_thread():
        field = SimpleITK.GetArrayFromImage(demons.Execute(fixed, moving))
    return np.ascontiguousarray(field[..., ::-1], dtype=np.float32)  # ITK's x is the last axis


def deform(scan: Image, displacement: Image) -> Image:
    """A scan, (D, H, W) in [0, 1] with a background of 0, deformed by a displacement of :func:`find_displacement`."""
    if not displacement.any():
        return scan
    at = np.indices(scan.shape) + np.moveaxis(displacement, -1, 0)
    inside = ndimage.map_coordinates((scan > 0).astype(np.float32), at, order=1) > 0.5
    moved = ndimage.map_coordinates(scan, at, order=3, mode="nearest")
    return np.where(inside, moved.clip(DARKEST, 1.0), 0.0).astype(np.float32)
