"""Confounds planted in balanced tables."""

import numpy as np
import pandas as pd
import pytest

from ldae.prepare.check.confounding import check_confounding


def balanced(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"participant_id": [f"p{i:03d}" for i in range(n)]})
    table["diagnosis"] = ["CN", "AD"] * (n // 2)
    table["age"] = 70 + np.repeat(rng.normal(0, 6, n // 2), 2)
    table["sex"] = ["F", "F", "M", "M"] * (n // 4)
    table["site"] = [f"s{i // 2 % 4}" for i in range(n)]
    return table


def codes(table: pd.DataFrame) -> set[str]:
    return {finding.code for finding in check_confounding(table)}


def test_an_older_patient_group() -> None:
    table = balanced()
    table.loc[table["diagnosis"] == "AD", "age"] += 8
    found = check_confounding(table)
    assert [finding.code for finding in found] == ["confounded-age"]
    assert "ldae probe --confounds age" in found[0].remedy


def test_sex_and_site_that_tell_the_diagnosis() -> None:
    table = balanced()
    table["sex"] = np.where((table["diagnosis"] == "AD") ^ (table.index % 10 == 0), "F", "M")
    assert codes(table) == {"confounded-sex"}
    table["site"] = np.where(table["diagnosis"] == "AD", "s0", "s1")
    assert codes(table) == {"confounded-sex", "confounded-site", "site-of-one-diagnosis"}


def test_a_small_difference_that_is_significant_is_no_finding() -> None:
    table = pd.concat(
        [balanced(400).assign(participant_id=lambda t, k=k: t["participant_id"] + str(k)) for k in range(10)]
    )
    table.loc[table["diagnosis"] == "AD", "age"] += 1.2
    assert codes(table) == set()
    few = balanced(24)
    few.loc[few["diagnosis"] == "AD", "age"] += 3
    assert codes(pd.concat([few] * 20)) == codes(few) == set(), "further sessions of a subject do not count again"


@pytest.mark.parametrize("column", ["age", "sex", "site", "diagnosis", None])
def test_balanced_groups_have_no_findings_and_missing_columns_are_let_be(column: str | None) -> None:
    table = balanced()
    if column is not None:
        table[column] = np.nan if column == "age" else None
    assert codes(table) == set()
