"""A volume as a DICOM MR series that says on every image that it is synthetic."""

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.base.files import atomic_folder, check_new_folder, read_json
from ldae.dicom.headers import MR_IMAGE, Header, read_folder, require
from ldae.dicom.read import convert_series
from ldae.errors import VolumeError
from ldae.image_files import LPS_TO_RAS
from ldae.io.notice import SYNTHETIC
from ldae.io.version import __version__
from ldae.volume import Grid, Volume, read_volume, sidecar_path

__all__ = ["DerivedSeries", "export_dicom", "write_dicom_series"]

MAX_STORED = 65535
PATIENT_ID = re.compile(r"[^\\\x00-\x1f]{1,64}")
SERIES_NUMBER_OFFSET = 9000
LONGEST_DESCRIPTION = 64  # of the value representation LO
# What ties the series to the reference's person and study.
PERSON_AND_STUDY = (
    "PatientID PatientName PatientBirthDate PatientSex PatientAge StudyInstanceUID StudyDate StudyTime StudyID "
    "AccessionNumber StudyDescription ReferringPhysicianName"
)
EMPTY = (
    "PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName "
    "PositionReferenceIndicator ScanOptions EchoTime EchoTrainLength RepetitionTime PatientPosition"
)


@dataclass(frozen=True)
class DerivedSeries:
    """The labels of a derived series.

    Attributes:
        patient_id: PatientID; the reference's if not given, or 'SYNTHETIC' without one. Given together with a
            reference, only the frame of reference is shared, and the study is a new one.
        description: follows the notice in SeriesDescription, cut to what fits in.
        derivation: how the image was made.
        reference: folder of the series that the image was made from, or that lies in the same space.
    """

    patient_id: str | None = None
    description: str = ""
    derivation: str = "image made by a latent diffusion autoencoder"
    reference: Path | None = None


def export_dicom(image: Path, out: Path, series: DerivedSeries | None = None, *, force: bool = False) -> Path:
    """Write an image file as a derived DICOM series; see :func:`write_dicom_series`.

    The kind in the image's side-car (an edit, a reconstruction) goes into the derivation.

    Raises:
        VolumeError: if the image cannot be read, or lies in another space than the reference.
    """
    series = series or DerivedSeries()
    space = re.search(r"_space-([A-Za-z0-9]+)", image.name)
    if series.reference is not None and space is not None and space[1] not in ("native", "orig", "individual"):
        msg = (
            f"{image}: its name says that it lies in the space of {space[1]}, so it would not overlay the reference; "
            "export the image in native space, or leave out --like"
        )
        raise VolumeError(msg)
    try:
        kind = read_json(sidecar_path(image)).get("kind")
    except (FileNotFoundError, IsADirectoryError, ValueError, AttributeError):  # there is none, or it is not ours
        kind = None
    if isinstance(kind, str):
        series = replace(series, derivation=f"{kind}: {series.derivation}")
    return write_dicom_series(read_volume(image), out, series, force=force)


def write_dicom_series(volume: Volume, out: Path, series: DerivedSeries, *, force: bool = False) -> Path:
    """Write a volume as one file a plane of its third axis, 16 bits a voxel.

    Whole numbers from 0 to 65535 are stored as they are; other intensities are spread over 16 bits, with the rescale
    slope and intercept that bring them back to within half a step.

    Args:
        volume: any orientation; the grid may be oblique, but not sheared.
        out: new folder of the series; it appears when all is written.
        series: its labels.
        force: replace a series that was written before.

    Raises:
        OutputError: if `out` holds something else.
        VolumeError: if the grid is sheared, the reference has no series or several, or the patient's identifier is not one.
        DependencyError: if pydicom is not installed.
    """
    pydicom = require("pydicom")
    check_new_folder(out, force=force, sign="IMG*.dcm", text=SYNTHETIC.encode())
    if series.patient_id is not None and not PATIENT_ID.fullmatch(series.patient_id):
        msg = f"a PatientID has 1 to 64 characters without a backslash, got {series.patient_id!r}; choose another"
        raise VolumeError(msg)
    place = _place(volume.grid)
    stored, slope, intercept = _quantise(volume.data)
    reference = None if series.reference is None else _reference(series.reference, volume.grid)
    with warnings.catch_warnings(), atomic_folder(out) as folder:
        # What the reference says of its person is repeated as it is, even where it is not quite by the standard.
        warnings.simplefilter("ignore")
        common = _common(series, reference, place, volume)
        common.RescaleSlope, common.RescaleIntercept = _decimal(slope), _decimal(intercept)
        for i in range(stored.shape[2]):
            common.SOPInstanceUID = common.file_meta.MediaStorageSOPInstanceUID = _new_uid()
            common.InstanceNumber = i + 1
            common.ImagePositionPatient = [_decimal(value) for value in place[:3, 3] + i * place[:3, 2]]
            # A row of the image runs along the volume's first axis.
            common.PixelData = stored[:, :, i].T.astype("<u2").tobytes()
            pydicom.dcmwrite(folder / f"IMG{i + 1:04d}.dcm", common, enforce_file_format=True)
    return out


