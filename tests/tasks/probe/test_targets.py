from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ldae.data.manifest import build_manifest
from ldae.errors import TaskError
from ldae.tasks.probe.targets import choose_target, find_conversions


def test_a_column_is_read_as_what_it_holds(known_cohort):
    manifest, _ = known_cohort()
    diagnosis = choose_target(manifest, "diagnosis")
    assert (diagnosis.kind, diagnosis.classes) == ("binary", ("CN", "AD"))
    assert {r.diagnosis for r, v in zip(diagnosis.records, diagnosis.values, strict=True) if v == 1} == {"AD"}
    assert choose_target(manifest, "sex").classes == ("F", "M")
    assert choose_target(manifest, "sex", positive="F").classes == ("M", "F")
    assert choose_target(manifest, "age").kind == "regression"
    assert choose_target(manifest, "score").kind == "regression"
    assert choose_target(manifest, "split").kind == "multiclass"
    few = replace(manifest, table=manifest.table[:4].assign(age=[60.0, 61.0, 60.0, 61.0], score=[0.5, 1.0, 2.0, 1.0]))
    assert [choose_target(few, name).kind for name in ("age", "score")] == ["regression", "regression"]
    three = choose_target(manifest, "diagnosis", kind="multiclass")
    assert three.classes == ("AD", "CN", "MCI")
    assert len(three) == len(manifest)
    assert choose_target(manifest, "diagnosis", positive="MCI", negative="CN").classes == ("CN", "MCI")
    assert choose_target(manifest, "diagnosis", positive="CN").classes == ("AD", "CN")
    with pytest.raises(TaskError, match="both MCI"):
        choose_target(manifest, "diagnosis", positive="MCI", negative="MCI")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"column": "colour"}, "there is no column colour"),
        ({"column": "split", "kind": "regression"}, "holds text"),
        ({"column": "diagnosis", "positive": "FTD"}, "holds no FTD"),
        ({"column": "split", "kind": "binary"}, "give --positive"),
    ],
)
def test_columns_that_cannot_be_targets(known_cohort, arguments, words):
    manifest, _ = known_cohort()
    with pytest.raises(TaskError, match=words):
        choose_target(manifest, **arguments)


def test_first_scans_are_the_earliest(known_cohort):
    manifest, _ = known_cohort()
    target = choose_target(manifest, "age")
    backwards = target.select(np.arange(len(target))[::-1])
    first = backwards.first_scans()
    assert {record.months for record in first.records} == {0.0}
    assert len(first) == len(set(target.subjects))


def test_conversion_is_the_first_visit_with_the_diagnosis():
    people = (
        {0: "MCI", 12: "MCI", 24: "AD", 36: "AD"},
        {0: "MCI", 18: "MCI"},
        {0: "CN", 12: "MCI", 24: "AD"},
        {0: "MCI"},
        {0: "MCI", 12: "MCI", 60: None},
    )
    visits = [(f"s{i}", f"M{m:02d}", "x.nii", m, d) for i, person in enumerate(people) for m, d in person.items()]
    columns = ["participant_id", "session_id", "image", "months", "diagnosis"]
    manifest = build_manifest(pd.DataFrame(visits, columns=columns), "m.tsv")
    target = find_conversions(manifest)
    assert [record.key for record in target.records] == ["s0_M00", "s1_M00", "s4_M00"]
    assert target.values.tolist() == [24, 18, 12], "who has no diagnosis at a visit is followed to the one before"
    assert target.events.tolist() == [1, 0, 0]
    with pytest.raises(TaskError, match="0 of them become DEAD"):
        find_conversions(manifest, after="DEAD")
