"""Columns that name people, and people with several identifiers."""

import pandas as pd
import pytest

from ldae.data.identity import merge_people, names_people, read_same_person, shared_values
from ldae.data.manifest import build_manifest
from ldae.data.splits import assign_splits
from ldae.errors import ManifestError


@pytest.mark.parametrize("name", ["RID", "subject_id", "imageUID", "image id", "participant.identifier"])
def test_columns_that_name_people(name):
    assert names_people(name)
    assert names_people(name, [101.0, 102.0])
    assert names_people(name, pd.Series([101.0, float("nan")]))
    assert not names_people(name, [0.25, 3.0])


@pytest.mark.parametrize(
    "name", ["volume_ml", "fluid", "grid", "y01", "42", "id_of_ventricle_ml", "site_id", "scannerID"]
)
def test_columns_that_measure(name):
    assert not names_people(name, [1.0, 2.0])


def cohort(**columns):
    ids = [f"sub-{name}" for name in "ABCDEFGH"]
    return build_manifest(
        pd.DataFrame({"participant_id": ids, "session_id": "ses-1", "image": "a.nii.gz", **columns}), "m.tsv"
    )


def test_values_that_two_subjects_share_are_named_where_nearly_all_have_their_own():
    births = [f"1950-01-{day:02d}" for day in (1, 2, 3, 4, 5, 6, 7, 7)]
    found = shared_values(cohort(birth_date=births, sex=list("FMFMFMFF"), RID=[1, 2, 3, 4, 5, 6, 7, 7]).table)
    assert [(each.column, each.subjects) for each in found] == [
        ("birth_date and sex", ("sub-G", "sub-H")),
        ("RID", ("sub-G", "sub-H")),
    ]
    assert not shared_values(cohort(birth_date=births, sex=list("FMFMFMFM")).table)  # a man and a woman
    assert not shared_values(cohort(scanner_id=[1, 1, 2, 2, 1, 1, 2, 2]).table)  # names scanners
    assert not shared_values(cohort(score=[1, 2, 3, 4, 5, 6, 7, 7]).table)


def test_a_person_of_several_identifiers_gets_one_and_one_split(tmp_path):
    path = tmp_path / "same.csv"
    path.write_text("participant_id,person\nsub-B,x\nsub-F,x\nsub-C,sub-D\nsub-F,x\n")
    merged = merge_people(cohort(), read_same_person(path))
    assert merged.table["participant_id"].tolist() == [f"sub-{name}" for name in "ABCCEBGH"]
    assert [r.key for r in merged["sub-B"]] == ["sub-B_ses-1", "sub-B_ses-1-F"]
    assert merged["sub-B"][1].extra["source_participant_id"] == "sub-F"
    assert merge_people(merged, {"sub-B": "x", "sub-A": "x"}).table["source_participant_id"][5] == "sub-F"
    assert merge_people(merged, read_same_person(path)).table.equals(merged.table), "former identifiers are known"
    with pytest.raises(ManifestError, match="no participant_id sub-F"):  # it is sub-B now, whom the map leaves alone
        merge_people(merged, {"sub-F": "x", "sub-A": "x"})
    with pytest.raises(ManifestError, match="y is a person, and an identifier of another person"):
        merge_people(cohort(), {"sub-A": "y", "y": "z"})
    frozen = assign_splits(merged, seed=3)
    assert frozen.table.groupby("participant_id")["split"].nunique().eq(1).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("participant_id,name\nsub-A,x\n", "column person is missing"),
        ("participant_id,person\nsub-A,x\nsub-A,y\n", "sub-A belongs to two people"),
        (
            "participant_id,person\nsub-A,x\nsub-BB,x\nB,y\n",
            "m.tsv: it has no participant_id sub-BB; B, .*; write identifiers as",
        ),
        ("participant_id,person\nsub-A,\nsub-B,n/a\n", "same.csv: no row names a person; write in each row"),
        ("participant_id,person\nsub-A,x\n,x\n", "line 3 names a person without participant_id"),
        ("participant_id,person\nsub-A,x\nsub-B,x,y\n", "2 columns, but line 3 has 3"),
    ],
)
def test_tables_of_people_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "same.csv"
    path.write_text(content)
    with pytest.raises(ManifestError, match=message):
        merge_people(cohort(), read_same_person(path))
