"""The way back: what was changed in template space, put on the raw scan that it came from.

A difference is carried by the inverse of the affine that preprocessing found, interpolated once, brought to the raw scan's
intensities, faded out towards the edge of the brain, and added. Everything else of the raw scan stays as it is stored.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.base.files import read_json, sha256_of
from ldae.errors import TaskError, VolumeError
from ldae.head.morphology import depth_mm
from ldae.io.stored import StoredScan, read_stored
from ldae.volume import Grid, Volume, read_volume, sidecar_path

__all__ = ["NativeScan", "NativeSource"]

Array = npt.NDArray[np.float32]

# Within this depth below the brain's surface a change fades to nothing, so that no rim appears; a cut by the view is no surface.
FEATHER_MM = 3.0
# Bias fields are smooth: the raw scan's gain over the corrected one is taken over a Gaussian of this width.
GAIN_MM = 6.0
# What moves by less stays as it is stored.
STILL_VOXELS = 1e-3
# No coil is brighter or darker than its middle by more.
MAX_GAIN = 4.0
REMEDY = (
    "write results in template space with '--space template', or run 'ldae cohort preprocess' on the raw scan again"
)


@dataclass(frozen=True, eq=False)
class NativeSource:
    """Source of a preprocessed scan, read from its side-car and checked by :meth:`of`.

    Attributes:
        preprocessed: the scan in template space.
        raw: the file it was made of.
        grid: of the raw scan as stored.
        to_template: RAS mm of the raw scan to RAS mm of the template, (4, 4).
        brain_mask: the brain on the raw scan's grid; None where preprocessing left none.
        window: intensities that the preprocessed scan's 0 and 1 stand for, where it was normalised; else (0, 1).
    """

    preprocessed: Path
    raw: Path
    grid: Grid
    to_template: npt.NDArray[np.float64]
    brain_mask: Path | None
    window: tuple[float, float]

    @classmethod
    def of(cls, preprocessed: str | os.PathLike[str]) -> "NativeSource":
        """Read the side-car of a scan that `ldae cohort preprocess` wrote, and see that its raw scan is still the same.

        Args:
            preprocessed: the image in template space.

        Raises:
            TaskError: if there is no side-car, it lacks what is needed, or the raw scan is gone or has changed.
        """
        preprocessed = Path(preprocessed)
        sidecar = sidecar_path(preprocessed)
        plain = _read_sidecar(sidecar)
        try:
            to_template = np.asarray(plain["AffineNativeToTemplate"], dtype=np.float64)
            grid = Grid.from_dict(plain["NativeGrid"])
            raw = sidecar.parent / str(plain["Sources"][0])
            fingerprint = plain.get("Fingerprint") or {}
            normalised = (fingerprint.get("Config") or {}).get("normalise", False)
            low, high = (float(value) for value in (plain["IntensityWindow"] if normalised else (0.0, 1.0)))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, VolumeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            msg = f"{sidecar}: tells no way back to the raw scan ({reason}); {REMEDY}"
            raise TaskError(msg) from error
        if to_template.shape != (4, 4) or not abs(np.linalg.det(to_template)) > 1e-6:
            msg = f"{sidecar}: AffineNativeToTemplate must be an invertible 4x4 matrix; {REMEDY}"
            raise TaskError(msg)
        if not raw.is_file():
            msg = f"{sidecar}: its raw scan {raw} is not there; put it back, or {REMEDY}"
            raise TaskError(msg)
        known = fingerprint.get("SourceSha256")
        if known is not None and sha256_of(raw) != known:
            msg = f"{raw}: has changed since {preprocessed.name} was made of it; {REMEDY}"
            raise TaskError(msg)
        mask = plain.get("NativeBrainMask")
        brain_mask = None if mask is None else sidecar.parent / str(mask)
        return cls(preprocessed, raw, grid, to_template, brain_mask, (low, high))

    def open(self) -> "NativeScan":
        """Read the raw scan, and find where and how strongly changes are added to it.

        Raises:
            TaskError: if the raw scan is not on the grid that the side-car tells, or no brain is in its field of view.
            VolumeError: if a file cannot be read.
        """
        scan, prepared = read_stored(self.raw), read_volume(self.preprocessed)
        if scan.volume.grid != self.grid:
            msg = f"{self.raw}: lies on another grid than when {self.preprocessed.name} was made of it; {REMEDY}"
            raise TaskError(msg)
        carried_mask = Volume((prepared.data > 0).astype(np.float32), prepared.affine)
        if self.brain_mask is None:
            brain = self._carry(carried_mask, self.grid, order=1) > 0.5
        else:
            mask = read_volume(self.brain_mask)
            if mask.grid != self.grid:
                msg = f"{self.brain_mask}: the brain mask is not on the grid of {self.raw}; {REMEDY}"
                raise TaskError(msg)
            brain = mask.data > 0.5
        if not brain.any():
            msg = f"{self.raw}: no brain lies where {self.preprocessed.name} says; {REMEDY}"
            raise TaskError(msg)
        box, window = _box_around(brain, self.grid)
        brain = brain[box]
        # Where voxels of the prepared scan are mixed with background, its intensities say nothing of the gain.
        sure = brain & (self._carry(carried_mask, window, order=1) > 0.99)
        corrected = self._in_scans_units(self._carry(prepared, window, order=1))
        gain = _local_gain(scan.volume.data[box], corrected, sure, window)
        fade = np.clip(depth_mm(brain, window.spacing) / FEATHER_MM, 0.0, 1.0).astype(np.float32)
        return NativeScan(self, scan, box, window, fade, gain)

    def _in_scans_units(self, values: Array) -> Array:
        low, high = self.window
        return values * (high - low) + low

    def _carry(self, volume: Volume, grid: Grid, *, order: int) -> Array:
        """A volume of template space on a grid of native space, interpolated once."""
        to_native = np.linalg.inv(self.to_template)
        return Volume(volume.data, to_native @ volume.affine).resample_to(grid, order=order).data


@dataclass(frozen=True, eq=False)
class NativeScan:
    """A raw scan that results of template space are brought to; made by :meth:`NativeSource.open` or :meth:`of`.

    Attributes:
        source: where everything came from.
        scan: the raw scan as stored.
        box: of the brain, in voxels.
        window: the grid of the box.
        fade: how much of a change is added, in the box: 0 outside the brain, 1 deep inside.
        gain: the raw scan's intensities over those without its bias field, in the box.
    """

    source: NativeSource
    scan: StoredScan
    box: tuple[slice, slice, slice]
    window: Grid
    fade: Array
    gain: Array

    @classmethod
    def of(cls, preprocessed: str | os.PathLike[str]) -> "NativeScan":
        """The raw scan of a preprocessed one.

        Raises:
            TaskError: as :meth:`NativeSource.of` and :meth:`NativeSource.open` do.
            VolumeError: if a file cannot be read.
        """
        return NativeSource.of(preprocessed).open()

    def change(self, difference: Volume) -> Volume:
        """Change of the raw scan by a difference made in template space: linear in it, exactly 0 outside the brain.

        Args:
            difference: in template space, in the preprocessed scan's intensities, on any grid.

        Returns:
            On the raw scan's grid, in its intensities.
        """
        low, high = self.source.window
        return self._placed(self.fade * self.gain * (high - low) * self.source._carry(difference, self.window, order=3))

    def replacement(self, image: Volume, brain: npt.NDArray[np.bool_]) -> Volume:
        """The change that shows an image of template space instead of the raw scan, faded in from the edge of the brain.

        Args:
            image: in template space, in the preprocessed scan's intensities.
            brain: where it shows the brain, of its shape.

        Returns:
            On the raw scan's grid, in its intensities.
        """
        covered = self.source._carry(Volume(brain.astype(np.float32), image.affine), self.window, order=1)
        shown = self.gain * self.source._in_scans_units(
            self.source._carry(image.continued(brain), self.window, order=3)
        )
        weight = self.fade * np.clip(2 * covered, 0.0, 1.0)
        return self._placed(weight * (shown - self.scan.volume.data[self.box]))

    def deformation(self, displacement_mm: Array, affine: npt.NDArray[np.float64]) -> Volume:
        """The change that deforms the raw scan as a displacement of template space says, fading out at the edge of the brain.

        Args:
            displacement_mm: (D, H, W, 3), RAS mm of the template: what is to be seen at a point lies that far away from it.
            affine: of the displacement's grid.

        Returns:
            On the raw scan's grid, in its intensities.
        """
        to_voxels = np.linalg.inv(self.source.to_template[:3, :3] @ self.window.affine[:3, :3])
        parts = [
            self.source._carry(Volume(displacement_mm[..., axis], affine), self.window, order=1) for axis in range(3)
        ]
        moved = np.tensordot(to_voxels, self.fade * np.stack(parts), axes=1)
        here = self.scan.volume.data[self.box]
        seen = ndimage.map_coordinates(here, np.indices(here.shape) + moved, order=3, mode="nearest")
        return self._placed(np.where(np.abs(moved).max(axis=0) > STILL_VOXELS, seen - here, 0.0))

    def add(self, difference: Volume) -> Volume:
        """The raw scan with a difference of template space added; a difference of 0 gives its own voxels.

        Args:
            difference: in template space, in the preprocessed scan's intensities, on any grid.
        """
        return self.scan.changed(self.change(difference))

    def _placed(self, change: npt.NDArray[np.floating]) -> Volume:
        data = np.zeros(self.scan.volume.data.shape, dtype=np.float32)
        data[self.box] = change
        return Volume(data, self.scan.volume.affine)


def _read_sidecar(path: Path) -> dict[str, Any]:
    if not path.is_file():
        msg = f"{path}: not there, so the way back to the raw scan is unknown; {REMEDY}"
        raise TaskError(msg)
    try:
        plain = read_json(path)
    except ValueError as error:
        msg = f"{path}: no valid JSON ({error}); {REMEDY}"
        raise TaskError(msg) from error
    return plain if isinstance(plain, dict) else {}


def _box_around(mask: npt.NDArray[np.bool_], grid: Grid) -> tuple[tuple[slice, slice, slice], Grid]:
    """The smallest box around a mask with one voxel of rim, and its grid."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    first = np.array([max(s.start - 1, 0) for s in found])
    last = np.array([min(s.stop + 1, n) for s, n in zip(found, mask.shape, strict=True)])
    affine = np.array(grid.affine)
    affine[:3, 3] += affine[:3, :3] @ first
    d, h, w = (int(n) for n in last - first)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return (x, y, z), Grid((d, h, w), affine)


def _local_gain(raw: Array, prepared: Array, sure: npt.NDArray[np.bool_], grid: Grid) -> Array:
    """Raw over prepared intensities, both smoothed over the same voxels, within bounds around that of the whole brain."""
    sums = (float(raw[sure].sum(dtype=np.float64)), float(prepared[sure].sum(dtype=np.float64)))
    whole = sums[0] / sums[1] if min(sums) > 0 else 1.0
    sigma: Sequence[float] = [GAIN_MM / size for size in grid.spacing]
    of_raw, of_prepared = (
        ndimage.gaussian_filter(np.where(sure, image, 0.0).astype(np.float32), sigma, mode="constant")
        for image in (raw, prepared)
    )
    # Far from every sure voxel both are nothing but rounding.
    known = of_prepared > 1e-4 * float(of_prepared.max(initial=0.0))
    ratio = np.divide(of_raw, of_prepared, out=np.full(raw.shape, whole, dtype=np.float32), where=known)
    return np.clip(ratio, whole / MAX_GAIN, whole * MAX_GAIN)
