"""DICOM headers (pydicom): the files of a folder by series, as plain words and numbers."""

import importlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ldae.errors import DependencyError, VolumeError

__all__ = ["Header", "Scan", "Series", "read_folder", "require"]

# The only elements that are read.
TEXT_TAGS = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType "
    "SeriesNumber SeriesDescription ProtocolName PatientID PatientName PatientBirthDate PatientSex PatientAge "
    "StudyDate StudyTime StudyID AccessionNumber StudyDescription ReferringPhysicianName ScanningSequence "
    "MRAcquisitionType EchoTime RepetitionTime InversionTime SliceThickness PatientPosition ContrastBolusAgent "
    "BurnedInAnnotation ImagesInAcquisition SamplesPerPixel PhotometricInterpretation Rows Columns NumberOfFrames "
    "PixelSpacing ImagePositionPatient"
)
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
MOST_FRAMES = 100_000
# Groups 2 and 8: what old exports begin with that lack the preamble.
BARE_STARTS = (b"\x02\x00", b"\x08\x00")


def require(package: str) -> ModuleType:
    """A package of the extra 'dicom'.

    Raises:
        DependencyError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        msg = f"DICOM needs the package {package}, which is not installed; install it with: pip install 'ldae[dicom]'"
        raise DependencyError(msg) from error


@dataclass(frozen=True)
class Header:
    """Elements of a DICOM header as text.

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
        """The values of the element as numbers; none if one of them is no number."""
        try:
            return tuple(float(value) for value in self.values.get(keyword, ()))
        except ValueError:
            return ()

    def number(self, keyword: str) -> float | None:
        """The first value of the element as a number."""
        return next(iter(self.numbers(keyword)), None)


@dataclass
class Series:
    """The images of one SeriesInstanceUID.

    Attributes:
        header: of the first file.
        files: SOPInstanceUID -> file.
        planes: of each image or frame, position (3, LPS mm), distance of rows and of columns (mm), number of rows and of
            columns; NaN where the header does not state it.
        patients: every PatientID in it.
        repeated: number of files that are exact copies of another.
    """

    header: Header
    files: dict[str, Path] = field(default_factory=dict)
    planes: list[tuple[float, ...]] = field(default_factory=list)
    patients: set[str] = field(default_factory=set)
    repeated: int = 0

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.header.text("SeriesInstanceUID")

    @property
    def name(self) -> str:
        """Number, description and identifier, for messages on the terminal; it may identify a person."""
        number = self.header.text("SeriesNumber") or "without a number"
        return f"series {number} {self.header.text('SeriesDescription')!r} ({self.uid})"


@dataclass(frozen=True)
class Scan:
    """The content of a folder.

    Attributes:
        series: all with images, in the order of their studies and numbers.
        other: files that are no DICOM images, relative to the folder -> reason.
        unreadable: DICOM files that cannot be used, relative to the folder -> reason.
    """

    series: tuple[Series, ...]
    other: Mapping[str, str]
    unreadable: Mapping[str, str]


def read_folder(
    folder: Path, progress: Callable[[int, int], None] | None = None, *, files: Sequence[Path] | None = None
) -> Scan:
    """Read the headers of the files of a folder and its subfolders, and group them by series. Pixels are not read.

    Args:
        folder: where to look.
        progress: called with the number of files read and their total.
        files: those to read, if the folder was searched already.

    Raises:
        DependencyError: if pydicom is not installed.
        VolumeError: if there is no such folder.
    """
    require("pydicom")
    if not folder.is_dir():
        msg = f"{folder}: no such folder of DICOM files; check the path"
        raise VolumeError(msg)
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if files is None else files
    series: dict[str, Series] = {}
    other: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for done, path in enumerate(paths, start=1):
        name = os.path.relpath(path, folder)
        try:
            header, planes = _read_header(path)
        except _NoImageError as reason:
            other[name] = str(reason)
        except _UnreadableError as reason:
            unreadable[name] = str(reason)
        except OSError as error:
            unreadable[name] = f"cannot be opened ({error.strerror}); check its permissions"
        else:
            _add(series.setdefault(header.text("SeriesInstanceUID"), Series(header)), header, planes, path)
        if progress is not None:
            progress(done, len(paths))
    return Scan(tuple(sorted(series.values(), key=_order)), other, unreadable)


