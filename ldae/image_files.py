"""Image files: what their headers say, and their voxels, read whole or refused."""

import bz2
import gzip
import itertools
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.base.nrrd import MAX_HEADER, read_nrrd_header
from ldae.errors import VolumeError

__all__ = [
    "COPY_AGAIN",
    "LPS_TO_RAS",
    "MGH_SUFFIXES",
    "NIFTI_SUFFIXES",
    "NRRD_SUFFIXES",
    "Header",
    "Reading",
    "axis_word",
    "check_size",
    "read_header",
    "read_image",
    "read_numbers",
    "reading",
    "size_problem",
]

log = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii.gz", ".nii")
MGH_SUFFIXES = (".mgz", ".mgh")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
NIFTI_UNITS_MM = {1: 1000.0, 3: 0.001}
"""Metres and micrometres, in mm; all other codes of `xyzt_units` are mm or unknown, which is taken as mm."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK keeps world coordinates as LPS; NIfTI and this package keep RAS."""
UNPACK: dict[str, Callable[[Any], Any]] = {"raw": lambda file: file, "gzip": gzip.open, "bzip2": bz2.open}

COPY_AGAIN = "copy or convert the file again"
BYTES = 4
"""Of a voxel in memory, float32."""
AFTER_VOXELS = 1 << 20
"""Bytes that may follow the voxels: footers and padding."""
CHUNK = 1 << 17
"""Voxels that are unpacked at a time."""
SAME_PLACE_MM = 1.0

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """What is taken for granted about image files, in this process and those that it starts.

    Attributes:
        assume_ras: take the axes of files that do not name their directions as right, anterior, superior.
        spacing: voxel size of files that do not state it, three numbers in mm.
        max_gib: largest image in memory.
        strict: refuse what else gives a warning.
    """

    assume_ras: bool = False
    spacing: tuple[float, ...] | None = None
    max_gib: float = 2.0
    strict: bool = False

    @property
    def geometry(self) -> tuple[bool, tuple[float, ...] | None]:
        """What decides where voxels lie, for keys of what was computed from images."""
        return self.assume_ras, self.spacing

    @classmethod
    def current(cls) -> "Reading":
        """That of the block of :func:`reading`, or the default."""
        given = json.loads(os.environ.get(VARIABLE, "{}"))
        spacing = given.pop("spacing", None)
        return cls(**given, spacing=None if spacing is None else tuple(map(float, spacing)))


VARIABLE = "LDAE_READING"


