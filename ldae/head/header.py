"""What an image file's header claims, checked before its voxels are touched.

NIfTI headers are read as they stand in the file: the usual reader mends a voxel size of zero silently.
"""

import errno
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.head.findings import ERROR, NOTICE, WARNING, Finding, worst
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
RECONVERT = "convert the scan again from DICOM, so that the header states its true geometry"


@dataclass(frozen=True)
class Header:
    """What a header says.

    Attributes:
        shape: axis lengths, trailing axes of length one dropped.
        spacing: voxel size in mm as written, negative or zero where it is so.
        dtype: of the voxels in the file.
        affine: voxels to RAS mm, (4, 4), or None if there is none.
        qform: affine of the NIfTI quaternion, None where it is not set (code 0) or the format has none.
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
    """Why a path is no file that could be an image; None if it may be."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Finding(
                ERROR,
                "symlink-loop",
                f"{path} is a symbolic link that leads to itself",
                "point the link at the image",
            )
        return Finding(
            ERROR,
            "missing-file",
            f"{path} does not exist",
            "correct the path; relative paths resolve against the manifest's folder",
        )
    if not path.is_file():
        return Finding(ERROR, "missing-file", f"{path} is no file", "name the image itself")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return Finding(ERROR, "unreadable", f"{path} is empty", COPY_AGAIN)
    if path.name.endswith((".gz", ".mgz", ".nii")) and _is_text(start):
        return Finding(
            ERROR,
            "text-file",
            f"{path} is text ({start[:24].decode('ascii')!r} ...) under an image's name",
            "fetch the image itself; pointers of Git LFS or git-annex and saved error pages look like this",
        )
    return None


def _is_text(start: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)


def read_header(path: Path) -> Header | None:
    """The header of a NIfTI or MGH file; None for formats whose header is only read with the voxels.

    Raises:
        Exception: whatever the readers raise on damaged files.
    """
    name = path.name.lower()
    if not name.endswith(NIFTI_SUFFIXES + MGH_SUFFIXES):
        return None
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
    """What a header says that cannot be or should not be; an error means that the voxels are not worth reading.

    Args:
        header: as it stands in the file.
        file_bytes: length of the file, against which the promised voxels are held.
    """
    found = _kind_findings(header, file_bytes) or [*_type_findings(header), *_geometry_findings(header)]
    return found if worst(found) == ERROR else [*found, *_orientation_findings(header)]


def _kind_findings(header: Header, file_bytes: int | None) -> list[Finding]:
    shape = header.shape
    times = " x ".join(map(str, shape))
    if header.dtype.fields is not None:
        return [Finding(ERROR, "colour", "a colour (RGB) image, not a scan", "export the original grey-scale series")]
    if header.dtype.kind == "c":
        return [Finding(ERROR, "complex", "complex numbers, not intensities", "export the magnitude image")]
    if len(shape) > 3:
        return [
            Finding(
                ERROR,
                "four-dimensional",
                f"{len(shape)} axes ({times}): a series, such as functional or diffusion MRI",
                "give the structural scan, or extract one volume",
            )
        ]
    if len(shape) < 3 or min(shape) <= 1:
        return [Finding(ERROR, "single-slice", f"a single slice ({times})", "give the whole series as one volume")]
    voxels = math.prod(shape)
    if voxels > MAX_VOXELS:
        return [Finding(ERROR, "huge", f"{times} voxels, more than any head needs", RECONVERT)]
    if file_bytes is not None and voxels * header.dtype.itemsize > MAX_DEFLATE_RATIO * file_bytes:
        return [
            Finding(
                ERROR,
                "unreadable",
                f"the header promises {times} voxels, which {file_bytes} bytes cannot hold",
                COPY_AGAIN,
            )
        ]
    return []


def _type_findings(header: Header) -> list[Finding]:
    if header.dtype.itemsize < 8:
        return []
    message = f"voxels are stored as {header.dtype.name}; scanners write 16 bits, so this was derived"
    return [Finding(NOTICE, "wide-type", message, "check that it is the scan and not a map or labels")]