def _order(series: Series) -> tuple[Any, ...]:
    """Patient, day and time of the study, its identifier, and number and identifier of the series."""
    texts = (series.header.text(keyword) for keyword in ("PatientID", "StudyDate", "StudyTime", "StudyInstanceUID"))
    return (*texts, series.header.number("SeriesNumber") or 0.0, series.uid)


def _add(series: Series, header: Header, planes: list[tuple[float, ...]], path: Path) -> None:
    instance = header.text("SOPInstanceUID") or str(path)
    former = series.files.get(instance)
    if former is not None and former.read_bytes() == path.read_bytes():
        series.repeated += 1
        return
    # Two files with one identifier and other content: both planes count, so that the series is refused.
    series.files[instance] = path
    series.patients.add(header.text("PatientID"))
    series.planes += planes


class _NoImageError(Exception):
    """A file that is no DICOM image, and need not be one."""


class _UnreadableError(Exception):
    """A DICOM file that cannot be used."""


class _BoundedFile(io.BufferedReader):
    """A file of which no more is read than it holds: a damaged length would else take as much memory as it states."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes."""
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


def _read_header(path: Path) -> tuple[Header, list[tuple[float, ...]]]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    with warnings.catch_warnings(), _BoundedFile(path.open("rb", buffering=0)) as file:
        # Odd values of elements that are not used; those that are used are checked here.
        warnings.simplefilter("ignore")
        try:
            bare = file.read(2) in BARE_STARTS
            file.seek(0)
            tags = [*TEXT_TAGS.split(), SHARED, PER_FRAME]
            dataset = pydicom.dcmread(file, force=bare, stop_before_pixels=True, specific_tags=tags)
            header = Header(dict(_texts(dataset)))
            kind = str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) or header.text("SOPClassUID")
        except InvalidDicomError as error:
            raise _NoImageError("not a DICOM file") from error
        except Exception as error:  # the reader raises anything from EOFError to struct.error on damaged files
            raise _UnreadableError("unreadable or truncated; copy it again") from error
        if "Rows" not in dataset:
            if kind and kind not in (MR_IMAGE, ENHANCED_MR_IMAGE):
                raise _NoImageError("DICOM without an image")
            raise _UnreadableError("the header ends before its image; copy it again")
        if not header.text("SeriesInstanceUID"):
            raise _UnreadableError("no SeriesInstanceUID, so it belongs to no series")
        try:
            return header, list(_planes(dataset, header))
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise _UnreadableError("sizes or functional groups that make no sense; export it again") from error


def _texts(dataset: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for keyword in TEXT_TAGS.split():
        try:
            value = dataset.get(keyword)
        except (ValueError, LookupError, TypeError, OverflowError):
            continue
        values = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
        texts = tuple(str(item).strip(" \0") for item in values if item is not None)
        if any(texts):
            yield keyword, texts


def _planes(dataset: Any, header: Header) -> Iterator[tuple[float, ...]]:
    """The entries of :attr:`Series.planes` of a file."""
    count = int(header.number("NumberOfFrames") or 1)
    if not 0 < count <= MOST_FRAMES:
        raise ValueError
    size = float(header.text("Rows")), float(header.text("Columns"))
    places: list[tuple[Any, Any]] = [((), ())] * count
    if frames := dataset.get(PER_FRAME):
        groups = [(frame, *(dataset.get(SHARED) or ())) for frame in frames]
        positions = (_functional(each, "PlanePositionSequence", "ImagePositionPatient") for each in groups)
        spacings = (_functional(each, "PixelMeasuresSequence", "PixelSpacing") for each in groups)
        places = list(zip(positions, spacings, strict=True))
    elif count == 1:
        places = [(header.numbers("ImagePositionPatient"), header.numbers("PixelSpacing"))]
    for position, spacing in places:
        yield (*_exactly(3, position), *_exactly(2, spacing), *size)


def _exactly(count: int, values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values or ())
    return numbers if len(numbers) == count else (np.nan,) * count


def _functional(groups: Sequence[Any], sequence: str, keyword: str) -> Any:
    """An element of a frame's functional groups, or of those that all frames share."""
    return next((group[sequence][0].get(keyword) for group in groups if group.get(sequence)), None)