@contextmanager
def reading(how: Reading) -> Iterator[None]:
    """Read image files so within the block; processes that are started in it too, since they inherit the environment."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = json.dumps(asdict(how))
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def size_problem(shape: tuple[int, ...], voxel_bytes: int = BYTES) -> tuple[str, str] | None:
    """Message and remedy for an image that takes more memory than the limit; None where it fits."""
    gib, limit = math.prod(shape) * voxel_bytes / 2**30, Reading.current().max_gib
    if gib <= limit:
        return None
    message = f"an image of {' x '.join(map(str, shape))} voxels takes {gib:,.1f} GiB, the limit is {limit:g} GiB"
    return message, "check the size of the voxels, or raise the limit with --max-gib"


def check_size(shape: tuple[int, ...], *, where: str, voxel_bytes: int = BYTES) -> None:
    """Refuse an image that would not fit, with all its copies, before memory is taken.

    Raises:
        VolumeError: as :func:`size_problem` says.
    """
    if problem := size_problem(shape, voxel_bytes):
        msg = f"{where}: {'; '.join(problem)}"
        raise VolumeError(msg)


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    Attributes:
        shape: axis lengths, trailing axes of length one dropped.
        spacing: voxel size in mm as written, even if zero or negative.
        dtype: of the voxels in the file.
        affine: voxels to RAS mm, (4, 4).
        qform: affine of the NIfTI quaternion; None if it is not set (code 0) or the format has none.
        sform: affine of the NIfTI matrix, likewise.
        codes: NIfTI's codes of qform and sform; None for other formats.
        placed: whether the file says where its voxels lie.
        sized: whether it says how large they are.
        voxels_path: file of the voxels; None where it is the header's.
        packed: how the voxels are packed, a key of :data:`UNPACK`.
        packed_from: byte of that file where the packed bytes begin.
        start: unpacked bytes before the first voxel.
        slope: intensity = slope * number + inter.
        inter: intercept.
        nifti: NIfTI header as nibabel mends it, without extensions; None for other formats.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    dtype: np.dtype
    affine: Matrix
    qform: Matrix | None = None
    sform: Matrix | None = None
    codes: tuple[int, int] | None = None
    placed: bool = True
    sized: bool = True
    voxels_path: Path | None = None
    packed: str = "raw"
    packed_from: int = 0
    start: int = 0
    slope: float = 1.0
    inter: float = 0.0
    nifti: Any = None

    @property
    def conflict(self) -> str | None:
        """How qform and sform disagree, in words; None if they do not, or name different spaces."""
        qform, sform = self.qform, self.sform
        if qform is None or sform is None or self.codes is None:
            return None
        if axis_word(qform) != axis_word(sform):
            return (
                f"qform gives {axis_word(qform)}, sform {axis_word(sform)}; programs differ in which one they use, and left "
                "and right may be exchanged"
            )
        corners = np.array([[*corner, 1.0] for corner in itertools.product(*((0.0, n - 1.0) for n in self.shape[:3]))])
        apart_mm = float(np.linalg.norm(((qform - sform) @ corners.T)[:3], axis=0).max())
        if self.codes[0] != self.codes[1] or apart_mm <= SAME_PLACE_MM:
            return None
        return f"qform and sform name the same space but differ by up to {apart_mm:.0f} mm; the sform is used"


def axis_word(affine: Matrix) -> str:
    """Directions of the voxel axes, such as 'RAS'."""
    from nibabel.orientations import aff2axcodes

    return "".join(str(code) for code in aff2axcodes(affine))


def read_header(path: Path) -> Header:
    """Header of a NIfTI, MGH or NRRD file as it stands in the file; no voxels are read.

    Raises:
        VolumeError: if the file is damaged.
    """
    with _damage_named(path):
        name = path.name.lower()
        if name.endswith(NRRD_SUFFIXES):
            return Header(**read_nrrd_header(path))
        return _nifti_header(path) if name.endswith(NIFTI_SUFFIXES) else _mgh_header(path)


def read_image(path: Path) -> tuple[npt.NDArray[Any], Matrix]:
    """Voxels as they are stored, scaled to their physical intensities, and the affine to RAS mm.

    Complex numbers become their magnitude, with a warning. Conflicts of the header are warned of, or refused where
    :class:`Reading` is strict. Compressed files are read to their end, so that a wrong checksum is found.

    Raises:
        VolumeError: if the file is damaged, too large, a colour image, or does not say where its voxels lie.
    """
    header, how = read_header(path), Reading.current()
    _check_kind(path, header)
    check_size(header.shape, where=str(path))
    if header.conflict is not None:
        if how.strict:
            msg = f"{path}: {header.conflict}; convert the scan again from DICOM, or read it without --strict"
            raise VolumeError(msg)
        log.warning("%s: %s", path, header.conflict)
    affine = _affine(path, header, how)
    if header.dtype.kind == "c":
        log.warning("%s: complex numbers; their magnitude is taken", path)
    return _voxels(path, header, np.dtype(np.float32), header.slope, header.inter), affine


def read_numbers(path: Path, header: Header) -> npt.NDArray[Any]:
    """Real voxels as they are stored, not scaled.

    Raises:
        VolumeError: if the file is damaged, or its numbers do not fit in memory beside their intensities.
    """
    check_size(header.shape, where=str(path), voxel_bytes=BYTES + header.dtype.itemsize)
    return _voxels(path, header, header.dtype)


def _voxels(path: Path, header: Header, dtype: np.dtype, slope: float = 1.0, inter: float = 0.0) -> npt.NDArray[Any]:
    """Voxels in some type, a part at a time, so that no second copy of the image is in memory."""
    from nibabel.volumeutils import apply_read_scaling

    size, voxel_bytes = math.prod(header.shape), header.dtype.itemsize
    with _damage_named(path), (header.voxels_path or path).open("rb") as packed:
        packed.seek(header.packed_from)
        file = UNPACK[header.packed](packed)
        file.seek(header.start, os.SEEK_CUR)
        data = np.empty(size, dtype)
        for part in np.split(data, range(CHUNK, size, CHUNK)):
            block = file.read(part.size * voxel_bytes)
            if len(block) < part.size * voxel_bytes:
                msg = f"it ends within the {size * voxel_bytes:,} bytes of voxels that its header states"
                raise EOFError(msg)
            numbers = apply_read_scaling(np.frombuffer(block, header.dtype), np.float64(slope), np.float64(inter))
            part[:] = np.abs(numbers) if numbers.dtype.kind == "c" else numbers
        # To the end, where checksums stand.
        if header.packed != "raw" and len(file.read(AFTER_VOXELS + 1)) > AFTER_VOXELS:
            msg = f"{path}: holds more than the {size * voxel_bytes:,} bytes that its header states; {COPY_AGAIN}"
            raise VolumeError(msg)
    return data.reshape(header.shape, order="F")


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn what readers raise on damaged files, anything from EOFError to zlib.error, into one error."""
    try:
        yield
    except VolumeError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: unreadable or truncated ({reason[:200]}); {COPY_AGAIN}"
        raise VolumeError(msg) from error


