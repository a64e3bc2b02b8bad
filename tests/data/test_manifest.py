"""The manifest schema: what is kept, what is refused, and how the refusal reads."""

import cProfile
import os
import pstats
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldae.data.manifest import build_manifest, read_manifest, write_manifest
from ldae.data.schema import COLUMNS
from ldae.errors import ManifestError
from ldae.image_files import Reading, reading


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def written(folder: Path, content: str, name: str = "m.tsv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(content.encode(encoding))
    return path


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, strict=True, **options)
    return str(caught.value)


def table(n: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"participant_id": [f"p{i}" for i in range(n)], "session_id": "01", "image": "a.nii.gz"})


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_reads_any_separator_mark_and_line_ending(folder: Path, separator: str, encoding: str, ending: str) -> None:
    rows = [
        ["image", "participant_id", "session_id", "age", "sex", "code", "volume_ml"],
        ["a.nii.gz", "001", "01", "70.5", "female", "007", "12.5"],
        ["b.nii.gz", "002", "01", "n/a", "", "008", "NaN"],
    ]
    content = ending.join(separator.join(row) for row in rows) + ending
    manifest = read_manifest(written(folder, content, encoding=encoding))

    assert list(manifest.table.columns) == [*COLUMNS, "code", "volume_ml"]
    first, second = manifest.records
    assert (first.participant_id, first.session_id, first.key) == ("001", "01", "001_01")
    assert first.image == folder / "a.nii.gz"
    assert (first.age, first.sex, first.extra) == (70.5, "F", {"code": "007", "volume_ml": 12.5})
    assert (second.age, second.sex, second.months, second.split) == (None, None, None, None)
    assert second.extra == {"code": "008", "volume_ml": None}


def test_errors_name_the_lines_of_the_file(folder: Path) -> None:
    content = (
        "participant_id,session_id,image,age,sex,months,split\n"
        "p1,01,a.nii.gz,200,F,0,train\n"
        "\n"
        "p2,01,scan.dcm,old,X,-3,val\n"
        ",01,a.nii.gz,,,,\n"
        "p 3,01,a.nii.gz,,,,\n"
    )
    message = refusal(written(folder, content, "m.csv"))
    assert "line 2: age must be years between 0 and 120, got '200'" in message
    assert "line 4: age" in message
    assert "line 4: sex must be F or M, got 'X'" in message
    assert "line 4: months" in message
    assert "line 4: split must be one of train, validation, test, got 'val'" in message
    assert "line 4: image" in message
    assert "line 5: participant_id is missing" in message
    assert "line 6: participant_id" in message
    assert "not UTF-8" in refusal(written(folder, content.replace("scan", "Schädel"), encoding="latin-1"))
    assert "no such table" in refusal(folder / "absent.tsv")


def test_many_problems_are_summarised_and_missing_images_counted(folder: Path) -> None:
    rows = "".join(f"p{i},01,a.nii.gz,-1\n" for i in range(15))
    message = refusal(written(folder, "participant_id,session_id,image,age\n" + rows, "m.csv"))
    assert "15 problem(s)" in message
    assert "and 5 more" in message
    rows = "".join(f"p{i}\t01\tgone{i}.nii.gz\n" for i in range(5))
    path = written(folder, "participant_id\tsession_id\timage\np\t01\ta.nii.gz\n" + rows)
    message = refusal(path)
    assert "5 of 6 image files do not exist" in message
    assert "line 3: " in message
    assert "gone0.nii.gz" in message
    assert "and 2 more" in message
    assert len(read_manifest(path, check_images=False)) == 6


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "empty"),
        ("participant_id\tsession_id\timage\n", "empty"),
        ("participant_id\timage\np\ta.nii.gz\n", "session_id"),
        ("participant_id\tsession_id\timage\timage\np\t01\ta.nii.gz\ta.nii.gz\n", "appear twice"),
        # A line break in quotes counts as a line.
        (
            'participant_id,session_id,image,note,age\np,01,a.nii.gz,"two\nlines",60\nq,01,a.nii.gz,x,999\n',
            "line 4: age",
        ),
        (
            "participant_id\tsession_id\timage\np\t01\ta.nii.gz\nq\t01\tb.nii.gz\np\t01\tc.nii.gz\n",
            "lines 2 and 4: participant p, session 01 appears twice",
        ),
        (
            "participant_id\tsession_id\timage\tsplit\np\t01\ta.nii.gz\ttrain\nq\t01\tb.nii.gz\tn/a\np\t02\tc.nii.gz\ttest\n",
            "lines 2 and 4: subject p is in train and in test; empty the split column and run 'ldae cohort split'",
        ),
    ],
)
def test_malformed_tables_are_refused(folder: Path, content: str, expected: str) -> None:
    assert expected in refusal(written(folder, content))


