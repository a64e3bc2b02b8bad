"""DICOM headers: which files of a folder hold images of which series, as plain words and numbers."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ldae.errors import DependencyError, VolumeError

__all__ = ["Header", "Scan", "Series", "Slice", "read_folder", "require_pydicom"]

# Only these elements are ever read. Of the ones that name a person or a day, `ldae.prepare.imports.dicom.people` makes labels,
# ages and months; none is copied.
TEXT_TAGS = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType "
    "SeriesNumber SeriesDescription ProtocolName SequenceName SeriesDate SeriesTime AcquisitionTime "
    "PatientID PatientName PatientBirthDate PatientSex PatientAge StudyDate StudyTime StudyID AccessionNumber "
    "StudyDescription ReferringPhysicianName Manufacturer ManufacturerModelName MagneticFieldStrength ScanningSequence "
    "SequenceVariant MRAcquisitionType EchoTime RepetitionTime InversionTime FlipAngle SliceThickness "
    "SpacingBetweenSlices PixelBandwidth EchoTrainLength PercentSampling PercentPhaseFieldOfView PatientPosition "
    "ContrastBolusAgent BurnedInAnnotation ImagesInAcquisition SamplesPerPixel PhotometricInterpretation "
    "Rows Columns NumberOfFrames BitsAllocated PixelSpacing ImagePositionPatient ImageOrientationPatient"
)
SEQUENCES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
# Groups 2 and 8, which old exports begin with, without the preamble that the standard asks for.
BARE_STARTS = (b"\x02\x00", b"\x08\x00")
SEQUENCE_END = b"\xfe\xff\xdd\xe0"


def require_pydicom() -> ModuleType:
    """The package that reads DICOM headers.

    Raises:
        DependencyError: if it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        msg = "DICOM needs the package pydicom, which is not installed; install it with: pip install 'ldae[dicom]'"
        raise DependencyError(msg) from error
    return pydicom


@dataclass(frozen=True)
class Header:
    """What a DICOM header says of a series, as text.

    Attributes:
        values: keyword of an element -> its values; empty ones are left out.
    """

    values: Mapping[str, tuple[str, ...]]

    def text(self, keyword: str) -> str:
        """The element as one text; empty where it is missing."""
        return "\\".join(self.values.get(keyword, ()))

    def words(self, keyword: str) -> tuple[str, ...]:
        """The values of the element in upper case."""
        return tuple(value.upper() for value in self.values.get(keyword, ()))

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """The values of the element as numbers; nothing where one is not a number."""
        try:
            return tuple(float(value) for value in self.values.get(keyword, ()))
        except ValueError:
            return ()

    def number(self, keyword: str) -> float | None:
        """The first value of the element as a number."""
        return next(iter(self.numbers(keyword)), None)


@dataclass(frozen=True, slots=True)
class Slice:
    """One plane of a series.

    Attributes:
        path: the file.
        frame: of the file, from 0.
        position: of the first voxel's centre, LPS mm; None if the header does not say.
        orientation: direction of a row, then of a column, LPS; None if the header does not say.
        spacing: distance of rows, then of columns, in mm.
        size: number of rows and of columns.
        echo_time: in ms.
        rescaling: slope and intercept of a frame of a multi-frame file; None where the decoder finds them itself.
    """

    path: Path
    frame: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    size: tuple[int, int]
    echo_time: float | None
    rescaling: tuple[float, ...] | None = None