def _geometry_findings(header: Header) -> list[Finding]:
    found = []
    sizes = header.spacing
    words = " x ".join(f"{size:.4g}" for size in sizes)
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        return [Finding(ERROR, "bad-spacing", f"an impossible voxel size, {words} mm", RECONVERT)]
    affine = header.affine
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return [
            Finding(ERROR, "singular-affine", "the affine is singular: voxels have no place in the world", RECONVERT)
        ]
    columns = affine[:3, :3]
    true_sizes = np.linalg.norm(columns, axis=0)
    if true_sizes.min() < MIN_SPACING_MM or true_sizes.max() > MAX_SPACING_MM:
        words = " x ".join(f"{size:.4g}" for size in true_sizes)
        found.append(
            Finding(
                ERROR,
                "absurd-spacing",
                f"voxels of {words} mm, outside {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g}: units were mistaken",
                RECONVERT,
            )
        )
        return found
    if not np.allclose(true_sizes, sizes, rtol=0.01):
        found.append(
            Finding(
                WARNING,
                "spacing-conflict",
                f"the header states voxels of {words} mm, its affine {' x '.join(f'{size:.4g}' for size in true_sizes)} mm",
                RECONVERT,
            )
        )
    cosines = (columns / true_sizes).T @ (columns / true_sizes) - np.eye(3)
    if np.abs(cosines).max() > SHEARED:
        found.append(
            Finding(
                WARNING,
                "sheared",
                "the axes of the grid are not perpendicular (gantry tilt, or an affine that holds a registration)",
                "resample the scan to a rectangular grid",
            )
        )
    found += _extent_findings(header.shape, true_sizes)
    return found


def _extent_findings(shape: tuple[int, ...], sizes: npt.NDArray[np.float64]) -> list[Finding]:
    found = []
    if min(shape) < MIN_SLICES:
        found.append(
            Finding(WARNING, "few-slices", f"only {min(shape)} slices along one axis", "give a scan of the whole head")
        )
    elif (np.asarray(shape) * sizes).min() < MIN_FIELD_MM:
        found.append(
            Finding(
                WARNING,
                "small-field",
                f"the field of view is only {(np.asarray(shape) * sizes).min():.0f} mm along one axis; a brain needs "
                f"more than {MIN_FIELD_MM:g}",
                "give a scan of the whole head",
            )
        )
    ratio = sizes.max() / sizes.min()
    if ratio > ANISOTROPIC and sizes.max() > THICK_MM:
        found.append(
            Finding(
                WARNING,
                "thick-slices",
                f"slices of {sizes.max():.3g} mm, {ratio:.1f} times the smallest side of a voxel",
                "prefer a 3D acquisition of the same visit; expect little of small structures otherwise",
            )
        )
    elif ratio > ANISOTROPIC:
        found.append(
            Finding(
                NOTICE,
                "anisotropic",
                f"the largest side of a voxel is {ratio:.1f} times the smallest",
                "nothing, unless other scans of the cohort are isotropic",
            )
        )
    return found


def _orientation_findings(header: Header) -> list[Finding]:
    if header.codes is None:
        return []
    ambiguous = "left and right are not known: the header has neither qform nor sform"
    if header.qform is None and header.sform is None:
        return [Finding(WARNING, "ambiguous-orientation", ambiguous, RECONVERT)]
    found = []
    if header.qform is not None and header.sform is not None:
        if axis_word(header.qform) != axis_word(header.sform):
            found.append(
                Finding(
                    WARNING,
                    "orientation-conflict",
                    f"qform says {axis_word(header.qform)}, sform {axis_word(header.sform)}; programs differ in which they "
                    "believe, and left and right may be exchanged",
                    RECONVERT,
                )
            )
        elif header.codes[0] == header.codes[1] and (shift := _corner_shift(header)) > 1.0:
            found.append(
                Finding(
                    NOTICE,
                    "geometry-conflict",
                    f"qform and sform claim the same space but differ by up to {shift:.0f} mm; the sform is used",
                    RECONVERT,
                )
            )
    return found


def _corner_shift(header: Header) -> float:
    """How far qform and sform put a corner of the field of view apart, at most, in mm."""
    assert header.qform is not None
    assert header.sform is not None
    corners = np.array([[*corner, 1.0] for corner in itertools.product(*((0.0, n - 1.0) for n in header.shape))]).T
    return float(np.linalg.norm(((header.qform - header.sform) @ corners)[:3], axis=0).max())


def axis_word(affine: npt.NDArray[np.float64]) -> str:
    """Where the voxel axes point, as in 'RAS'."""
    from nibabel.orientations import aff2axcodes

    return "".join(str(code) for code in aff2axcodes(affine))
