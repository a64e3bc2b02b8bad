"""Import of DICOM folders: what is taken, what people are called, and that nothing identifying comes through."""

import gzip
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ldae.data.manifest import read_manifest
from ldae.errors import CohortError
from ldae.prepare.imports.dicom.dataset import DicomOptions, DicomReport, import_dicom
from ldae.volume import Volume, read_volume
from tests import command_line
from tests.dicom_series import assert_same

pydicom = pytest.importorskip("pydicom")
T1W = "sub-0001/ses-01/anat/sub-0001_ses-01_T1w.nii.gz"


def reasons(report: DicomReport) -> dict[str, str]:
    """Description of each series -> what became of it."""
    return {each.name.split("'")[1]: f"{each.outcome}: {each.reason}".rstrip(": ") for each in report.series}


run = partial(command_line.run, "cohort", "import", "dicom")


@pytest.fixture
def visits(make_dicom: Callable) -> Callable:
    """Writes visits of one person: folder, patient, dates."""

    def make(folder: Path, patient: str, *dates: str, **elements: object) -> None:
        for number, date in enumerate(dates):
            make_dicom(folder / patient / str(number), PatientID=patient, StudyDate=date, **elements)

    return make


def test_a_scan_becomes_bids_with_a_manifest(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    make_dicom(tmp_path / "in put é")
    report = import_dicom(tmp_path / "in put é", tmp_path / "cohört 1")
    (record,) = read_manifest(report.manifest).records
    assert record.image == tmp_path / "cohört 1" / T1W
    assert (record.participant_id, record.session_id, record.age, record.sex) == ("sub-0001", "ses-01", 70.0, "F")
    assert record.months == 0
    assert_same(read_volume(record.image), blob)
    facts = json.loads(record.image.with_name(record.image.name.replace(".nii.gz", ".json")).read_text())
    assert facts == {
        "Modality": "MR",
        "EchoTime": 0.00298,
        "RepetitionTime": 2.3,
        "InversionTime": 0.9,
        "SliceThickness": 3.0,
        "MRAcquisitionType": "3D",
        "ScanningSequence": "GR_IR",
    }
    people = pd.read_csv(tmp_path / "cohört 1" / "participants.tsv", sep="\t")
    assert people.to_dict("records") == [{"participant_id": "sub-0001", "age": 70.0, "sex": "F"}]


def plant(dataset: "pydicom.Dataset", marker: str) -> int:
    """Put a marker into every text element that DICOM knows, known ones of the vendors, and nested ones."""
    from pydicom.datadict import DicomDictionary
    from pydicom.tag import Tag

    keep = {"TransferSyntaxUID", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"}
    keep |= {"ImageType", "SpecificCharacterSet", "PhotometricInterpretation", "BurnedInAnnotation"}
    keep |= {"SeriesDescription", "ContrastBolusAgent", "ScanningSequence", "MRAcquisitionType", "FrameOfReferenceUID"}
    texts = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "AS", "DA", "DT", "TM"}
    planted = 0
    for number, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
        tag = Tag(number)
        if vr not in texts or retired or tag.group in (0, 2, 4) or keyword in keep or not keyword:
            continue
        dataset.add_new(tag, vr, [marker] * 2 if multiplicity == "2" else marker)
        planted += 1
    item = pydicom.Dataset()
    item.PatientName, item.TextValue = marker, marker
    dataset.ReferencedStudySequence = dataset.RequestAttributesSequence = [item]
    block = dataset.private_block(0x29, marker, create=True)
    block.add_new(0x10, "UN", marker.encode() * 3)
    block.add_new(0x11, "LT", marker)
    block.add_new(0x12, "SQ", [item])
    dataset.SeriesDescription = f"MPRAGE {marker}"
    dataset.ScanningSequence = ["GR", "IR", marker]
    dataset.FrameOfReferenceUID = "1.2.3.987654321987"
    dataset.AccessionNumber = "987654321987"
    return planted


def all_bytes(folder: Path) -> dict[str, bytes]:
    """Name and content of every file, unpacked where it is packed."""
    contents = {}
    for path in folder.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            unpacked = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else b""
            contents[str(path.relative_to(folder))] = raw + unpacked
    return contents


@pytest.mark.filterwarnings("ignore")
def test_nothing_identifying_comes_through(tmp_path: Path, make_dicom: Callable) -> None:
    marker = "Zanzibar^Quux"
    folder = tmp_path / "Zanzibar" / "Quux 19500301"
    paths = make_dicom(folder)
    for path in paths:
        image = pydicom.dcmread(path)
        assert plant(image, marker) > 1000
        image.PatientBirthDate, image.StudyDate, image.PatientSex = "19500301", "20200315", "F"
        image.PatientID, image.Manufacturer = "987654321987", f"SIEMENS {marker}"
        pydicom.dcmwrite(path, image, enforce_file_format=True)
    # A second series that is refused, one that is skipped, and a file that is broken, all with the marker.
    elements = {"SeriesDescription": f"MPRAGE {marker}", "PatientID": "987654321987", "StudyDate": "20200315"}
    make_dicom(folder / "gap", **elements)[4].unlink()
    make_dicom(folder / "other", **{**elements, "SeriesDescription": f"{marker} FLAIR"})
    cut = make_dicom(folder / "cut", **elements)[4]
    cut.rename(cut.with_name(f"{marker}.dcm")).write_bytes(b"\0" * 128 + b"DICM" + marker.encode())
    (folder / f"{marker}.txt").write_text(marker)
    report = import_dicom(folder, tmp_path / "out")
    assert [len(report.of(outcome)) for outcome in ("taken", "skipped", "refused")] == [1, 1, 2]
    assert len(report.unreadable) == 1
    uids = [str(pydicom.dcmread(paths[0])[keyword].value) for keyword in ("SeriesInstanceUID", "StudyInstanceUID")]
    secrets = ["zanzibar", "quux", "987654321987", "19500301", "1950-03-01", "20200315", "2020-03-15", *uids]
    found = [
        (name, secret)
        for name, content in all_bytes(tmp_path / "out").items()
        for secret in secrets
        if secret.encode() in content.lower() or secret in name.lower()
    ]
    assert found == []
    # The search finds what is there: the words of the closed lists came through.
    assert any(b"siemens" in content.lower() for content in all_bytes(tmp_path / "out").values())
    facts = json.loads(next((tmp_path / "out").glob("sub-*/ses-*/anat/*.json")).read_text())
    assert facts["Manufacturer"] == "Siemens"
    assert facts["ScanningSequence"] == "GR_IR"


def test_two_people_and_their_visits(tmp_path: Path, visits: Callable) -> None:
    visits(tmp_path / "in", "B", "20200301", "20210301", "20190301")
    visits(tmp_path / "in", "A", "20180105")
    report = import_dicom(tmp_path / "in", tmp_path / "out", DicomOptions(keep_patient_id=True))
    rows = [(r.key, r.months, r.age) for r in read_manifest(report.manifest).records]
    assert rows == [
        ("sub-A_ses-01", 0.0, 67.8),
        ("sub-B_ses-01", 0.0, 69.0),
        ("sub-B_ses-02", 12.0, 70.0),
        ("sub-B_ses-03", 24.0, 71.0),
    ]
    sessions = pd.read_csv(tmp_path / "out" / "sub-B" / "sub-B_sessions.tsv", sep="\t")
    assert sessions["months"].tolist() == [0.0, 12.0, 24.0]


def test_a_key_keeps_the_labels(tmp_path: Path, visits: Callable) -> None:
    key = tmp_path / "key.tsv"
    for patient in "ABCD":
        visits(tmp_path / "in", patient, "20200301")
    import_dicom(tmp_path / "in", tmp_path / "one", DicomOptions(key=key), rng=random.Random(1))
    first = pd.read_csv(key, sep="\t", dtype=str).set_index("patient")["subject"]
    assert sorted(first) == ["0001", "0002", "0003", "0004"]
    assert list(first[["A", "B", "C", "D"]]) != sorted(first)
    assert key.stat().st_mode & 0o077 == 0
    visits(tmp_path / "in", "0new", "20200301")
    import_dicom(tmp_path / "in", tmp_path / "two", DicomOptions(key=key), rng=random.Random(2))
    second = pd.read_csv(key, sep="\t", dtype=str).set_index("patient")["subject"]
    assert second["0new"] == "0005"
    assert second[first.index].equals(first)


def test_the_report_does_not_undo_the_random_order(tmp_path: Path, make_dicom: Callable) -> None:
    for number, patient in enumerate("ABCDE"):
        what = "FLAIR" if patient in "BD" else "MPRAGE"
        make_dicom(tmp_path / "in" / patient, PatientID=patient, SeriesDescription=what, SeriesNumber=number)
    report = import_dicom(tmp_path / "in", tmp_path / "out", rng=random.Random(1))
    # By PatientID, for the terminal alone, the labels are in no order.
    assert [each.subject for each in report.series] == ["sub-0003", "", "sub-0001", "", "sub-0002"]
    written = json.loads((tmp_path / "out" / "manifest_import.json").read_text())["series"]
    assert [each["subject"] for each in written] == ["sub-0001", "sub-0002", "sub-0003", "", ""]


@pytest.mark.parametrize(("exact", "ages"), [(False, [90.0, 90.0, 88.5]), (True, [101.0, 90.5, 88.5])])
def test_ages_of_the_table_are_capped_too(tmp_path: Path, visits: Callable, exact: bool, ages: list[float]) -> None:
    for patient in "ABC":
        visits(tmp_path / "in", patient, "20200301")
    (tmp_path / "t.csv").write_text("PatientID,age\nA,101\nB,90.5\nC,88.5\n")
    options = DicomOptions(table=tmp_path / "t.csv", exact_age=exact, keep_patient_id=True)
    report = import_dicom(tmp_path / "in", tmp_path / "out", options)
    assert [record.age for record in read_manifest(report.manifest).records] == ages
    assert pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t")["age"].tolist() == ages
    assert sum("over 89" in warning for warning in report.warnings) == (0 if exact else 2)


def test_later_visits_are_numbered_on_from_the_key(tmp_path: Path, visits: Callable) -> None:
    key = tmp_path / "key.tsv"
    found = {}
    for year in (2019, 2021, 2017):
        visits(tmp_path / str(year), "A", f"{year}0301")
        report = import_dicom(tmp_path / str(year), tmp_path / f"out{year}", DicomOptions(key=key))
        (record,) = read_manifest(report.manifest).records
        found[year] = record.key, record.months
        if year == 2021:
            assert report.warnings == ()
    assert found == {2019: ("sub-0001_ses-01", 0.0), 2021: ("sub-0001_ses-02", 24.0), 2017: ("sub-0001_ses-03", 0.0)}
    assert "sub-0001: a visit before those of former imports" in report.warnings[0]
    rows = pd.read_csv(key, sep="\t", dtype=str)
    assert rows["session"].tolist() == ["01", "02", "03"]
    assert rows["study_date"].tolist() == ["20190301", "20210301", "20170301"]
    # A visit that is imported again keeps its label, and its row stands once.
    again = import_dicom(tmp_path / "2021", tmp_path / "again", DicomOptions(key=key))
    assert [r.key for r in read_manifest(again.manifest).records] == ["sub-0001_ses-02"]
    assert len(pd.read_csv(key, sep="\t")) == 3


def test_no_cohort_without_its_key_elsewhere(tmp_path: Path, visits: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    visits(tmp_path / "in", "A", "20200301")
    monkeypatch.setattr("ldae.prepare.imports.dicom.dataset.write_key", full)
    with pytest.raises(OSError, match="No space left"):
        import_dicom(tmp_path / "in", tmp_path / "out", DicomOptions(key=tmp_path / "key.tsv"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(CohortError, match="would lie in the de-identified cohort"):
        import_dicom(tmp_path / "in", tmp_path / "out", DicomOptions(key=tmp_path / "out" / "key.tsv"))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CohortError, match="no key of an import"):
        import_dicom(tmp_path / "in", tmp_path / "out", DicomOptions(key=tmp_path / "table.csv"))


def test_runs_of_a_visit(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    study = pydicom.uid.generate_uid()
    coarse = Volume(blob.data, blob.affine @ np.diag([1, 1, 2, 1]))
    for number, volume in ((2, blob), (3, blob), (4, coarse)):
        make_dicom(tmp_path / "in" / str(number), volume, StudyInstanceUID=study, SeriesNumber=number)
    report = import_dicom(tmp_path / "in", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("sub-*/ses-*/anat/*.nii.gz"))) == 3
    (record,) = read_manifest(report.manifest).records
    # The last of the two fine ones: the third is coarse.
    assert record.image.name == "sub-0001_ses-01_run-2_T1w.nii.gz"
    assert sum("another run" in each.reason for each in report.series) == 2


def test_one_bad_series_stops_no_other(tmp_path: Path, make_dicom: Callable, capsys) -> None:
    make_dicom(tmp_path / "in" / "good", SeriesDescription="MPRAGE good")
    make_dicom(tmp_path / "in" / "gap", SeriesDescription="MPRAGE gap", SeriesNumber=8)[5].unlink()
    assert run(tmp_path / "in", "--out", tmp_path / "out") == 1
    out = capsys.readouterr().out
    assert "refused: series 8 'MPRAGE gap' (1.2.826" in out
    assert "uneven positions: 6.00 mm" in out
    assert len(read_manifest(tmp_path / "out" / "manifest.tsv")) == 1


def test_warnings_of_dcm2niix_are_passed_on(tmp_path: Path, make_dicom: Callable, caplog) -> None:
    siemens = {"SoftwareVersions": "syngo MR XA30", "Manufacturer": "SIEMENS"}
    make_dicom(tmp_path / "in", InstanceNumber=lambda i: (7 * i) % 12, **siemens)
    report = import_dicom(tmp_path / "in", tmp_path / "out")
    assert "sub-0001 ses-01: dcm2niix: Instance Number (0020,0013) order is not spatial" in report.warnings
    assert "Sag MPRAGE" in caplog.text
    written = json.loads((tmp_path / "out" / "manifest_import.json").read_text())
    assert written["warnings"] == list(report.warnings)


def test_people_that_are_mixed_are_refused(tmp_path: Path, make_dicom: Callable) -> None:
    make_dicom(tmp_path / "in" / "1", SeriesDescription="MPRAGE mixed", PatientID=lambda i: "AB"[i // 6])
    make_dicom(tmp_path / "in" / "2", SeriesDescription="MPRAGE c1", PatientID="C", PatientBirthDate="19500101")
    make_dicom(tmp_path / "in" / "3", SeriesDescription="MPRAGE c2", PatientID="C", PatientBirthDate="19610101")
    make_dicom(tmp_path / "in" / "4", SeriesDescription="MPRAGE d", PatientID="D")
    found = reasons(import_dicom(tmp_path / "in", tmp_path / "out"))
    assert found.pop("MPRAGE mixed").startswith("refused: images of 2 patients in one series")
    assert found.pop("MPRAGE d") == "taken"
    several = "refused: one patient identifier with several birth dates"
    assert all(reason.startswith(several) for reason in found.values())


def test_identifiers_and_dates_may_be_missing(tmp_path: Path, visits: Callable) -> None:
    visits(tmp_path / "in", "", "20200301", "20210301")
    report = import_dicom(tmp_path / "in", tmp_path / "out")
    assert read_manifest(report.manifest).subjects == ("sub-0001", "sub-0002")
    assert sum("no patient identifier" in warning for warning in report.warnings) == 2
    with pytest.raises(CohortError, match="no PatientID to keep"):
        import_dicom(tmp_path / "in", tmp_path / "kept", DicomOptions(keep_patient_id=True))
    visits(tmp_path / "undated", "A", "20200301", None)
    report = import_dicom(tmp_path / "undated", tmp_path / "unknown")
    assert [record.months for record in read_manifest(report.manifest).records] == [None, None]
    assert any("not all visits have a date" in warning for warning in report.warnings)


def test_a_table_adds_what_headers_do_not_know(tmp_path: Path, visits: Callable, capsys) -> None:
    visits(tmp_path / "in", "A-1", "20200301", "20210301")
    visits(tmp_path / "in", "B-1", "20200301")
    (tmp_path / "t.csv").write_text(
        "PatientID;study_date;DX;Site;Name;sex\nA-1;2020-03-01;CN;x;Jane;female\nA-1;20210301;MCI;x;Jane;\n"
        "B-1;;AD;y;Joe;male\nZ;;AD;y;Zoe;male\n"
    )
    table = tmp_path / "t.csv"
    assert run(tmp_path / "in", "--out", tmp_path / "out", "--keep-patient-id", "--table", table) == 1
    records = {r.key: r for r in read_manifest(tmp_path / "out" / "manifest.tsv").records}
    found = [(r.diagnosis, r.site, r.sex) for r in records.values()]
    assert found == [("CN", "x", "F"), ("MCI", "x", "F"), ("AD", "y", "M")]
    assert not records["sub-A1_ses-01"].extra
    printed = capsys.readouterr().out
    assert "no scan for the table's row of Z" in printed
    assert "sub-B1 ses-01: the table and the header disagree about the sex" in printed
    assert not any(b"Joe" in content for content in all_bytes(tmp_path / "out").values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,age\nx,3\n", "no column of identifiers"),
        ("id,date\nA,03/01/2020\n", "line 2, column date: the date '03/01/2020' is none, or could be two days"),
        ("id,dx\nA,CN\nA,AD\n", "2 rows for the visit ses-01"),
        ("id,dx\nn/a,CN\n", "line 2 has no id"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, visits: Callable, text: str, expected: str) -> None:
    visits(tmp_path / "in", "A", "20200301")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(CohortError, match=expected):
        import_dicom(tmp_path / "in", tmp_path / "out", DicomOptions(table=tmp_path / "t.csv"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        (
            "Subject ID;Patient-ID;Scan date;Gender;Research group;VISCODE\n"
            "7;A;19-May-2020;2;CN;bl\n8;A;5/19/2021;Woman;MCI;m12\n",
            ("sex", "diagnosis"),
            [("F", "CN"), ("F", "MCI")],
        ),
        # Values at baseline are not those of every visit.
        (
            "PatientID,age_at_entry,DX_bl,site\nA,50,CN,x\n",
            ("age", "diagnosis", "site"),
            [(70.2, None, "x"), (71.2, None, "x")],
        ),
    ],
)
def test_a_table_is_read_as_any_other(
    tmp_path: Path, visits: Callable, text: str, names: tuple[str, ...], expected: list[tuple]
) -> None:
    visits(tmp_path / "in", "A", "20200519", "20210519")
    (tmp_path / "t.csv").write_text(text)
    report = import_dicom(tmp_path / "in", tmp_path / "out", DicomOptions(table=tmp_path / "t.csv"))
    assert [tuple(getattr(r, n) for n in names) for r in read_manifest(report.manifest).records] == expected
    assert report.unmatched == ()


def test_links_out_of_the_folder_are_followed_only_when_asked(
    tmp_path: Path, make_dicom: Callable, capsys: pytest.CaptureFixture
) -> None:
    make_dicom(tmp_path / "in" / "A", PatientID="A")
    make_dicom(tmp_path / "Zoe", PatientID="Zoe")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "Zoe").symlink_to(tmp_path / "Zoe", target_is_directory=True)
    assert run(tmp_path / "in", "--out", tmp_path / "out") == 1
    assert "not followed: Zoe: a link out of the folder" in capsys.readouterr().out
    assert len(read_manifest(tmp_path / "out" / "manifest.tsv")) == 1
    assert json.loads((tmp_path / "out" / "manifest_import.json").read_text())["links_not_followed"] == 1
    assert not any(b"Zoe" in content for content in all_bytes(tmp_path / "out").values())
    assert run(tmp_path / "in", "--out", tmp_path / "followed", "--follow-links") == 0
    assert len(read_manifest(tmp_path / "followed" / "manifest.tsv")) == 2
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "Zoe").symlink_to(tmp_path / "Zoe", target_is_directory=True)
    assert run(tmp_path / "links", "--out", tmp_path / "none") == 2
    assert "1 links that were not followed: see --follow-links" in capsys.readouterr().err


def test_bad_input_is_one_paragraph(tmp_path: Path, make_dicom: Callable, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.dcm").write_text("not DICOM at all")
    make_dicom(tmp_path / "flair", SeriesDescription="FLAIR")
    make_dicom(tmp_path / "good")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    for arguments, words in (
        ((tmp_path / "nowhere", "--out", tmp_path / "out"), "no such folder"),
        ((tmp_path / "empty", "--out", tmp_path / "out"), "no DICOM image in it (0 other files"),
        ((tmp_path / "text", "--out", tmp_path / "out"), "no DICOM image in it (1 other files"),
        ((tmp_path / "flair", "--out", tmp_path / "out"), "none of its 1 series can be taken"),
        ((tmp_path / "good", "--out", tmp_path / "full"), "there is something already"),
        ((tmp_path / "good", "--out", tmp_path / "full", "--force"), "there is something already"),
        ((tmp_path / "good", "--out", tmp_path / "good" / "out"), "among the DICOM files"),
    ):
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "Traceback" not in error
        assert not (tmp_path / "out").exists()
