"""A DICOM series as a volume: converted by dcm2niix, and checked against the headers."""

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.dicom.headers import Series, require
from ldae.errors import VolumeError
from ldae.image_files import LPS_TO_RAS
from ldae.volume import Volume, read_volume

__all__ = ["Converted", "convert_series"]

log = logging.getLogger(__name__)

PREAMBLE = b"\0" * 128 + b"DICM"
# -g i: the user's default options do not count. -x i: neither cropped nor rotated.
OPTIONS = ["-g", "i", "-b", "y", "-ba", "y", "-f", "scan", "-x", "i", "-z", "n"]
# Distances between slices may differ by this share of their median: headers are rounded.
DISTANCE_TOLERANCE = 0.05
PLACE_TOLERANCE_VOXELS = 0.25


@dataclass(frozen=True)
class Converted:
    """A series as dcm2niix converts it.

    Attributes:
        volume: float32, rescaled.
        sidecar: all that dcm2niix states under BIDS's names; it may identify a person.
        warnings: in dcm2niix's words; they may identify a person.
    """

    volume: Volume
    sidecar: Mapping[str, Any]
    warnings: tuple[str, ...]


def convert_series(series: Series) -> Converted:
    """Convert a series of parallel planes at equal distances to a volume with dcm2niix.

    dcm2niix sorts, stacks, decodes and rescales. What it does not refuse is checked here: equal distances, one voxel size,
    and that the volume has each plane where its header has it. Warnings are logged with the names of the files.

    Raises:
        VolumeError: if its planes make no volume or cannot be decoded. The message holds no text of a header or path.
        DependencyError: if dcm2niix is not installed.
    """
    planes = np.array(series.planes)
    positions = planes[:, :3] @ LPS_TO_RAS[:3, :3]
    _check_planes(planes, positions)
    with tempfile.TemporaryDirectory(prefix="ldae-dicom-") as scratch:
        source, target = Path(scratch, "in"), Path(scratch, "out")
        source.mkdir()
        target.mkdir()
        names = {source / f"{number:06d}.dcm": path for number, path in enumerate(series.files.values())}
        for link, path in names.items():
            _stage(path, link)
        done = require("dcm2niix").main(
            [*OPTIONS, "-o", str(target), str(source)], capture_output=True, text=True, errors="replace"
        )
        messages = _messages(done.stdout + done.stderr)
        for message in messages:
            for link, path in names.items():
                message = message.replace(str(link), str(path))
            log.warning("%s: dcm2niix: %s", series.name, message)
        images = sorted(target.glob("*.nii"))
        if done.returncode != 0 or not images:
            msg = "dcm2niix cannot convert it: files are truncated, or their compression is unknown; copy or export it again"
            raise VolumeError(msg)
        if len(images) > 1:
            msg = (
                f"dcm2niix makes {len(images)} volumes of it: echoes, orientations or sizes are mixed; split the series"
            )
            raise VolumeError(msg)
        try:
            volume = read_volume(images[0])
        except VolumeError as error:
            msg = "dcm2niix makes no 3D volume of it: a time series, or a header without voxel size or orientation"
            raise VolumeError(msg) from error
        try:
            sidecar = json.loads(images[0].with_suffix(".json").read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError):
            sidecar = {}
    _check_places(volume, positions)
    return Converted(volume, sidecar, messages)


def _check_planes(planes: npt.NDArray[np.float64], positions: npt.NDArray[np.float64]) -> None:
    """Refuse planes without a position, of several sizes, at one place, or at uneven distances."""
    count = len(planes)
    if count < 2:
        msg = "a single image is no volume; export the whole series"
        raise VolumeError(msg)
    if not np.isfinite(planes).all() or planes[:, 3:].min() <= 0:
        msg = f"not all of its {count} images state their position and pixel spacing; export the original series"
        raise VolumeError(msg)
    if (np.ptp(planes[:, 3:], axis=0) > 1e-4 * planes[0, 3:]).any():
        msg = "mixed sizes: its images have several voxel sizes or numbers of voxels; split the series"
        raise VolumeError(msg)
    along = np.linalg.svd(positions - positions.mean(axis=0))[2][0]
    steps = np.diff(np.sort(positions @ along))
    step = float(np.median(steps))
    if steps.min() < 1e-3:
        msg = (
            f"duplicate positions: several of its {count} images at one place (echoes, a time series); split the series"
        )
        raise VolumeError(msg)
    odd = np.flatnonzero(np.abs(steps - step) > DISTANCE_TOLERANCE * step)
    if len(odd):
        at = int(odd[0])
        msg = (
            f"uneven positions: {steps[at]:.2f} mm between images {at + 1} and {at + 2} of {count}, elsewhere {step:.2f} mm "
            f"({len(odd)} such place(s)): slices are missing; copy the missing images or export the series again"
        )
        raise VolumeError(msg)


def _stage(path: Path, link: Path) -> None:
    """Put a file where dcm2niix finds it, under a name that tells nothing, with the preamble that it asks for."""
    with path.open("rb") as file:
        bare = not file.read(len(PREAMBLE)).endswith(b"DICM")
    if bare:
        link.write_bytes(PREAMBLE + path.read_bytes())
    elif sys.platform == "win32":  # where links are for administrators
        shutil.copyfile(path, link)
    else:
        link.symlink_to(path.resolve())


def _messages(output: str) -> tuple[str, ...]:
    """The warnings and errors in dcm2niix's output."""
    lines = [line.strip() for line in output.splitlines()]
    starts = ("Warning: ", "Error: ", "Slices not stacked", "File not large enough")
    found = [line.removeprefix("Warning: ").removeprefix("Error: ") for line in lines if line.startswith(starts)]
    # Elements that de-identified files lack as a rule; they matter for other kinds of scans only.
    usual = ("Patient Position (0018,5100) not specified", "Unable to determine manufacturer")
    return tuple(dict.fromkeys(line for line in found if not line.startswith(usual)))


def _check_places(volume: Volume, positions: npt.NDArray[np.float64]) -> None:
    """Refuse a volume that has planes elsewhere than their headers, (n, 3) RAS mm, as dcm2niix may without a warning."""
    inverse = np.linalg.inv(volume.affine)
    index = positions @ inverse[:3, :3].T + inverse[:3, 3]
    index = index[np.argsort(index[:, 2])]
    if len(index) != volume.data.shape[2]:
        msg = f"dcm2niix takes {volume.data.shape[2]} of its {len(index)} images; split the series"
        raise VolumeError(msg)
    # A header's position is that of a corner; which one depends on how dcm2niix flips the axes.
    sides = np.array(volume.data.shape[:2]) - 1
    corner = np.where(index[0, :2] > sides / 2, sides, 0)
    expected = np.column_stack([np.tile(corner, (len(index), 1)), np.arange(len(index))])
    off = float(np.abs(index - expected).max())
    if off > PLACE_TOLERANCE_VOXELS:
        msg = (
            f"dcm2niix places images {off:.1f} voxels from where their headers do: they are shifted against each other (a "
            "tilted gantry), or their frames are not numbered; resample the series, or export single images"
        )
        raise VolumeError(msg)
