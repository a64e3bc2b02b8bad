"""Checks of an image file's header, before its voxels are read."""

import errno
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ldae.head.findings import ERROR, NOTICE, WARNING, Finding
from ldae.image_files import COPY_AGAIN, Header, Reading, axis_word, size_problem

__all__ = ["check_file", "check_header"]

# Beyond these a voxel size is a mistake of units: human MRI lies between.
MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 10.0
MIN_FIELD_MM = 100.0
MIN_SLICES = 16
ANISOTROPIC, THICK_MM = 1.5, 2.0
# Cosine between two axes of the grid that should be perpendicular (3 degrees).
SHEARED = math.sin(math.radians(3.0))
# Deflate cannot shrink more than this.
MAX_DEFLATE_RATIO = 1032

WHOLE_HEAD = "give a scan of the whole head"
RECONVERT = "convert the scan again from DICOM, so that the header states its true geometry"


def check_file(path: Path) -> Finding | None:
    """Reason why a path cannot be an image file; None if it can."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Finding(ERROR, "symlink-loop", f"{path} is a symbolic link to itself", "point the link at the image")
        remedy = "correct the path; relative paths start at the manifest's folder"
        return Finding(ERROR, "missing-file", f"{path} does not exist", remedy)
    if not path.is_file():
        return Finding(ERROR, "missing-file", f"{path} is not a file", "give the path of the image itself")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return Finding(ERROR, "unreadable", f"{path} is empty", COPY_AGAIN)
    if path.name.endswith((".gz", ".mgz", ".nii")) and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        message = f"{path} is a text file ({start[:24].decode('ascii')!r} ...) with the name of an image"
        remedy = "download the image itself; pointers of Git LFS or git-annex and saved error pages look like this"
        return Finding(ERROR, "text-file", message, remedy)
    return None


def check_header(header: Header, file_bytes: int | None = None) -> list[Finding]:
    """Findings on a header; with an error among them, the voxels are not worth reading.

    The size of the file, if it is given, is compared with the number of voxels.
    """
    found = list(_check_kind(header, file_bytes)) or [*_check_type(header), *_check_geometry(header)]
    useless = any(one.severity == ERROR for one in found)
    return found if useless else [*found, *_check_orientation(header)]


def _check_kind(header: Header, file_bytes: int | None) -> Iterator[Finding]:
    """The first reason why this is no structural scan."""
    shape, voxels = header.shape, math.prod(header.shape)
    times = " x ".join(map(str, shape))
    if header.dtype.fields is not None:
        yield Finding(ERROR, "colour", "a colour (RGB) image, not a scan", "export the original grey-scale series")
    elif len(shape) > 3:
        message = f"{len(shape)} axes ({times}): a series, such as functional or diffusion MRI"
        yield Finding(ERROR, "four-dimensional", message, "give the structural scan, or extract one volume")
    elif len(shape) < 3 or min(shape) <= 1:
        yield Finding(ERROR, "single-slice", f"a single slice ({times})", "give the whole series as one volume")
    elif too_large := size_problem(shape):
        yield Finding(ERROR, "huge", *too_large)
    elif file_bytes is not None and voxels * header.dtype.itemsize > MAX_DEFLATE_RATIO * file_bytes:
        message = f"the header states {times} voxels, more than a file of {file_bytes} bytes can hold"
        yield Finding(ERROR, "unreadable", message, COPY_AGAIN)


def _check_type(header: Header) -> Iterator[Finding]:
    if header.dtype.kind == "c":
        message = "complex numbers, not intensities; their magnitude is taken"
        yield Finding(WARNING, "complex", message, "export the magnitude image")
    elif header.dtype.itemsize >= 8:
        message = f"voxels are stored as {header.dtype.name}; scanners write 16 bits, so the image was computed"
        yield Finding(NOTICE, "wide-type", message, "check that it is the scan and not a map or labels")


def _check_geometry(header: Header) -> Iterator[Finding]:
    stated = " x ".join(f"{size:.4g}" for size in header.spacing)
    if not all(math.isfinite(size) and size > 0 for size in header.spacing):
        yield Finding(ERROR, "bad-spacing", f"an impossible voxel size, {stated} mm", RECONVERT)
        return
    affine = header.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        message = "the affine has no inverse: voxels have no position in space"
        yield Finding(ERROR, "singular-affine", message, RECONVERT)
        return
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    measured = " x ".join(f"{size:.4g}" for size in sizes)
    if sizes.min() < MIN_SPACING_MM or sizes.max() > MAX_SPACING_MM:
        limits = f"{MIN_SPACING_MM:g} to {MAX_SPACING_MM:g}"
        yield Finding(ERROR, "absurd-spacing", f"voxels of {measured} mm, outside {limits}: wrong units", RECONVERT)
        return
    if not np.allclose(sizes, header.spacing, rtol=0.01):
        message = f"the header states voxels of {stated} mm, its affine {measured} mm"
        yield Finding(WARNING, "spacing-conflict", message, RECONVERT)
    directions = affine[:3, :3] / sizes
    if np.abs(directions.T @ directions - np.eye(3)).max() > SHEARED:
        message = "the axes of the grid are not perpendicular (gantry tilt, or an affine that contains a registration)"
        yield Finding(WARNING, "sheared", message, "resample the scan to a rectangular grid")
    yield from _check_extent(header.shape, sizes)


def _check_extent(shape: tuple[int, ...], sizes: npt.NDArray[np.float64]) -> Iterator[Finding]:
    field_mm = (np.asarray(shape) * sizes).min()
    if min(shape) < MIN_SLICES:
        message = f"only {min(shape)} slices along one axis"
        yield Finding(WARNING, "few-slices", message, WHOLE_HEAD)
    elif field_mm < MIN_FIELD_MM:
        message = (
            f"the field of view is only {field_mm:.0f} mm along one axis; a brain needs more than {MIN_FIELD_MM:g}"
        )
        yield Finding(WARNING, "small-field", message, WHOLE_HEAD)
    ratio = sizes.max() / sizes.min()
    if ratio > ANISOTROPIC and sizes.max() > THICK_MM:
        message = f"slices of {sizes.max():.3g} mm, {ratio:.1f} times the smallest side of a voxel"
        remedy = "prefer a 3D acquisition of the same visit; small structures are unreliable otherwise"
        yield Finding(WARNING, "thick-slices", message, remedy)
    elif ratio > ANISOTROPIC:
        message = f"the largest side of a voxel is {ratio:.1f} times the smallest"
        yield Finding(NOTICE, "anisotropic", message, "nothing, unless other scans of the cohort are isotropic")


def _check_orientation(header: Header) -> Iterator[Finding]:
    if not header.placed and not Reading.current().assume_ras:
        message = "left and right are unknown: the header does not say where the voxels lie"
        yield Finding(ERROR, "ambiguous-orientation", message, f"{RECONVERT}; or give --assume-ras")
    if header.conflict is not None and header.qform is not None and header.sform is not None:
        same_axes = axis_word(header.qform) == axis_word(header.sform)
        kind = "geometry-conflict" if same_axes else "orientation-conflict"
        yield Finding(WARNING, kind, header.conflict, RECONVERT)