def test_a_bad_row_is_left_out_with_its_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        "participant_id,session_id,image,age",
        "p1,01,a.nii.gz,70",
        "p2,01,b.nii.gz,seventy",
        "p3,01,gone.nii.gz,71",
        "p4,01,b.nii.gz,72",
        "p4,01,b.nii.gz,72",
        "p5,01,a.nii.gz,73",
        "p5,01,a.nii.gz,74",
        "p6,01,c.nii.gz",
        "p7,01,c.nii.gz,89+",
    ]
    path = written(folder, "\n".join(rows), "m.csv")
    assert [(r.participant_id, r.age) for r in read_manifest(path).records] == [
        ("p1", 70.0),
        ("p4", 72.0),
        ("p7", 89.0),
    ]
    ragged, bounds, others = caplog.messages
    assert "1 rows are left out\n  line 9 has 3 cells, the header has 4" in ragged
    assert "line 10: 89+" in bounds
    assert "5 of 8 rows are left out" in others
    lines = [re.search(r"lines? ([\d and]*\d)", line)[1] for line in others.splitlines()[1:]]
    assert lines == ["3", "6", "7 and 8", "4"]
    with reading(Reading(strict=True)):
        assert "line 9 has 3" in refusal(path)
        with pytest.raises(ManifestError, match="line 9"):
            read_manifest(path)
    only = written(folder, "\n".join([*rows[:1], *rows[6:8]]), "m.csv")
    with pytest.raises(ManifestError, match="lines 2 and 3: participant p5, session 01 appears twice"):
        read_manifest(only)


def test_a_subject_in_two_splits_is_refused_whatever_else_is_left_out(folder: Path) -> None:
    content = "participant_id,session_id,image,split\np,01,a.nii.gz,train\np,02,b.nii.gz,test\nq,01,x.txt,test\n"
    with pytest.raises(ManifestError, match="lines 2 and 3: subject p is in train and in test"):
        read_manifest(written(folder, content, "m.csv"))


def test_write_then_read_is_the_identity(folder: Path) -> None:
    frame = table().assign(
        age=[60.25, None, 71.0], months=[0.0, 6.0, None], sex=["F", None, "M"], code="007", volume=[1, 2, 3]
    )
    frame.loc[1, "participant_id"] = "00012"
    path = write_manifest(frame[frame.columns[::-1]], folder / "out" / "m.tsv")
    again = read_manifest(path, check_images=False)
    assert path.read_text().splitlines()[0] == "participant_id\tsession_id\timage\tage\tsex\tmonths\tvolume\tcode"
    assert "n/a" in path.read_text()
    assert again.table["participant_id"].tolist() == ["p0", "00012", "p2"]
    assert again.sha256 == build_manifest(frame, path).sha256
    assert again.records[0].extra == {"volume": 1, "code": "007"}
    assert [p.name for p in path.parent.iterdir()] == ["m.tsv"]


def test_invalid_tables_are_not_written(folder: Path) -> None:
    with pytest.raises(ManifestError, match="line 3: age"):
        write_manifest(table().assign(age=[60.0, 300.0, 70.0]), folder / "m2.tsv")
    with pytest.raises(ManifestError, match=r"\.tsv or \.csv"):
        write_manifest(table(), folder / "m2.xlsx")
    assert not list(folder.glob("*m2*"))
    assert not list(folder.glob(".writing*"))


def test_moving_a_manifest_keeps_its_images_and_its_hash_is_of_the_content(folder: Path) -> None:
    manifest = build_manifest(table(), folder / "m.tsv")
    moved = manifest.write(folder / "deep" / "er" / "m.csv")
    assert [r.image.resolve() for r in read_manifest(moved.path).records] == [r.image for r in manifest.records]
    manifest = build_manifest(table().assign(age=60, note="x"), folder / "m.tsv")
    same = build_manifest(table().assign(note="x", age=60.0, sex=None), folder / "elsewhere.csv")
    other = build_manifest(table().assign(age=61, note="x"), folder / "m.tsv")
    assert manifest.sha256 == same.sha256 != other.sha256