@dataclass
class Series:
    """The images of one SeriesInstanceUID.

    Attributes:
        header: of the first file.
        slices: in the order of the files.
        patients: every PatientID that stands in it.
        files: identifier of each image -> its file.
        broken: files that end before their pixels do.
        repeated: number of files that are exact copies of another.
    """

    header: Header
    slices: list[Slice] = field(default_factory=list)
    patients: set[str] = field(default_factory=set)
    files: dict[str, Path] = field(default_factory=dict)
    broken: list[Path] = field(default_factory=list)
    repeated: int = 0

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.header.text("SeriesInstanceUID")

    @property
    def name(self) -> str:
        """Number, description and identifier, for messages on the terminal; it may name a person."""
        number = self.header.text("SeriesNumber") or "without a number"
        return f"series {number} {self.header.text('SeriesDescription')!r} ({self.uid})"

    @property
    def multiframe(self) -> bool:
        """Whether the planes are frames of a file."""
        return any(plane.frame for plane in self.slices)


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Attributes:
        series: all with images, in the order of their studies and numbers.
        other: files that are no DICOM images -> why, relative to the folder.
        unreadable: DICOM files that cannot be used -> why, relative to the folder.
    """

    series: tuple[Series, ...]
    other: Mapping[str, str]
    unreadable: Mapping[str, str]


def read_folder(
    folder: Path, progress: Callable[[int, int], None] | None = None, *, files: Sequence[Path] | None = None
) -> Scan:
    """Read the headers of all files of a folder and its subfolders, and group them by series.

    Unless the files are given, links are followed, and a folder that is reached twice is read once. Pixels are not read.

    Args:
        folder: where to look.
        progress: called with the number of files read and their total.
        files: what to read of the folder, where it was searched already.

    Raises:
        DependencyError: if pydicom is not installed.
        VolumeError: if there is no such folder.
    """
    require_pydicom()
    if not folder.is_dir():
        msg = f"{folder}: no such folder of DICOM files; check the path"
        raise VolumeError(msg)
    paths = list(_files(folder) if files is None else files)
    series: dict[str, Series] = {}
    other: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for done, path in enumerate(paths, start=1):
        name = os.path.relpath(path, folder)
        try:
            header, planes, complete = _read_header(path)
        except _NoImageError as reason:
            other[name] = str(reason)
        except _UnreadableError as reason:
            unreadable[name] = str(reason)
        except OSError as error:
            unreadable[name] = f"cannot be opened ({error.strerror}); check its permissions"
        else:
            _add(series.setdefault(header.text("SeriesInstanceUID"), Series(header)), header, planes, path, complete)
        if progress is not None:
            progress(done, len(paths))
    return Scan(tuple(sorted(series.values(), key=_order)), other, unreadable)


def _order(series: Series) -> tuple[str, str, str, float, str]:
    header = series.header
    return (
        header.text("PatientID"),
        header.text("StudyDate") + header.text("StudyTime"),
        header.text("StudyInstanceUID"),
        header.number("SeriesNumber") or 0.0,
        series.uid,
    )


def _files(folder: Path) -> Iterator[Path]:
    seen = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, followlinks=True):
        fresh = []
        for name in sorted(folders):
            real = os.path.realpath(Path(place, name))
            if real not in seen:
                seen.add(real)
                fresh.append(name)
        folders[:] = fresh
        yield from (path for path in (Path(place, name) for name in sorted(names)) if path.is_file())


def _add(series: Series, header: Header, planes: list[Slice], path: Path, complete: bool) -> None:
    instance = header.text("SOPInstanceUID")
    former = series.files.get(instance)
    if instance and former is not None and former.read_bytes() == path.read_bytes():
        series.repeated += 1
        return
    series.files[instance] = path
    series.patients.add(header.text("PatientID"))
    series.slices += planes
    if not complete:
        series.broken.append(path)


class _NoImageError(Exception):
    """A file that is no DICOM image, and need not be one."""


class _UnreadableError(Exception):
    """A DICOM file that cannot be used."""


def _read_header(path: Path) -> tuple[Header, list[Slice], bool]:
    """Header, planes, and whether the pixels are all there."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    with warnings.catch_warnings(), path.open("rb") as file:
        # Odd values in elements of no interest; those that are used are checked here.
        warnings.simplefilter("ignore")
        try:
            bare = file.read(2) in BARE_STARTS
            file.seek(0)
            dataset = pydicom.dcmread(
                file, force=bare, stop_before_pixels=True, specific_tags=[*TEXT_TAGS.split(), *SEQUENCES]
            )
            offset = file.tell()
            header = Header(dict(_texts(dataset)))
        except InvalidDicomError as error:
            reason = "not a DICOM file"
            raise _NoImageError(reason) from error
        except Exception as error:  # the reader raises anything from EOFError to struct.error on damaged files
            reason = "unreadable or truncated; copy it again"
            raise _UnreadableError(reason) from error
        kind = str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) or header.text("SOPClassUID")
        if "Rows" not in dataset:
            if kind and kind not in (MR_IMAGE, ENHANCED_MR_IMAGE):
                reason = "DICOM without an image"
                raise _NoImageError(reason)
            reason = "the header ends before its image; copy it again"
            raise _UnreadableError(reason)
        if not header.text("SeriesInstanceUID"):
            reason = "no SeriesInstanceUID, so it belongs to no series"
            raise _UnreadableError(reason)
        try:
            planes = _planes(dataset, header, path)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            reason = "sizes or functional groups that make no sense; export it again"
            raise _UnreadableError(reason) from error
        return header, planes, _is_complete(dataset, path, offset)


