"""Tables: each contradiction planted in a sound one, which has none."""

import cProfile
import pstats
from pathlib import Path

import pandas as pd
import pytest

from ldae.prepare.check.table import check_table, clinical_stage

COLUMNS = ("participant_id", "session_id", "image", "age", "sex", "diagnosis", "months", "site", "split")


def sound(subjects: int = 30) -> pd.DataFrame:
    rows = []
    for i in range(subjects):
        split = ("train", "validation", "test")[i % 3]
        for months in (0.0, 12.0):
            name, diagnosis = f"p{i:02d}", ("CN", "MCI")[(i // 3) % 2]
            image = f"{name}/{months:g}.nii.gz"
            session = f"M{months:g}"
            rows.append((name, session, image, 70.0 + i % 7 + months / 12, "FM"[i % 2], diagnosis, months, "a", split))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def found(table: pd.DataFrame) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {one.code: (one.severity.word, one.scans) for one in check_table(table, Path("/data"))}


def changed(column: str, *values: object) -> pd.DataFrame:
    """The table with other values in a column of p00's two visits."""
    table = sound()
    table[column] = table[column].astype(object) if isinstance(values[0], str) else table[column]
    table.loc[[0, 1], column] = list(values)
    return table


P00 = ("p00_M0", "p00_M12")


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("age", (75.0, 71.0), {"session-order": ("error", P00)}),
        ("age", (70.0, 74.5), {"age-months": ("warning", P00)}),
        ("age", (70.0, 70.0), {}),  # whole years
        ("age", (70.0, 72.0), {}),
        ("sex", ("F", "M"), {"sex-changes": ("error", P00)}),
        ("diagnosis", ("AD", "CN"), {"diagnosis-impossible": ("error", P00)}),
        ("diagnosis", ("Dementia", "LMCI"), {"diagnosis-improves": ("warning", P00)}),
        ("diagnosis", ("MCI", "CN"), {"reversion": ("notice", P00)}),
        ("diagnosis", ("CN", "MCI"), {}),
        ("split", ("train", "test"), {"two-splits": ("error", P00)}),
        ("months", (12.0, 12.0), {"same-visit": ("notice", P00)}),
        ("image", ("same.nii.gz", "./same.nii.gz"), {"duplicate-path": ("error", P00)}),
        ("image", ("../../a.nii.gz", "b/../c.nii.gz"), {"escaping-path": ("warning", P00[:1])}),
        ("image", ("/elsewhere/a.nii.gz", "/data/b.nii.gz"), {}),
        ("session_id", ("M12", "M0"), {"session-names": ("warning", ("p00_M0", "p00_M12"))}),
    ],
)
def test_each_contradiction_is_found_and_nothing_else(column: str, values: tuple, expected: dict) -> None:
    # A single person with another diagnosis is also rare, and absent from two splits.
    balance = ("rare-class", "class-missing")
    assert {code: at for code, at in found(changed(column, *values)).items() if code not in balance} == expected


def test_names_that_contradict_the_months_are_found_and_no_others() -> None:
    for names in (("ses-2", "ses-10"), ("sc", "m06"), ("bl", "M12"), ("screening", "baseline"), ("v2", "m12")):
        assert found(changed("session_id", *names)) == {}, names
    for first, second in (("ses-10", "ses-2"), ("m06", "sc"), ("M12", "bl"), ("y1", "m06")):
        scans = (f"p00_{second}", f"p00_{first}")
        assert found(changed("session_id", first, second)) == {"session-names": ("warning", scans)}


def test_a_sound_table_has_no_findings_and_rows_without_an_image_do_not_share_one() -> None:
    table = sound()
    assert found(table) == {}
    table.loc[[0, 1, 2], "image"] = None
    assert found(table) == {}
    assert "duplicate-path" not in found(table.assign(image=None))


def test_absent_and_missing_values() -> None:
    table = sound()
    table.loc[table.index[:10], "age"] = float("nan")
    assert found(table)["missing-values"][0] == "notice"
    table.loc[table.index[:40], "age"] = float("nan")
    assert found(table)["missing-values"][0] == "warning"
    assert found(sound(5))["few-subjects"][0] == "notice"


def test_classes_of_the_splits() -> None:
    table = sound()
    table.loc[(table["split"] == "test") & (table["diagnosis"] == "MCI"), "split"] = None
    assert found(table)["class-missing"][0] == "warning"
    table = sound(36)
    table["diagnosis"] = "CN"
    table.loc[table["participant_id"].isin(["p00", "p01", "p02"]), "diagnosis"] = "AD"
    assert found(table) == {"rare-class": ("notice", ())}


def test_names_of_stages() -> None:
    stages = {"CN": 0, "Late MCI": None, "EMCI": 1, "Alzheimer's disease": 2, "MS": None, None: None}
    assert {name: clinical_stage(name) for name in stages} == stages


def test_a_large_table_takes_few_calls_a_row() -> None:
    with cProfile.Profile() as calls:
        check_table(sound(2000), Path("/data"))
    assert pstats.Stats(calls).total_calls < 400 * 4000
