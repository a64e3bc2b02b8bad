"""A head's surroundings from the labels outside the brain (5xx) of a label map."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine
from scipy import ndimage

from ldae.errors import CohortError
from ldae.head.morphology import depth_mm
from ldae.phantom.anatomy.label_maps import CSF_LABEL, LabelSource, read_label_map
from ldae.phantom.anatomy.lattice import Array, sample_at, smooth_noise
from ldae.phantom.anatomy.surroundings import AIR_SIGNAL, BRAIN_BOTTOM_MM, CEREBROSPINAL, HeadTissue

__all__ = ["LabelHead", "check_head_labels"]

# Brightness where pure white matter is about 0.88, and the shares of fat and marrow, by label.
BRIGHTNESS = {
    502: 0.75,  # arteries
    506: 0.22,  # eyes
    507: 0.5,  # soft tissue: muscle; fat is added
    508: 0.55,  # muscles of the eyes
    509: 0.6,  # mucosa
    511: 0.45,  # skin
    512: 0.78,  # spinal cord
    514: 0.45,  # veins and meninges
    515: 0.07,  # compact bone
    516: 0.07,  # bone with marrow, which is added
    530: 0.7,  # optic nerves
}
SOFT_TISSUE, SKIN, COMPACT_BONE, SPONGY_BONE = 507, 511, 515, 516
OTHER = 0.5
# Fat lies below the skin, down to this depth.
FAT_MM = 8.0
NOISE_MM = 6.0
SOFTENING_VOXELS = 0.6


@dataclass(frozen=True, eq=False)
class _HeadMaps:
    """Surroundings of the brain on the label map's own lattice."""

    table: Array  # (X, Y, Z, 3): brightness without fat and marrow; share of fat; share of marrow
    to_voxel: npt.NDArray[np.float64]  # RAS mm of the template to lattice indices, (4, 4)
    head: npt.NDArray[np.bool_]  # head against air, (X, Y, Z)


def check_head_labels(path: Path, labels: npt.NDArray[np.int16]) -> None:
    """Refuse a label map, (D, H, W), that holds a brain alone.

    Raises:
        CohortError: if labels of soft tissue or bone are missing.
    """
    count = np.bincount(labels.ravel(), minlength=600)
    if not (count[SOFT_TISSUE] and count[COMPACT_BONE]):
        msg = (
            f"{path}: no soft tissue ({SOFT_TISSUE}) or bone ({COMPACT_BONE}) around the brain, so there is no head to "
            "scan; use maps with labels 5xx, or leave out --raw or --anatomy"
        )
        raise CohortError(msg)


@functools.lru_cache(maxsize=1)
def _head_maps(source: LabelSource) -> _HeadMaps:
    label_map = read_label_map(Path(source.path))
    check_head_labels(Path(source.path), label_map.labels)
    label_map = label_map.around(label_map.labels > 0, 1)
    labels, spacing = label_map.labels, label_map.spacing
    noise = smooth_noise(np.random.default_rng(0), labels.shape, NOISE_MM, spacing)
    values = np.full(600, OTHER, dtype=np.float32)
    values[: CSF_LABEL + 1] = values[25:500] = CEREBROSPINAL  # fluid in the brain's place
    values[0] = AIR_SIGNAL
    values[list(BRIGHTNESS)] = list(BRIGHTNESS.values())
    base = values[np.minimum(labels, 599)]
    soft = labels == SOFT_TISSUE
    base[soft] *= 1 + 0.12 * noise[soft]
    lobules = np.clip((noise - 0.9) / 0.5, 0, 0.7)
    depth = _depth_below_skin(labels, spacing)
    fat = soft * np.maximum(lobules, 0.85 * np.clip((FAT_MM * (1 + 0.1 * noise) - depth) / 2.0, 0, 1))
    marrow = (labels == SPONGY_BONE) * (1 + 0.3 * noise)
    channels = [ndimage.gaussian_filter(c.astype(np.float32), SOFTENING_VOXELS) for c in (base, fat, marrow)]
    table = np.ascontiguousarray(np.stack(channels, axis=-1))
    return _HeadMaps(table, np.asarray(np.linalg.inv(source.matrix @ label_map.affine)), labels > 0)


def _depth_below_skin(labels: npt.NDArray[np.int16], spacing: tuple[float, float, float]) -> Array:
    """Distance to the air around the head in mm, on every second voxel and spread; (D, H, W)."""
    small = labels[::2, ::2, ::2]
    # Air in the nose is not around the head.
    around = ndimage.binary_propagation(
        np.pad(np.zeros_like(small, dtype=bool), 1, constant_values=True),
        mask=np.pad(small == 0, 1, constant_values=True),
    )[1:-1, 1:-1, 1:-1]
    x, y, z = (2 * s for s in spacing)
    depth = depth_mm(~around, (x, y, z)).astype(np.float32)
    for axis in range(3):
        depth = depth.repeat(2, axis=axis)
    return depth[tuple(slice(n) for n in labels.shape)]


@dataclass(frozen=True)
class LabelHead:
    """The head that a label map shows around its brain.

    Attributes:
        source: the map.
        tissue: brightness of fat and marrow; the thicknesses are the map's own.
    """

    source: LabelSource
    tissue: HeadTissue

    def points_mm(self, neck_below_mm: float) -> Array:
        """Template points of a coarse lattice in the head, down to some distance below the brain, RAS mm, (N, 3)."""
        maps = _head_maps(self.source)
        step = 6
        voxels = np.argwhere(maps.head[::step, ::step, ::step]) * step
        points = apply_affine(np.linalg.inv(maps.to_voxel), voxels)
        return np.asarray(points[points[:, 2] > BRAIN_BOTTOM_MM - neck_below_mm], dtype=np.float32)

    def signal(self, points_mm: Array) -> Array:
        """Brightness without the brain at template points, (N, 3) RAS mm to (N,); 0 beyond the map."""
        maps = _head_maps(self.source)
        index = np.asarray(apply_affine(maps.to_voxel, points_mm), dtype=np.float32)
        inside = ((index > -0.5) & (index < np.array(maps.head.shape) - 0.5)).all(axis=1)
        signal = np.zeros(len(points_mm), dtype=np.float32)
        base, fat, marrow = sample_at(maps.table, index[inside]).T
        mixed = base + fat * (np.float32(self.tissue.fat) - base) + marrow * np.float32(self.tissue.marrow)
        signal[inside] = np.maximum(mixed, 0.0)
        return signal
