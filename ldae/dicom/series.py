"""A DICOM series as a volume: planes in the order of their places, checked, and read through GDCM."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.dicom.headers import Series, Slice
from ldae.errors import VolumeError
from ldae.volume import LPS_TO_RAS, Grid, Volume

__all__ = ["read_series", "series_grid", "sorted_planes"]

# A plane may be off its place by this share of the distance between planes: headers are rounded.
PLACE_TOLERANCE = 0.05
# Planes may be shifted against each other, along rows and columns, by this share of their distance.
SHEAR_TOLERANCE = 0.01
DIRECTION_TOLERANCE = 1e-3
DUPLICATE_MM = 1e-3


def read_series(series: Series) -> Volume:
    """Read a series of parallel planes at equal distances.

    Pixels are decoded by GDCM (through SimpleITK) and scaled with the rescale slope and intercept of each file. Places
    come from the headers and are compared with what GDCM makes of them.

    Args:
        series: from :func:`ldae.dicom.headers.read_folder`.

    Returns:
        The volume: first axis along a row, second along a column, third along the normal (row x column).

    Raises:
        VolumeError: if its planes make no volume or cannot be decoded. No text of a header or path stands in the message.
    """
    planes = sorted_planes(series)
    grid = series_grid(planes)
    data, seen = _read_frames(planes) if series.multiframe else _read_files(planes)
    if data.shape != grid.shape:
        msg = f"{data.shape} voxels were decoded where the headers promise {grid.shape}; export the series again"
        raise VolumeError(msg)
    if seen is not None and not _agree(grid, seen):
        msg = "the decoder places the planes elsewhere than their headers do; export the series again"
        raise VolumeError(msg)
    return Volume(data, grid.affine)


def sorted_planes(series: Series) -> list[Slice]:
    """The planes of a series in order of their place along the normal, whatever their files are called.

    Raises:
        VolumeError: if files are truncated, or planes have no place, differ in direction, size or voxel size, share a
            place or leave a gap.
    """
    if series.broken:
        msg = f"{len(series.broken)} of {len(series.files)} files are truncated; copy them again"
        raise VolumeError(msg)
    planes = series.slices
    if any(p.position is None or p.orientation is None or p.spacing is None for p in planes):
        msg = (
            f"not all of its {len(planes)} images say where they are (position, orientation, pixel spacing); "
            "export the original series"
        )
        raise VolumeError(msg)
    orientations = np.array([plane.orientation for plane in planes]).reshape(len(planes), -1)
    spacings = np.array([plane.spacing for plane in planes]).reshape(len(planes), -1)
    positions = np.array([plane.position for plane in planes]).reshape(len(planes), -1)
    shapes = (orientations.shape[1], spacings.shape[1], positions.shape[1])
    if shapes != (6, 2, 3) or not all(np.isfinite(a).all() for a in (orientations, spacings, positions)):
        msg = "a position, orientation or pixel spacing is not made of 3, 6 and 2 numbers; export the series again"
        raise VolumeError(msg)
    if np.abs(orientations - orientations[0]).max() > DIRECTION_TOLERANCE:
        directions = len({tuple(np.round(o, 2) + 0.0) for o in orientations})
        msg = f"mixed orientations: its {len(planes)} images lie in {max(directions, 2)} directions; split the series"
        raise VolumeError(msg)
    sizes = sorted({plane.size for plane in planes})
    if len(sizes) > 1 or np.abs(spacings - spacings[0]).max() > 1e-4 * spacings.max():
        what = (
            " and ".join(f"{rows} x {columns}" for rows, columns in sizes) if len(sizes) > 1 else "several voxel sizes"
        )
        msg = f"mixed sizes: its images have {what}; split the series"
        raise VolumeError(msg)
    if spacings.min() <= 0:
        msg = f"pixel spacing of {spacings.min():g} mm is impossible; export the series again"
        raise VolumeError(msg)
    row, column = orientations[0, :3], orientations[0, 3:]
    products = (abs(row @ row - 1), abs(column @ column - 1), abs(row @ column))
    if max(products) > DIRECTION_TOLERANCE:
        msg = "its rows and columns are not perpendicular directions of length one; export the series again"
        raise VolumeError(msg)
    places = positions @ np.cross(row, column)
    order = np.argsort(places, kind="stable")
    _check_places(places[order], [planes[i] for i in order])
    return [planes[i] for i in order]


def _check_places(places: npt.NDArray[np.float64], planes: Sequence[Slice]) -> None:
    """Refuse planes that share a place or leave a gap."""
    if len(places) < 2:
        msg = "a single image is no volume; export the whole series"
        raise VolumeError(msg)
    steps = np.diff(places)
    if (steps < DUPLICATE_MM).any():
        distinct = 1 + int(np.count_nonzero(steps >= DUPLICATE_MM))
        echoes = Counter(plane.echo_time for plane in planes)
        why = f"{len(echoes)} echo times" if len(echoes) > 1 else "a time series, or two scans in one series"
        msg = f"duplicate positions: {len(places)} images at {distinct} places ({why}); split the series"
        raise VolumeError(msg)
    step = float(np.median(steps))
    odd = np.flatnonzero(np.abs(steps - step) > PLACE_TOLERANCE * step)
    if len(odd):
        at = int(odd[0])
        missing = round(float(steps[at]) / step) - 1
        what = f"about {missing} missing there" if missing > 0 else "too close"
        msg = (
            f"uneven positions: {steps[at]:.2f} mm between images {at + 1} and {at + 2} of {len(places)}, elsewhere "
            f"{step:.2f} mm ({what}; {len(odd)} such place(s)); copy the missing images or export the series again"
        )
        raise VolumeError(msg)


def series_grid(planes: Sequence[Slice]) -> Grid:
    """Where the voxels of sorted planes are (DICOM PS3.3, C.7.6.2.1.1).

    Raises:
        VolumeError: if the planes are shifted against each other, as with a tilted gantry.
    """
    first, last = planes[0], planes[-1]
    assert first.position is not None
    assert last.position is not None
    assert first.orientation is not None
    assert first.spacing is not None
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    step = (np.array(last.position) - np.array(first.position)) / (len(planes) - 1)
    shift = float(np.linalg.norm(step - normal * (step @ normal)))
    if shift > SHEAR_TOLERANCE * float(step @ normal):
        msg = f"each image is shifted against the one before by {shift:.2f} mm (a sheared grid); resample the series"
        raise VolumeError(msg)
    lps = np.eye(4)
    # The second number of the pixel spacing is the distance between columns, which is a step along a row.
    lps[:3, 0] = row * first.spacing[1]
    lps[:3, 1] = column * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = first.position
    return Grid((first.size[1], first.size[0], len(planes)), LPS_TO_RAS @ lps)


def _read_files(planes: Sequence[Slice]) -> tuple[npt.NDArray[np.float32], Grid]:
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    # Else the first file's type holds for all, and slopes that change from file to file would be cut to integers.
    reader.SetOutputPixelType(sitk.sitkFloat32)
    reader.SetFileNames([str(plane.path) for plane in planes])
    image = _quietly(reader)
    data = sitk.GetArrayFromImage(image).T
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return data, Grid(data.shape, LPS_TO_RAS @ lps)


def _read_frames(planes: Sequence[Slice]) -> tuple[npt.NDArray[np.float32], None]:
    """Frames in the order of the planes. The decoder knows no places of frames, so there is nothing to compare."""
    import SimpleITK as sitk

    if len({plane.path for plane in planes}) > 1:
        msg = "its frames are spread over several files, which is not supported; export it as single images"
        raise VolumeError(msg)
    if len({plane.rescaling for plane in planes}) > 1:
        # GDCM applies the first frame's to all.
        msg = "its frames are scaled differently, which the decoder does not know; export it as single images"
        raise VolumeError(msg)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetOutputPixelType(sitk.sitkFloat32)
    reader.SetFileName(str(planes[0].path))
    data = sitk.GetArrayFromImage(_quietly(reader))
    if data.ndim != 3 or len(data) != len(planes):
        msg = f"{len(planes)} frames were promised, an array of shape {data.shape} was decoded; export single images"
        raise VolumeError(msg)
    return data[[plane.frame for plane in planes]].T, None


def _quietly(reader: Any) -> Any:
    """Run a reader of SimpleITK; its warnings go nowhere, its errors become one sentence."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return reader.Execute()
    except RuntimeError as error:
        msg = "its pixels cannot be decoded; convert them to an uncompressed transfer syntax, or copy the files again"
        raise VolumeError(msg) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _agree(grid: Grid, seen: Grid) -> bool:
    """Whether two grids put every voxel within a tenth of the smallest voxel edge of each other."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1)
    moved = (grid.affine - seen.affine)[:3]
    return bool(np.linalg.norm(moved[:, :3] @ corners + moved[:, 3:], axis=0).max() < 0.1 * min(grid.spacing))
