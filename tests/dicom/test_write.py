"""Derived DICOM series: marks, identifiers, geometry and the round trip."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ldae.dicom.write import PERSON_AND_STUDY, DerivedSeries, export_dicom, write_dicom_series
from ldae.errors import VolumeError
from ldae.io.notice import SYNTHETIC
from ldae.volume import Volume, write_volume
from tests.command_line import run
from tests.dicom_series import assert_same, read_only

pydicom = pytest.importorskip("pydicom")


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.0013, -0.4), (3e5, -1e6), (0.0, 0.25)])
def test_the_round_trip_loses_half_a_step(tmp_path: Path, blob: Volume, scale: float, shift: float) -> None:
    volume = Volume(blob.data * scale + shift, blob.affine)
    write_dicom_series(volume, tmp_path / "out", DerivedSeries())
    step = 0.0 if scale == 1 else float(np.ptp(volume.data)) / 65535
    assert_same(read_only(tmp_path / "out"), volume, step * 0.51 + float(np.abs(volume.data).max()) * 1e-6)


def test_simpleitk_reads_the_same(tmp_path: Path, blob: Volume) -> None:
    import SimpleITK as sitk

    write_dicom_series(blob, tmp_path / "out", DerivedSeries())
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "out")))
    image = reader.Execute()
    for index in ((0, 0, 0), (7, 3, 9), (8, 10, 11)):
        world = blob.affine[:3, :3] @ index + blob.affine[:3, 3]
        place = image.TransformPhysicalPointToIndex((np.array([-1, -1, 1]) * world).tolist())
        assert image[place] == blob.data[index]


def test_every_file_says_what_it_is(tmp_path: Path, blob: Volume) -> None:
    write_dicom_series(blob, tmp_path / "out", DerivedSeries(description="x" * 99, derivation="an edit"))
    images = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    assert len(images) == 12
    for image in images:
        assert list(image.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert image.SeriesDescription.startswith(SYNTHETIC)
        assert len(image.SeriesDescription) == 64
        assert "an edit" in image.DerivationDescription
        assert (image.BurnedInAnnotation, image.PatientID, image.Modality) == ("NO", "SYNTHETIC", "MR")
    assert len({image.SOPInstanceUID for image in images}) == 12
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({image[keyword].value for image in images}) == 1
    write_dicom_series(blob, tmp_path / "again", DerivedSeries())
    again = pydicom.dcmread(tmp_path / "again" / "IMG0001.dcm")
    assert again.SeriesInstanceUID != images[0].SeriesInstanceUID
    assert again.StudyInstanceUID != images[0].StudyInstanceUID


def test_a_reference_gives_person_study_and_frame(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    original = pydicom.dcmread(make_dicom(tmp_path / "reference")[0])
    write_dicom_series(blob, tmp_path / "out", DerivedSeries(reference=tmp_path / "reference"))
    image = pydicom.dcmread(tmp_path / "out" / "IMG0001.dcm")
    person = ("PatientID", "PatientName", "PatientBirthDate")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", *person):
        assert image[keyword].value == original[keyword].value
    assert image.SeriesInstanceUID != original.SeriesInstanceUID
    assert image.SeriesNumber == 9003
    assert_same(read_only(tmp_path / "out"), read_only(tmp_path / "reference"), 0.01)

    other = DerivedSeries(reference=tmp_path / "reference", patient_id="anonymous")
    write_dicom_series(blob, tmp_path / "other", other)
    image = pydicom.dcmread(tmp_path / "other" / "IMG0001.dcm")
    assert image.FrameOfReferenceUID == original.FrameOfReferenceUID
    assert image.StudyInstanceUID != original.StudyInstanceUID
    assert (image.PatientID, image.PatientName, image.PatientBirthDate) == ("anonymous", "anonymous", "")


@pytest.mark.parametrize(("patient", "kept"), [(None, set(PERSON_AND_STUDY.split())), ("anonymous", set())])
def test_no_element_holds_more_of_the_reference_than_it_may(
    tmp_path: Path, make_dicom: Callable, blob: Volume, patient: str | None, kept: set[str]
) -> None:
    secret = "Secret^Person"
    names = (
        "PatientName ReferringPhysicianName InstitutionName OperatorsName StationName PatientAddress StudyDescription"
    )
    texts = dict.fromkeys(f"{names} SeriesDescription ProtocolName PatientComments ImageComments".split(), secret)
    for path in make_dicom(tmp_path / "reference", **texts, BurnedInAnnotation="NO"):
        image = pydicom.dcmread(path)
        image.private_block(0x0029, "A maker", create=True).add_new(0x10, "LO", secret)
        image.add_new((0x6000, 0x0022), "LO", secret)  # of an overlay
        image.save_as(path)
    labels = DerivedSeries(reference=tmp_path / "reference", patient_id=patient)
    write_dicom_series(blob, tmp_path / "out", labels)
    for path in (tmp_path / "out").iterdir():
        for element in pydicom.dcmread(path).iterall():
            assert not element.tag.is_private
            assert element.tag.group not in range(0x6000, 0x6100)
            assert secret not in str(element.value) or element.keyword in kept, element.keyword


def test_references_that_do_not_fit(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    make_dicom(tmp_path / "two" / "a")
    make_dicom(tmp_path / "two" / "b")
    (tmp_path / "none").mkdir()
    far = np.array(blob.affine)
    far[:3, 3] += 500
    for volume, folder, words in (
        (blob, "two", "one DICOM series, got 2"),
        (blob, "none", "one DICOM series, got 0"),
        (Volume(blob.data, far), "two/a", "outside the reference's field of view"),
    ):
        with pytest.raises(VolumeError, match=words):
            write_dicom_series(volume, tmp_path / "out", DerivedSeries(reference=tmp_path / folder))
        assert not (tmp_path / "out").exists()


def test_an_image_in_template_space_is_not_laid_over_a_scan(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    make_dicom(tmp_path / "reference")
    image = write_volume(blob, tmp_path / "sub-1_space-MNI152_T1w.nii.gz")
    with pytest.raises(VolumeError, match="space of MNI152"):
        export_dicom(image, tmp_path / "out", DerivedSeries(reference=tmp_path / "reference"))
    export_dicom(image, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 12


@pytest.mark.filterwarnings("error")
def test_odd_values_of_the_reference_are_repeated_silently(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    with pytest.warns(UserWarning, match="Invalid value"):
        make_dicom(tmp_path / "reference", PatientAge="88")
    write_dicom_series(blob, tmp_path / "out", DerivedSeries(reference=tmp_path / "reference"))
    assert pydicom.dcmread(tmp_path / "out" / "IMG0001.dcm").PatientAge == "88"


def test_identifiers_that_are_none_and_sheared_grids_are_refused(tmp_path: Path, blob: Volume) -> None:
    for patient in ("", "a\\b", "x" * 65):
        with pytest.raises(VolumeError, match="1 to 64 characters"):
            write_dicom_series(blob, tmp_path / "out", DerivedSeries(patient_id=patient))
    affine = np.array(blob.affine)
    affine[:3, 2] += 0.3 * affine[:3, 0]
    with pytest.raises(VolumeError, match="not perpendicular"):
        write_dicom_series(Volume(blob.data, affine), tmp_path / "out", DerivedSeries())


def test_the_command(tmp_path: Path, blob: Volume, capsys: pytest.CaptureFixture) -> None:
    image = write_volume(blob, tmp_path / "my edit é.nii.gz")
    (tmp_path / "my edit é.json").write_text(json.dumps({"kind": "manipulation"}))
    out = tmp_path / "out"
    assert run("export", "dicom", image, "--out", out, "--patient-id", "P1", "--description", "plus one SD") == 0
    assert "12 images, marked as synthetic" in capsys.readouterr().out
    first = pydicom.dcmread(out / "IMG0001.dcm")
    assert first.SeriesDescription == "SYNTHETIC, not for diagnosis: plus one SD"
    assert "manipulation" in first.DerivationDescription
    # Back through the import, which takes derived images only when asked to.
    assert run("cohort", "import", "dicom", out, "--out", tmp_path / "back") == 2
    assert run("cohort", "import", "dicom", out, "--out", tmp_path / "back", "--include-derived") == 0
    assert run("export", "dicom", image, "--out", out) == 2
    assert run("export", "dicom", image, "--out", out, "--force") == 0
    assert "there is something already" in capsys.readouterr().err
