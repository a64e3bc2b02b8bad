"""Images whose names hold the identifiers of one table: each goes to its own row, and what is ambiguous is refused."""

import json
import unicodedata
from pathlib import Path

import pytest

from ldae.data.manifest import read_manifest
from ldae.errors import CohortError, ManifestError
from ldae.prepare.imports.import_report import ImportReport
from ldae.prepare.imports.study import import_study
from ldae.prepare.imports.study_map import usual_map
from tests.import_files import import_tables


def run(folder: Path, images: list[str], table: str, id_column: str | None = None) -> ImportReport:
    return import_tables(folder, images, usual_map(id_column, strict=True), table)


def test_columns_go_by_many_names(tmp_path: Path) -> None:
    table = "Subject ID,Age at scan,SEX_ID (1=m; 2=f),DX_Group,Site,Score\nS01,70.5,1,CN,A,3\nS02,81,2,AD,B,4\n"
    report = run(tmp_path, ["S01_T1w.nii.gz", "S02_T1w.nii.gz"], table)
    first, second = read_manifest(report.manifest).records
    assert (first.participant_id, first.session_id, first.age, first.sex) == ("S01", "01", 70.5, "M")
    assert (second.diagnosis, second.sex, second.site, second.extra) == ("AD", "F", "B", {"Score": 4})
    assert first.image == tmp_path / "images" / "S01_T1w.nii.gz"
    assert (len(report.taken), report.skipped, report.complete) == (2, (), True)


def test_one_bad_row_refuses_no_table(tmp_path: Path) -> None:
    images, table = ["P1.nii", "P2.nii", "P3.nii"], "id,age,sex\nP1,89+,F\nP2,> 89,M\nP3,many,F\nP4,1,F,more\n,60,F\n"
    report = import_tables(tmp_path, images, usual_map(), table)
    assert [record.age for record in read_manifest(report.manifest).records] == [89.0, 89.0, None]
    assert {item.source for item in report.skipped} == {"table0.csv, line 5", "table0.csv, line 6"}
    assert [note.partition(":")[0] for note in report.notes if note.startswith("age is")] == [
        "age is a bound, which is taken for the value",
        "age is no number from 0 to 120, so n/a",
    ]
    with pytest.raises(CohortError, match=r"table0.csv, line 6 has no id"):
        run(tmp_path, images, table)


def test_a_group_of_train_and_test_is_no_diagnosis(tmp_path: Path) -> None:
    report = run(tmp_path, ["P1.nii", "P2.nii"], "id,age,group\nP1,60,Train\nP2,61,test\n")
    assert [(r.diagnosis, r.extra) for r in read_manifest(report.manifest).records] == [
        (None, {"group": "Train"}),
        (None, {"group": "test"}),
    ]


def test_leftovers_are_reported(tmp_path: Path) -> None:
    images = ["IXI012-HH.nii.gz", "IXI0123-HH.nii.gz", "deep/IXI014.nii"]
    report = run(tmp_path, images, "MRID,Age\nIXI012,60\nIXI013,61\nIXI014,62\n\nIXI015\n")
    assert [item.scan for item in report.taken] == ["IXI012_01", "IXI014_01"]
    assert {(item.source, item.detail) for item in report.skipped} == {
        ("IXI013", "table0.csv, line 3"),
        ("IXI0123-HH.nii.gz", ""),
        ("table0.csv, line 6", "1 cells, not 2"),
    }
    written = json.loads(report.path.read_text(encoding="utf-8"))
    assert (written["counts"]["amiss"], report.complete) == (3, False)
    reason = "an image of a subject who is not in the tables"
    assert {"source": "IXI0123-HH.nii.gz", "reason": reason, "expected": False} in written["skipped"]


@pytest.mark.parametrize(
    ("images", "table", "expected"),
    [
        # The longest identifier owns the image.
        (["A1-B2_T1.nii", "A1_T1.nii"], "id,age\nA1,60\nA1-B2,70\n", {"A1-B2_T1.nii": 70.0, "A1_T1.nii": 60.0}),
        # Sessions tell the rows of one subject apart.
        (["7/m12/7_T1w.nii", "7/bl/7_x.nii"], "RID,VISCODE,Age\n7,m12,71\n7,bl,70\n", {"7_T1w.nii": 71.0, "7_x.nii": 70.0}),
        # The image whose name says T1 is taken.
        (["p1_T1w.nii", "p1_FLAIR.nii"], "id,age\np1,60\n", {"p1_T1w.nii": 60.0}),
    ],
)  # fmt: skip
def test_each_image_goes_to_its_row(tmp_path: Path, images: list[str], table: str, expected: dict[str, float]) -> None:
    records = read_manifest(run(tmp_path, images, table).manifest).records
    assert {record.image.name: record.age for record in records} == expected
    assert {record.session_id: record.months for record in records} in ({"01": None}, {"bl": 0.0, "m12": 12.0})


