"""Import of a folder of images and a table."""

import json
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from ldae.data.manifest import read_manifest
from ldae.errors import CohortError, ManifestError
from ldae.prepare.imports.csv_table import import_csv

IXI = Path(__file__).parents[3].parent / "shared" / "data" / "ixi"


def cohort(folder: Path, images: list[str], table: str) -> tuple[Path, Path, Path]:
    for image in images:
        path = folder / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (folder / "table.csv").write_text(table, encoding="utf-8")
    return folder / "images", folder / "table.csv", folder / "manifest.tsv"


def test_columns_go_by_many_names(tmp_path: Path) -> None:
    report = import_csv(
        *cohort(
            tmp_path,
            ["S01_T1w.nii.gz", "S02_T1w.nii.gz"],
            "Subject ID,Age at scan,SEX_ID (1=m; 2=f),DX_Group,Site,Score\nS01,70.5,1,CN,A,3\nS02,81,2,AD,B,4\n",
        ),
        mapping={"sex": "SEX_ID (1=m; 2=f)"},
    )
    first, second = read_manifest(report.manifest).records
    assert (first.participant_id, first.session_id, first.age, first.sex) == ("S01", "01", 70.5, "M")
    assert (second.diagnosis, second.sex, second.site, second.extra) == ("AD", "F", "B", {"Score": 4})
    assert first.image == tmp_path / "images" / "S01_T1w.nii.gz"
    assert (len(report.taken), report.skipped, report.complete) == (2, (), True)


def test_leftovers_are_reported(tmp_path: Path) -> None:
    images = ["IXI012-HH.nii.gz", "IXI0123-HH.nii.gz", "deep/IXI014.nii"]
    report = import_csv(*cohort(tmp_path, images, "MRID,Age\nIXI012,60\nIXI013,61\nIXI014,62\n"))
    assert [item.scan for item in report.taken] == ["IXI012_01", "IXI014_01"]
    assert [(item.source, item.detail) for item in report.skipped] == [
        ("IXI013", "line 3"),
        ("IXI0123-HH.nii.gz", ""),
    ]
    assert not report.complete
    written = json.loads((tmp_path / "manifest_import.json").read_text(encoding="utf-8"))
    assert written["counts"]["amiss"] == 2
    assert written["skipped"][1] == {
        "source": "IXI0123-HH.nii.gz",
        "reason": "an image without a row of the table",
        "expected": False,
    }


def test_the_longest_identifier_owns_the_image(tmp_path: Path) -> None:
    report = import_csv(*cohort(tmp_path, ["A1-B2_T1.nii", "A1_T1.nii"], "id,age\nA1,60\nA1-B2,70\n"))
    ages = {r.image.name: r.age for r in read_manifest(report.manifest).records}
    assert ages == {"A1-B2_T1.nii": 70.0, "A1_T1.nii": 60.0}


def test_sessions_tell_rows_of_one_person_apart(tmp_path: Path) -> None:
    images = ["sub-7/ses-bl/anat/sub-7_ses-bl_T1w.nii.gz", "sub-7/ses-m12/anat/sub-7_ses-m12_T1w.nii.gz"]
    report = import_csv(*cohort(tmp_path, images, "RID,VISCODE,Age\n7,m12,71\n7,bl,70\n"))
    records = read_manifest(report.manifest).records
    assert [(r.session_id, r.months, r.age) for r in records] == [("m12", 12.0, 71.0), ("bl", 0.0, 70.0)]
    assert [r.image.name for r in records] == ["sub-7_ses-m12_T1w.nii.gz", "sub-7_ses-bl_T1w.nii.gz"]


def test_the_t1w_is_chosen_among_contrasts(tmp_path: Path) -> None:
    report = import_csv(*cohort(tmp_path, ["p1_T1w.nii", "p1_FLAIR.nii"], "id\np1\n"))
    assert [r.image.name for r in read_manifest(report.manifest).records] == ["p1_T1w.nii"]
    assert [item.source for item in report.skipped] == ["p1_FLAIR.nii"]


