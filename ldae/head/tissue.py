"""Modality of a scan, by the brightness of white matter, grey matter and fluid near one another."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import load_template
from ldae.head.morphology import smooth_inside
from ldae.volume import Volume

__all__ = ["TissueContrast", "tissue_contrast"]

GRID_MM = 4.0
# Differences over shorter distances than this are tissue; over longer ones, the receive coil.
LOCAL_MM = 15.0
WHOLE = 0.95
# Where the template has more fluid in a voxel or beside one, a head that fits it less well shows fluid in the grey matter. Dark
# fluid then hides that grey matter is brighter than white: on all voxels, 10 of 10 FLAIR phantoms passed for T1w.
LITTLE_FLUID = 0.15
# In shares of the brain's median brightness; a smaller difference is no difference.
DIFFERENCE = 0.03
# Of the local variance; with less, the scan does not show the template's anatomy at all.
MIN_EXPLAINED = 0.03


@dataclass(frozen=True)
class TissueContrast:
    """Local differences in brightness, in shares of the brain's median.

    Attributes:
        white_minus_grey: above 0 in T1w, below 0 in T2w and FLAIR; measured away from fluid.
        fluid_minus_grey: below 0 in T1w and FLAIR, above 0 in T2w and echo-planar images.
        explained: share of the scan's local variance that the template's tissues explain, 0..1.
    """

    white_minus_grey: float
    fluid_minus_grey: float
    explained: float

    @property
    def kind(self) -> str:
        """One of "T1w", "FLAIR" (dark fluid, white matter not brighter), "T2w" (bright fluid) and "unknown"."""
        if self.explained < MIN_EXPLAINED:
            return "unknown"
        if self.fluid_minus_grey > DIFFERENCE:
            return "T2w"
        if self.white_minus_grey > DIFFERENCE:
            return "T1w"
        return "FLAIR" if self.fluid_minus_grey < -DIFFERENCE else "unknown"


def tissue_contrast(scan: Volume) -> TissueContrast:
    """Regression of the local brightness of a scan in template space on the template's white matter and fluid."""
    template = load_template(GRID_MM)
    # Whole voxels of brain: background mixed into its rim would pass for dark fluid.
    brain = template.brain_mask.data > WHOLE
    values = scan.resample_to(template.grid).data
    median = float(np.median(values[brain]))
    if median <= 0:
        return TissueContrast(0.0, 0.0, 0.0)
    brightness = _local(np.clip(values / median, 0.0, 3.0), brain)
    tissues = _local_tissues()
    weights, *_ = np.linalg.lstsq(tissues, brightness, rcond=None)
    rest = brightness - tissues @ weights
    explained = 1.0 - float(rest.var() / max(brightness.var(), 1e-12))
    away = ndimage.maximum_filter(template.csf.data, size=3)[brain] < LITTLE_FLUID
    (white, *_), *_ = np.linalg.lstsq(np.c_[tissues, np.ones(len(tissues))][away], brightness[away], rcond=None)
    return TissueContrast(float(white), float(weights[1]), explained)


@cache
def _local_tissues() -> npt.NDArray:
    """The template's white matter and fluid, (voxels of the brain, 2)."""
    template = load_template(GRID_MM)
    brain = template.brain_mask.data > WHOLE
    return np.stack([_local(tissue.data, brain) for tissue in (template.white_matter, template.csf)], axis=1)


def _local(values: npt.NDArray, brain: npt.NDArray[np.bool_]) -> npt.NDArray:
    """Differences from the surrounding brain, (voxels of the brain,)."""
    local = (values - smooth_inside(values, brain, LOCAL_MM / GRID_MM))[brain]
    return np.asarray(local - local.mean())
