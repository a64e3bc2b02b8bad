"""Brains too similar: the trace of a deformable registration, which removes the differences to be learnt."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import load_template
from ldae.head.findings import WARNING, Finding
from ldae.head.morphology import otsu_threshold
from ldae.volume import Volume

__all__ = ["MIN_SUBJECTS", "check_spread", "ventricle_ml"]

GRID_MM = 4.0
# Reach of a subject's ventricles around the template's.
REACH_VOXELS = 2
MIN_SUBJECTS = 8
# Ventricles differ more between subjects than any other part. Their standard deviation over their mean, as measured here,
# was 0.13 and more in affine cohorts (ten adults between 23 and 51 years 0.17) and 0.02 for copies of one brain.
MIN_VENTRICLE_SPREAD = 0.06
# Sessions of one subject are as similar as this; different subjects, moved by an affine alone, reach 0.91.
MAX_LIKENESS = 0.93


def ventricle_ml(scan: Volume) -> float:
    """Dark volume in and around the template's ventricles in ml: ventricles and a share of sulci.

    Args:
        scan: a T1w brain or head in template space.
    """
    template = load_template(GRID_MM)
    around = ndimage.binary_dilation(template.ventricles.data > 0.3, iterations=REACH_VOXELS)
    values = scan.resample_to(template.grid).data[around & (template.brain_mask.data > 0.5)]
    clipped = np.clip(values, *np.percentile(values, [1.0, 99.0]))
    return float((clipped < otsu_threshold(clipped[None])).sum()) * template.grid.voxel_volume_ml


def check_spread(
    volumes_ml: Mapping[str, float], signatures: Sequence[npt.NDArray[np.float16]]
) -> tuple[list[Finding], dict[str, float]]:
    """Test of brains in template space that are more similar than an affine registration leaves them.

    Args:
        volumes_ml: subject -> :func:`ventricle_ml` of one scan.
        signatures: of the same scans, see :func:`~ldae.prepare.check.likeness.signature`.

    Returns:
        Findings, and the measurements that they rest on; neither with fewer than eight subjects.
    """
    if len(volumes_ml) < MIN_SUBJECTS:
        return [], {}
    volumes = np.array(list(volumes_ml.values()))
    spread = float(volumes.std(ddof=1) / volumes.mean()) if volumes.mean() > 0 else 0.0
    stack = np.stack(signatures).astype(np.float32)
    pairs = (stack @ stack.T / stack.shape[1])[np.triu_indices(len(stack), 1)]
    likeness = float(np.median(pairs))
    reasons = []
    if spread < MIN_VENTRICLE_SPREAD:
        least = f"at least {100 * MIN_VENTRICLE_SPREAD:.0f} % after an affine alone"
        reasons.append(f"ventricles vary by {100 * spread:.0f} % between subjects, {least}")
    if likeness > MAX_LIKENESS:
        reasons.append(f"brains of different subjects correlate with {likeness:.2f}, as sessions of one subject do")
    message = f"a deformable registration is suspected: {'; '.join(reasons)}"
    remedy = "start again from the raw scans with 'ldae cohort preprocess': warping to the template removes atrophy"
    finding = Finding(WARNING, "deformable", message, remedy, subjects=tuple(volumes_ml))
    return [finding] if reasons else [], {"ventricle_spread": spread, "median_likeness": likeness}