def _texts(dataset: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for keyword in TEXT_TAGS.split():
        if keyword not in dataset:
            continue
        try:
            value = dataset[keyword].value
        except (ValueError, LookupError, TypeError, OverflowError):
            continue
        values = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
        texts = tuple(str(item).strip(" \0") for item in values if item is not None)
        if any(texts):
            yield keyword, texts


def _planes(dataset: Any, header: Header, path: Path) -> list[Slice]:
    size = (int(header.text("Rows")), int(header.text("Columns")))
    frames = int(header.number("NumberOfFrames") or 1)
    if SEQUENCES[1] not in dataset:
        plane = Slice(
            path,
            0,
            header.numbers("ImagePositionPatient") or None,
            header.numbers("ImageOrientationPatient") or None,
            header.numbers("PixelSpacing") or None,
            size,
            header.number("EchoTime"),
        )
        # Frames without positions: kept, so that whoever reads the series sees that they have none.
        return [plane] if frames == 1 else [Slice(path, i, None, None, None, size, None) for i in range(frames)]
    shared = dataset[SEQUENCES[0]][0] if SEQUENCES[0] in dataset and len(dataset[SEQUENCES[0]].value) else None
    planes = []
    for i, group in enumerate(dataset[SEQUENCES[1]]):
        place = (
            _functional(group, shared, "PlanePositionSequence", "ImagePositionPatient"),
            _functional(group, shared, "PlaneOrientationSequence", "ImageOrientationPatient"),
            _functional(group, shared, "PixelMeasuresSequence", "PixelSpacing"),
        )
        echo = _functional(group, shared, "MREchoSequence", "EffectiveEchoTime")
        slope, intercept = (
            _functional(group, shared, "PixelValueTransformationSequence", keyword)
            for keyword in ("RescaleSlope", "RescaleIntercept")
        )
        planes.append(
            Slice(path, i, *place, size, echo[0] if echo else None, (*(slope or (1.0,)), *(intercept or (0.0,))))
        )
    if len(planes) != frames:
        msg = f"{frames} frames, but functional groups of {len(planes)}"
        raise ValueError(msg)
    return planes


def _functional(group: Any, shared: Any, sequence: str, keyword: str) -> tuple[float, ...] | None:
    """An element of a frame's functional groups, or of those that all frames share."""
    for place in (group, shared):
        if place is not None and sequence in place and len(place[sequence].value):
            value = place[sequence][0].get(keyword)
            if value is not None:
                items = value if hasattr(value, "__iter__") else [value]
                return tuple(float(item) for item in items)
    return None


def _is_complete(dataset: Any, path: Path, offset: int) -> bool:
    """Whether the file holds as many bytes of pixels as its header promises."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    size = path.stat().st_size
    if syntax is not None and syntax.is_valid and syntax.is_compressed:
        if syntax == DEFLATED:
            return True  # inflated as a whole while the header was read
        with path.open("rb") as file:
            file.seek(max(offset, size - 4096))
            return SEQUENCE_END in file.read()
    voxels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
    # Allowing for the 8 bytes of the element's own tag and length, the shortest there are.
    promised = voxels * int(dataset.get("SamplesPerPixel") or 1) * int(dataset.get("BitsAllocated") or 16) // 8
    return size - offset >= promised + 8