def _check_kind(path: Path, header: Header) -> None:
    if header.dtype.fields is not None:
        msg = f"{path}: colour (RGB) or several values a voxel, not a scan; export the original grey-scale series"
        raise VolumeError(msg)
    if len(header.shape) != 3:
        msg = (
            f"{path}: a 3D scalar image is needed, got {len(header.shape)} axes of lengths {header.shape}; "
            "a 4D series (functional, diffusion) is not a structural scan: extract one volume first"
        )
        raise VolumeError(msg)
    if not all(math.isfinite(size) and size > 0 for size in header.spacing):
        msg = f"{path}: voxel size {header.spacing} mm is impossible; rewrite the header with the true size"
        raise VolumeError(msg)


def _affine(path: Path, header: Header, how: Reading) -> Matrix:
    """Where the voxels lie; what the file does not say has to be told."""
    if header.placed:
        return header.affine
    if not how.assume_ras or (how.spacing is None and not header.sized):
        what = "directions of its axes" if header.sized else "size of its voxels nor the directions of its axes"
        needed = "--assume-ras" if header.sized else "--spacing X Y Z (mm) and --assume-ras"
        msg = (
            f"{path}: does not state the {what}, so left and right are unknown; convert the original again, or give {needed} "
            "if you know that they are right, anterior, superior"
        )
        raise VolumeError(msg)
    sizes = np.asarray(header.spacing if how.spacing is None else how.spacing)
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -sizes * (np.asarray(header.shape) - 1) / 2  # the origin in the middle
    return affine


def _mgh_header(path: Path) -> Header:
    import nibabel

    image: Any = nibabel.load(path)
    return Header(
        shape=_trimmed(tuple(int(n) for n in image.shape)),
        spacing=tuple(float(size) for size in image.header.get_zooms()[:3]),
        dtype=image.get_data_dtype(),
        affine=_matrix(image.affine),
        packed=_packed(path),
        start=int(image.header.get_data_offset()),
    )


def _nifti_header(path: Path) -> Header:
    from nibabel import Nifti1Header, Nifti2Header

    packed = _packed(path)
    with path.open("rb") as file:
        block = UNPACK[packed](file).read(Nifti2Header.sizeof_hdr)
    kinds: tuple[Any, ...] = (Nifti1Header, Nifti2Header)
    kind = next((kind for kind in kinds if kind.may_contain_header(block)), None)
    if kind is None:
        msg = f"{path}: does not begin with a NIfTI header; {COPY_AGAIN}"
        raise VolumeError(msg)
    # As it stands in the file: nibabel turns a size of 0 into 1 and drops a sign when it mends.
    raw, mended = (kind(block[: kind.sizeof_hdr], None, check) for check in (False, True))
    start = max(int(mended.get_data_offset()), kind.single_vox_offset)
    if start > MAX_HEADER:
        msg = (
            f"{path}: header and extensions take {start:,} bytes, the limit is {MAX_HEADER:,}; convert the original again, "
            "without extensions"
        )
        raise VolumeError(msg)
    slope, inter = mended.get_slope_inter()
    shape = tuple(int(n) for n in raw["dim"][1 : 1 + min(int(raw["dim"][0]), 7)])
    codes = int(raw["qform_code"]), int(raw["sform_code"])
    unit_mm = unit_in_mm(raw)
    return Header(
        shape=_trimmed(shape),
        spacing=tuple(unit_mm * float(size) for size in raw["pixdim"][1 : 1 + min(len(shape), 3)]),
        dtype=mended.get_data_dtype(),
        affine=_matrix(mended.get_best_affine(), unit_mm),
        qform=_matrix(mended.get_qform(), unit_mm) if codes[0] > 0 else None,
        sform=_matrix(raw.get_sform(), unit_mm) if codes[1] > 0 else None,
        codes=codes,
        placed=max(codes) > 0,
        packed=packed,
        start=start,
        slope=1.0 if slope is None else float(slope),
        inter=float(inter or 0.0),
        nifti=mended,
    )


def _packed(path: Path) -> str:
    return "gzip" if path.name.lower().endswith((".gz", ".mgz")) else "raw"


def unit_in_mm(header: Any) -> float:
    """Unit of the lengths in a NIfTI header; 1 for headers of other formats, and None."""
    import nibabel

    return NIFTI_UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0) if isinstance(header, nibabel.Nifti1Header) else 1.0


def _matrix(affine: Any, unit_mm: float = 1.0) -> Matrix:
    """An affine in mm."""
    return np.diag([unit_mm] * 3 + [1.0]) @ np.asarray(affine, dtype=np.float64)


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