def _place(grid: Grid) -> npt.NDArray[np.float64]:
    """Voxel indices to LPS millimetres, (4, 4), of a grid whose axes are perpendicular."""
    lps = LPS_TO_RAS @ grid.affine
    axes = lps[:3, :3] / grid.spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        msg = "the axes of its grid are not perpendicular, which DICOM cannot say; resample the image first"
        raise VolumeError(msg)
    return lps


def _quantise(data: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint16], float, float]:
    values = data.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= MAX_STORED and np.array_equal(values, np.rint(values)):
        return values.astype(np.uint16), 1.0, 0.0
    slope = (high - low) / MAX_STORED or 1.0
    return np.rint((values - low) / slope).astype(np.uint16), slope, low


def _reference(folder: Path, grid: Grid) -> Header:
    found = read_folder(folder).series
    if len(found) != 1:
        names = "; ".join(series.name for series in found[:3])
        msg = (
            f"{folder}: the reference must be the folder of one DICOM series, got {len(found)}"
            f"{f' ({names})' if names else ''}; choose the folder of the series that the image was made from"
        )
        raise VolumeError(msg)
    header = found[0].header
    if not header.text("FrameOfReferenceUID"):
        msg = f"{folder}: the reference has no frame of reference to share; leave out --like"
        raise VolumeError(msg)
    try:
        reference = convert_series(found[0]).volume.grid
    except VolumeError:
        return header  # it need not make a volume to share its frame of reference
    middle = np.linalg.inv(reference.affine) @ grid.affine @ [*((np.array(grid.shape) - 1) / 2), 1.0]
    if not ((middle[:3] >= -0.5) & (middle[:3] <= np.array(reference.shape) - 0.5)).all():
        msg = (
            f"{folder}: the middle of the image is outside the reference's field of view; export the image in the "
            "reference's space, or leave out --like"
        )
        raise VolumeError(msg)
    return header


def _common(series: DerivedSeries, reference: Header | None, place: npt.NDArray[np.float64], volume: Volume) -> Any:
    """Everything that all planes share."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MR_IMAGE
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.Modality = MR_IMAGE, "MR"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    for keyword in EMPTY.split():
        setattr(dataset, keyword, None)
    dataset.PatientID = dataset.PatientName = series.patient_id or "SYNTHETIC"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _new_uid(), _new_uid()
    dataset.FrameOfReferenceUID = _new_uid()
    number = 0
    if reference is not None:
        dataset.FrameOfReferenceUID = reference.text("FrameOfReferenceUID")
        dataset.PatientPosition = reference.text("PatientPosition") or None
        number = int(reference.number("SeriesNumber") or 0)
        if series.patient_id is None:
            for keyword in PERSON_AND_STUDY.split():
                if reference.text(keyword):
                    setattr(dataset, keyword, reference.text(keyword))
    # Behind what the scanner counts; IS holds no more than 12 characters.
    dataset.SeriesNumber = (number + SERIES_NUMBER_OFFSET) % 10**9
    text = f"{SYNTHETIC}: {series.description}" if series.description else SYNTHETIC
    dataset.SeriesDescription = text.replace("\\", "/")[:LONGEST_DESCRIPTION]
    dataset.DerivationDescription = f"{SYNTHETIC}. ldae {__version__}: {series.derivation}"[:1024]
    dataset.ImageComments, dataset.BodyPartExamined = SYNTHETIC, "BRAIN"
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.SoftwareVersions = "ldae", "ldae", __version__
    # A research sequence: no scanner played one.
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.MRAcquisitionType = "RM", "NONE", "3D"
    x, y, z = volume.spacing
    dataset.PixelSpacing = [_decimal(y), _decimal(x)]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = _decimal(z)
    directions = place[:3, :2] / np.array([x, y])
    dataset.ImageOrientationPatient = [_decimal(value) for value in directions.T.ravel()]
    dataset.Columns, dataset.Rows = volume.data.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    low, high = float(volume.data.min()), float(volume.data.max())
    # Exact, because LINEAR leaves half a unit out at either end, which is much of an image in [0, 1].
    dataset.WindowCenter, dataset.WindowWidth = _decimal((low + high) / 2), _decimal(max(high - low, 1.0))
    dataset.VOILUTFunction, dataset.RescaleType = "LINEAR_EXACT", "US"
    return dataset


def _new_uid() -> str:
    from pydicom.uid import generate_uid

    # Without a prefix, a UID comes from random bits and belongs to no organisation.
    return str(generate_uid(prefix=None))


def _decimal(value: float) -> str:
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))