@pytest.mark.parametrize(
    ("images", "table", "options", "expected"),
    [
        (["x1_a.nii"], "Name,Age\nx1,60\n", {}, "no column of identifiers"),
        (["x1_a.nii"], "id,Age\nq9,60\n", {}, "no identifier"),
        (["x1_a.nii"], "id,Sex\nx1,3\n", {}, "line 2, column Sex"),
        (["x1_a.nii"], "id,Age\nn/a,60\n", {}, "line 2 has no id"),
        (["x1_a.nii", "x1_b.nii"], "id\nx1\n", {}, "fits 2 images"),
        (["x1_01.nii"], "id,Age\nx1,60\nx1,61\n", {}, r"fits 2 rows of 'x1', lines 2 and 3"),
        (["x1_a.nii"], "id\nx1\n", {"id_column": "PTID"}, "no column 'PTID'"),
        (["x1_a.nii"], "id\nx1\n", {"mapping": {"colour": "id"}}, "no column of a manifest"),
    ],
)
def test_ambiguity_is_refused(
    tmp_path: Path, images: list[str], table: str, options: dict[str, object], expected: str
) -> None:
    with pytest.raises(CohortError, match=expected):
        import_csv(*cohort(tmp_path, images, table), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "manifest.tsv").exists()


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    images, table, out = cohort(tmp_path, ["notes.txt"], "id\nx\n")
    with pytest.raises(CohortError, match="no image"):
        import_csv(images, table, out)
    with pytest.raises(CohortError, match="no such folder"):
        import_csv(images / "absent", table, out)


def test_schema_violations_name_the_lines_of_the_users_table(tmp_path: Path) -> None:
    images, table, out = cohort(tmp_path, ["x1.nii", "x2.nii"], "id,Age\nq,50\nx1,60\nx2,600\n")
    with pytest.raises(ManifestError, match=r"table\.csv.*\n.*line 4: age"):
        import_csv(images, table, out)


def test_absent_images_lie_relative_only_below_the_manifest(tmp_path: Path) -> None:
    images, table, _ = cohort(tmp_path, ["x1.nii"], "id,split,image\nx1,train,old.nii\n")
    inside = import_csv(images, table, tmp_path / "m.csv")
    outside = import_csv(images, table, tmp_path / "other" / "m.csv")
    assert read_manifest(inside.manifest).table["image"].tolist() == ["images/x1.nii"]
    assert read_manifest(outside.manifest).table["image"].tolist() == [str(images / "x1.nii")]
    record = read_manifest(inside.manifest).records[0]
    assert (record.split, record.extra) == ("train", {"source_image": "old.nii"})


def test_marks_semicolons_and_any_name_of_a_path(tmp_path: Path) -> None:
    table = "\ufeffid;Age;Visit date\nP 1;60,5;19.05.2006\nP2;61;5/19/2006\nP3;62;2006-05-19\n"
    images, file, out = cohort(tmp_path / "ä ö", ["Über 脳/P2 (1).nii", "P3.nii"], table)
    (images / "again").symlink_to(images, target_is_directory=True)
    (images / "P3_link.nii").symlink_to(file)
    report = import_csv(images, file, out)
    # Dates are carried along as the table writes them.
    assert [(r.participant_id, r.age, r.extra) for r in read_manifest(report.manifest).records] == [
        ("P2", 61.0, {"Visit date": "5/19/2006"}),
        ("P3", 62.0, {"Visit date": "2006-05-19"}),
    ]
    reasons = {item.source: (item.reason.split(":")[0], item.expected) for item in report.skipped}
    assert reasons["again"] == ("a link to a folder that is searched under its own name", True)
    assert reasons["P3_link.nii"] == ("a link out of the folder", False)
    assert reasons["P 1"] == ("a row of the table without an image", False)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accent_is_part_of_its_letter(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    images = [unicodedata.normalize(form, "René_T1w.nii"), "Re_T1w.nii"]
    report = import_csv(*cohort(tmp_path, images, "id;Age\nRe;60\nRene;61\n"))
    assert [item.scan for item in report.taken] == ["Re_01"]
    assert read_manifest(report.manifest).records[0].image.is_file()


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    for text in ("", "\ufeff", "id;Age\n"):
        with pytest.raises(ManifestError, match="the table is empty"):
            import_csv(*cohort(tmp_path, ["x1.nii"], text))


@pytest.mark.skipif(not IXI.is_dir(), reason=f"the IXI sample is not at {IXI}")
def test_the_ixi_sample_imports(tmp_path: Path) -> None:
    report = import_csv(IXI / "t1w", IXI / "IXI_demog_n10.csv", tmp_path / "ixi.tsv")
    manifest = read_manifest(report.manifest)
    assert (len(report.taken), report.skipped) == (10, ())
    assert manifest.table["sex"].value_counts().to_dict() == {"M": 7, "F": 3}
    assert manifest.records[0].age == 38.78
    assert manifest.records[0].session_id == "01"