def test_selection_and_splits(folder: Path) -> None:
    frame = table(4).assign(split=["train", "test", "train", None])
    manifest = build_manifest(frame, folder / "m.tsv")
    assert manifest.in_split("train").subjects == ("p0", "p2")
    assert len(manifest.in_split("validation")) == 0
    assert manifest.in_split("train").table.index.tolist() == [0, 1]
    assert len(manifest.select(np.array([True, False, False, True]))) == 2
    with pytest.raises(ManifestError, match="split must be one of"):
        manifest.in_split("val")
    with pytest.raises(ManifestError, match="one boolean"):
        manifest.select([1, 0, 0, 1])
    with pytest.raises(ManifestError, match="no scan has a split"):
        build_manifest(table(), folder / "m.tsv").in_split("train")


identifiers = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,8}", fullmatch=True).filter(
    lambda text: text.lower() not in {"na", "nan", "none", "null"}
)
ages = st.one_of(st.none(), st.floats(0, 120))


@given(rows=st.lists(st.tuples(identifiers, ages), min_size=1, max_size=8, unique_by=lambda row: row[0]))
def test_any_valid_table_survives_the_round_trip(
    rows: list[tuple[str, float | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    frame = pd.DataFrame({"participant_id": [r[0] for r in rows], "session_id": "01", "image": "a.nii.gz"})
    frame["age"] = [r[1] for r in rows]
    path = write_manifest(frame, tmp_path_factory.mktemp("round") / "m.tsv")
    records = read_manifest(path, check_images=False).records
    assert [(r.participant_id, r.age) for r in records] == rows


def test_what_reads_no_images_takes_a_table_of_people(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("participant_id,diagnosis,age\nsub-1,AD,70\nsub-2,CN,71\n")
    manifest = read_manifest(path, images=False)
    assert [record.key for record in manifest.records] == ["sub-1_1", "sub-2_1"]
    assert [record.diagnosis for record in manifest.records] == ["AD", "CN"]
    with pytest.raises(ManifestError, match=r"session_id, image are missing"):
        read_manifest(path)
    path.write_text("participant_id,diagnosis\nsub-1,AD\nsub-1,CN\n")
    with pytest.raises(ManifestError, match="sub-1"):
        read_manifest(path, images=False)
    path.write_text("name,diagnosis\nsub-1,AD\n")
    with pytest.raises(ManifestError, match="participant_id"):
        read_manifest(path, images=False)


def test_a_large_manifest_takes_few_calls_a_row(tmp_path):
    """Each distinct cell is looked at once; the number of calls is the same on every machine."""
    header = "participant_id\tsession_id\timage\tage\tsex\tmonths\tsplit\tsite\tscore\n"
    rows = [
        f"sub-{i}\tses-{m}\t{i}_{m}.nii.gz\t{60 + i % 30}.5\tF\t{m}\ttrain\tA\t{i % 7}\n"
        for i in range(2500)
        for m in (0, 12)
    ]
    path = written(tmp_path, header + "".join(rows))
    with cProfile.Profile() as calls:
        manifest = read_manifest(path, check_images=False)
    assert len(manifest) == 5000
    assert pstats.Stats(calls).total_calls < 40 * len(manifest)


def test_a_folder_of_many_images_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = folder / "scans"
    scans.mkdir()
    for i in range(150):
        (scans / f"{i}.nii.gz").write_bytes(b"")
    (scans / "7.nii.gz").unlink()
    (scans / "8.nii.gz").unlink()
    (scans / "8.nii.gz").mkdir()
    rows = [f"p{i}\t1\tscans/{i}.nii.gz" for i in range(150)]
    path = written(folder, "\n".join(["participant_id\tsession_id\timage", *rows]))
    asked, is_file = [], os.path.isfile
    monkeypatch.setattr("os.path.isfile", lambda each: asked.append(each) or is_file(each))
    read = read_manifest(path)
    assert asked == [f"{scans}/7.nii.gz", f"{scans}/8.nii.gz"]
    assert len(read) == 148
