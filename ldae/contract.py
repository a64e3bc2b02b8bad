"""The contract between scans and a model: on which grid, and in which intensities, a scan must arrive."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ldae.base.ranges import Range, checked, within
from ldae.errors import ConfigError, VolumeError
from ldae.volume import Grid, Volume, spikes_word

__all__ = [
    "LEFT_RIGHT",
    "PREPARATION",
    "Modality",
    "PreparedScan",
    "Preprocessing",
    "PreprocessingWarning",
    "clear_background",
]

LEFT_RIGHT = 2
"""Axis of batches on the RAS model grid, (B, C, D, H, W), that runs from one side of the head to the other."""

Modality = Literal["T1w", "T2w", "FLAIR"]

PREPARATION = 2
"""Raised where the same file comes to a model as other numbers than before; part of the keys of caches."""

HAZE = 0.1
"""Decoded values below this, outside the brain, are what is left of the background."""


class PreprocessingWarning(UserWarning):
    """A scan that the contract accepts but that is unlike those a model was trained on."""


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the model sees it.

    Attributes:
        data: intensities in [0, 1], background 0, (D, H, W) of the model's grid, float32.
        grid: the scan's own grid.
        window: the scan's intensities at the model's 0 and 1.
        to_template: RAS mm of the scan to RAS mm of the template, (4, 4); None where the scan was in template space.
    """

    data: npt.NDArray[np.float32]
    grid: Grid
    window: tuple[float, float]
    to_template: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
@checked
class Preprocessing:
    """Preprocessing of a scan before the model; saved with every checkpoint.

    Scans come skull-stripped (background exactly 0) and aligned with MNI152 by a rigid or affine transform.

    Attributes:
        shape: voxels of the model's grid along right, anterior, superior.
        voxel_size_mm: edge of its voxels in mm.
        centre_mm: its middle, RAS mm in MNI space (the default is the middle of the MNI152 brain).
        percentiles: of the brain's intensities that become 0 and 1.
        modality: contrast of the scans.
    """

    shape: tuple[int, int, int] = within((128, 160, 128), Range(1, 1024))
    voxel_size_mm: float = within(1.5, Range(0.1, 100))
    centre_mm: tuple[float, float, float] = within((0.0, -17.0, 5.0), Range(-1000, 1000))
    percentiles: tuple[float, float] = (0.5, 99.5)
    modality: Modality = "T1w"

    def __post_init__(self) -> None:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            msg = f"percentiles must be 0 <= low < high <= 100, got {self.percentiles}; (0.5, 99.5) is usual"
            raise ConfigError(msg)

    @property
    def grid(self) -> Grid:
        """The model's grid."""
        return Grid.centred(self.shape, self.voxel_size_mm, self.centre_mm)

    def prepare(self, volume: Volume) -> PreparedScan:
        """Bring a scan to the model's grid and intensities.

        Args:
            volume: skull-stripped, in MNI space, in any orientation and unit.

        Raises:
            VolumeError: if no brain is in the field of view, or the scan still has its skull and background.
        """
        volume, spikes = volume.without_spikes()
        if spikes:
            warnings.warn(spikes_word(spikes), PreprocessingWarning, stacklevel=2)
        on_grid = self._on_grid(volume)
        brain = on_grid > 0
        fraction = float(brain.mean())
        if fraction < 0.02:
            msg = (
                f"only {fraction:.1%} of the model's field of view holds the scan, so it is not in MNI space "
                "(or is empty); run 'ldae cohort preprocess' first"
            )
            raise VolumeError(msg)
        if fraction > 0.75:
            msg = (
                f"{fraction:.0%} of the field of view is above 0, so skull and background are still there; "
                "run 'ldae cohort preprocess' to extract the brain"
            )
            raise VolumeError(msg)
        if max(volume.spacing) > 2.0 * self.voxel_size_mm:
            warnings.warn(
                f"voxels of {max(volume.spacing):.2g} mm are more than twice the model's {self.voxel_size_mm:g} mm; "
                "fine anatomy is missing from this scan",
                PreprocessingWarning,
                stacklevel=2,
            )
        low, median, high = (
            float(v) for v in np.percentile(on_grid[brain], [self.percentiles[0], 50, self.percentiles[1]])
        )
        # A mask keeps a few other values at its rim once it is resampled.
        if high <= low or median - low > 0.9 * (high - low):
            msg = f"most of the brain has one intensity, {median:g}; this is a mask, not a scan: give the T1-weighted image"
            raise VolumeError(msg)
        data = np.where(brain, np.clip((on_grid - low) / (high - low), 0.0, 1.0), 0.0).astype(np.float32)
        return PreparedScan(data, volume.grid, (low, high))

    def _on_grid(self, volume: Volume) -> npt.NDArray[np.float32]:
        """The brain on the model's grid: voxels of which half or more is brain, with the mean intensity of that part.

        Interpolation alone leaves a dim rim, which tissue maps take for fluid: of a scan at 1 mm, brought to 3 mm, a fifth of
        the brain.
        """
        inside = Volume((volume.data > 0).astype(np.float32), volume.affine).resample_to(self.grid).data
        values = volume.resample_to(self.grid).data / np.maximum(inside, 0.5)
        return np.where(inside >= 0.5, values, 0.0).astype(np.float32)

    def restore(self, data: npt.NDArray[np.float32], *, window: tuple[float, float] = (0.0, 1.0)) -> Volume:
        """A model image as a volume on the model's grid, in the scan's units.

        Args:
            data: model intensities, (D, H, W).
            window: the scan's intensities at 0 and 1; the default keeps the model's.
        """
        low, high = window
        return Volume(data * (high - low) + low if window != (0.0, 1.0) else data, self.grid.affine)

    def difference(
        self, image: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], *, window: tuple[float, float]
    ) -> Volume:
        """Difference of two model images, on the model's grid in the scan's units.

        Args:
            image: model intensities, (D, H, W).
            reference: subtracted from it, the same shape.
            window: the scan's intensities at 0 and 1.
        """
        low, high = window
        return Volume((image - reference) * (high - low), self.grid.affine)


def clear_background(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Decoded images with exactly 0 outside the brain, as prepared scans have it. Values that are no numbers stay.

    Args:
        images: model intensities, (N, D, H, W). The brain is the largest bright piece, with the dark fluid that it encloses.

    Returns:
        New images, (N, D, H, W).
    """
    from scipy import ndimage

    cleared = np.zeros_like(images)
    for whole, kept in zip(images, cleared, strict=True):
        bright = ~(whole < HAZE)
        if not bright.any():
            continue
        box = ndimage.find_objects(bright.view(np.int8))[0]  # all around it is background
        image = whole[box]
        pieces, _ = ndimage.label(bright[box], output=np.int32)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0  # what is dark
        # One dark voxel around the grid joins all that touches its edge.
        dark = (pieces == 0) | (pieces != sizes.argmax())
        around, _ = ndimage.label(np.pad(dark, 1, constant_values=True), output=np.int32)
        brain = (around != around[0, 0, 0])[1:-1, 1:-1, 1:-1]
        kept[box][brain] = image[brain]
    return cleared
