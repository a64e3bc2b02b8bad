"""Checks of an image file's header, before its voxels are read.

NIfTI headers are read as they stand in the file: nibabel repairs a voxel size of zero silently.
"""

import errno
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.errors import VolumeError
from ldae.head.findings import ERROR, NOTICE, WARNING, Finding
from ldae.volume import MGH_SUFFIXES, NIFTI_SUFFIXES

__all__ = ["Header", "axis_word", "check_file", "check_header", "read_header"]

# Beyond these a voxel size is a mistake of units: human MRI lies between.
MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 10.0
MIN_FIELD_MM = 100.0
MIN_SLICES = 16
ANISOTROPIC, THICK_MM = 1.5, 2.0
# Cosine between two axes of the grid that should be perpendicular (3 degrees).
SHEARED = math.sin(math.radians(3.0))
MAX_VOXELS = 1024**3
# Deflate cannot shrink more than this.
MAX_DEFLATE_RATIO = 1032

COPY_AGAIN = "copy or convert the file again"
WHOLE_HEAD = "give a scan of the whole head"
RECONVERT = "convert the scan again from DICOM, so that the header states its true geometry"


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    Attributes:
        shape: axis lengths, trailing axes of length one dropped.
        spacing: voxel size in mm as written, even if zero or negative.
        dtype: of the voxels in the file.
        affine: voxels to RAS mm, (4, 4), or None if there is none.
        qform: affine of the NIfTI quaternion; None if it is not set (code 0) or the format has none.
        sform: affine of the NIfTI matrix, likewise.
        codes: NIfTI's codes of qform and sform; None for other formats.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    dtype: np.dtype
    affine: npt.NDArray[np.float64] | None
    qform: npt.NDArray[np.float64] | None = None
    sform: npt.NDArray[np.float64] | None = None
    codes: tuple[int, int] | None = None


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


def read_header(path: Path) -> Header | None:
    """Header of a NIfTI or MGH file; None for formats whose header is only read with the voxels.

    Raises:
        VolumeError: if the file is damaged.
    """
    if not path.name.lower().endswith(NIFTI_SUFFIXES + MGH_SUFFIXES):
        return None
    try:
        return _read_header(path)
    except Exception as error:  # the readers raise anything from EOFError to zlib.error on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: unreadable or truncated ({reason[:200]}); {COPY_AGAIN}"
        raise VolumeError(msg) from error


def _read_header(path: Path) -> Header:
    import nibabel
    from nibabel.openers import ImageOpener

    image: Any = nibabel.load(path)
    if not isinstance(image.header, nibabel.Nifti1Header):
        shape = tuple(int(n) for n in image.shape)
        spacing = tuple(float(size) for size in image.header.get_zooms()[:3])
        return Header(_trimmed(shape), spacing, image.get_data_dtype(), _matrix(image.affine))
    with ImageOpener(path) as file:
        raw = type(image.header).from_fileobj(file, check=False)
    shape = tuple(int(n) for n in raw["dim"][1 : 1 + min(int(raw["dim"][0]), 7)])
    codes = int(raw["qform_code"]), int(raw["sform_code"])
    return Header(
        shape=_trimmed(shape),
        spacing=tuple(float(size) for size in raw["pixdim"][1:4]),
        dtype=image.get_data_dtype(),
        affine=_matrix(image.affine),
        qform=_matrix(image.header.get_qform()) if codes[0] > 0 else None,
        sform=_matrix(raw.get_sform()) if codes[1] > 0 else None,
        codes=codes,
    )


def _matrix(affine: Any) -> npt.NDArray[np.float64] | None:
    return None if affine is None else np.asarray(affine, dtype=np.float64)


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def check_header(header: Header, file_bytes: int | None = None) -> list[Finding]:
    """Findings on a header; with an error among them, the voxels are not worth reading.

    Args:
        header: as written in the file.
        file_bytes: size of the file, to compare with the number of voxels.
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
    elif header.dtype.kind == "c":
        yield Finding(ERROR, "complex", "complex numbers, not intensities", "export the magnitude image")
    elif len(shape) > 3:
        message = f"{len(shape)} axes ({times}): a series, such as functional or diffusion MRI"
        yield Finding(ERROR, "four-dimensional", message, "give the structural scan, or extract one volume")
    elif len(shape) < 3 or min(shape) <= 1:
        yield Finding(ERROR, "single-slice", f"a single slice ({times})", "give the whole series as one volume")
    elif voxels > MAX_VOXELS:
        yield Finding(ERROR, "huge", f"{times} voxels, too many for a head", RECONVERT)
    elif file_bytes is not None and voxels * header.dtype.itemsize > MAX_DEFLATE_RATIO * file_bytes:
        message = f"the header states {times} voxels, more than a file of {file_bytes} bytes can hold"
        yield Finding(ERROR, "unreadable", message, COPY_AGAIN)


def _check_type(header: Header) -> Iterator[Finding]:
    if header.dtype.itemsize >= 8:
        message = f"voxels are stored as {header.dtype.name}; scanners write 16 bits, so the image was computed"
        yield Finding(NOTICE, "wide-type", message, "check that it is the scan and not a map or labels")


def _check_geometry(header: Header) -> Iterator[Finding]:
    stated = " x ".join(f"{size:.4g}" for size in header.spacing)
    if not all(math.isfinite(size) and size > 0 for size in header.spacing):
        yield Finding(ERROR, "bad-spacing", f"an impossible voxel size, {stated} mm", RECONVERT)
        return
    affine = header.affine
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        yield Finding(
            ERROR, "singular-affine", "the affine has no inverse: voxels have no position in space", RECONVERT
        )
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
    qform, sform = header.qform, header.sform
    if header.codes is None:
        return
    if qform is None and sform is None:
        message = "left and right are unknown: the header has neither qform nor sform"
        yield Finding(WARNING, "ambiguous-orientation", message, RECONVERT)
    if qform is None or sform is None:
        return
    if axis_word(qform) != axis_word(sform):
        message = (
            f"qform gives {axis_word(qform)}, sform {axis_word(sform)}; programs differ in which one they use, and left "
            "and right may be exchanged"
        )
        yield Finding(WARNING, "orientation-conflict", message, RECONVERT)
    elif header.codes[0] == header.codes[1]:
        corners = np.array([[*corner, 1.0] for corner in itertools.product(*((0.0, n - 1.0) for n in header.shape))]).T
        shift_mm = float(np.linalg.norm(((qform - sform) @ corners)[:3], axis=0).max())
        if shift_mm > 1.0:
            message = f"qform and sform name the same space but differ by up to {shift_mm:.0f} mm; the sform is used"
            yield Finding(NOTICE, "geometry-conflict", message, RECONVERT)


def axis_word(affine: npt.NDArray[np.float64]) -> str:
    """Directions of the voxel axes, such as 'RAS'."""
    from nibabel.orientations import aff2axcodes

    return "".join(str(code) for code in aff2axcodes(affine))