@pytest.mark.parametrize(
    ("images", "table", "id_column", "expected"),
    [
        (["x1_a.nii"], "Name,Age\nx1,60\n", None, "no column of identifiers"),
        (["x1_a.nii"], "id,Age\nx1,60\n", "PTID", "looks for PTID"),
        (["x1_a.nii"], "id,Age\nq9,60\n", None, r"none of 1 images .* such as 'q9'"),
        (["x1_a.nii"], "id,Sex\nx1,3\n", None, "line 2, column Sex: sex .* got '3'"),
        (["x1.nii", "x2.nii"], "id,Age\nq,50\nx1,60\nx2,600\n", None, r"line 4, column Age: .*, got '600'"),
        (["x1_a.nii"], "id,Age\nn/a,60\n", None, "line 2 has no id"),
        (["x1_a.nii", "x1_b.nii"], "id\nx1\n", None, "x1_a.nii: several images of one visit"),
        (["x1_01.nii"], "id,Age\nx1,60\nx1,61\n", None, "two rows for one visit.*line 2; table0.csv, line 3: age"),
        (["x1_T1.nii"], "id,visit\nx1,bl\nx1,m12\n", None, "states no visit"),
        (["notes.txt"], "id\nx\n", None, "no image"),
        (["x1.nii"], "\ufeff", None, "the table is empty"),
        (["x1.nii"], "id;Age\n", None, "the table is empty"),
    ],
)
def test_ambiguity_is_refused(
    tmp_path: Path, images: list[str], table: str, id_column: str | None, expected: str
) -> None:
    with pytest.raises((CohortError, ManifestError), match=expected):
        run(tmp_path, images, table, id_column)
    assert not (tmp_path / "cohort.tsv").exists()


def test_what_the_table_says_besides_is_carried_along(tmp_path: Path) -> None:
    table = "\ufeffid;split;image;Visit date\nP 1;test;;19.05.2006\nP2;train;old.nii;5/19/2006\n"
    report = run(tmp_path / "ä ö", ["Über 脳/P2 (1).nii"], table)
    (record,) = read_manifest(report.manifest).records
    # Dates stay as the table writes them.
    assert (record.split, record.extra) == ("train", {"source_image": "old.nii", "Visit date": "5/19/2006"})
    assert [item.source for item in report.skipped] == ["P 1"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accent_is_part_of_its_letter(tmp_path: Path, form: str) -> None:
    name = unicodedata.normalize(form, "René_T1w.nii")  # type: ignore[arg-type]
    report = run(tmp_path, [name, "Re_T1w.nii"], "id;Age\nRe;60\nRene;61\n")
    assert [item.scan for item in report.taken] == ["Re_01"]
    assert read_manifest(report.manifest).records[0].image.is_file()


def test_the_ixi_sample_imports(tmp_path: Path, shared: Path) -> None:
    ixi = shared / "data" / "ixi"
    report = import_study([ixi / "IXI_demog_n10.csv"], usual_map(), ixi / "t1w", tmp_path / "ixi.tsv")
    manifest = read_manifest(report.manifest)
    assert (len(report.taken), report.skipped) == (10, ())
    assert manifest.table["sex"].value_counts().to_dict() == {"M": 7, "F": 3}
    assert (manifest.records[0].age, manifest.records[0].session_id) == (38.78, "01")


@pytest.mark.parametrize("name", ["excel_sep", "trailing"])
def test_tables_saved_by_excel_import(tmp_path: Path, shared: Path, name: str) -> None:
    table = (shared / "cases" / f"{name}.csv").read_text(encoding="utf-8")
    records = read_manifest(run(tmp_path, [f"P00{i}_T1w.nii" for i in (1, 2, 3)], table).manifest).records
    assert [(r.age is not None, r.sex) for r in records] == [(True, sex) for sex in ("F", "M", "F")]
