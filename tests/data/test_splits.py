"""Splits: by subject, stratified, exact, and independent of the order of rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldae.data.manifest import Manifest, build_manifest
from ldae.data.splits import assign_splits, external_split, thin_splits
from ldae.errors import ManifestError

PATH = Path("/cohort/manifest.tsv")


def cohort(subjects: list[tuple[int, str | None, float | None]]) -> pd.DataFrame:
    """Sessions, baseline diagnosis and baseline age of each subject."""
    return pd.DataFrame(
        [
            {
                "participant_id": f"sub-{i:03d}",
                "session_id": f"ses-{s}",
                "image": f"{i}_{s}.nii.gz",
                "age": None if age is None else age + s,
                "diagnosis": diagnosis,
                "months": 12.0 * s,
            }
            for i, (sessions, diagnosis, age) in enumerate(subjects)
            for s in range(sessions)
        ],
        columns=["participant_id", "session_id", "image", "age", "diagnosis", "months"],
    )


def large_cohort(n: int = 200) -> Manifest:
    generator = np.random.default_rng(3)
    subjects = [
        (int(generator.integers(1, 4)), str(generator.choice(["CN", "MCI", "AD"])), float(generator.uniform(55, 90)))
        for _ in range(n)
    ]
    return build_manifest(cohort(subjects), PATH)


def by_subject(manifest: Manifest) -> dict[str, set[str]]:
    return {str(subject): set(group) for subject, group in manifest.table.groupby("participant_id")["split"]}


subject_lists = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["CN", "MCI", "AD", None]),
        st.one_of(st.none(), st.integers(50, 90).map(float)),
    ),
    min_size=3,
    max_size=40,
)


@given(subjects=subject_lists, seed=st.integers(0, 5), shuffle=st.integers(0, 2**32 - 1))
def test_subjects_stay_together_and_order_does_not_matter(
    subjects: list[tuple[int, str | None, float | None]], seed: int, shuffle: int
) -> None:
    frame = cohort(subjects)
    split = by_subject(assign_splits(build_manifest(frame, PATH), seed=seed))
    assert all(len(names) == 1 for names in split.values())
    assert set.union(*split.values()) == {"train", "validation", "test"}
    shuffled = frame.sample(frac=1.0, random_state=shuffle).reset_index(drop=True)
    assert by_subject(assign_splits(build_manifest(shuffled, PATH), seed=seed)) == split


def test_totals_are_exact_and_strata_proportional() -> None:
    table = assign_splits(large_cohort()).table.drop_duplicates("participant_id")
    assert table["split"].value_counts().to_dict() == {"train": 140, "test": 40, "validation": 20}
    for _, group in table.groupby("diagnosis"):
        assert abs((group["split"] == "test").sum() - 0.2 * len(group)) <= 2
    means = table.groupby("split")["age"].mean()
    assert means.max() - means.min() < 3.0


def test_the_seed_decides_and_a_split_is_not_overwritten_by_accident() -> None:
    manifest = large_cohort(60)
    first, again, other = (by_subject(assign_splits(manifest, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    once = assign_splits(large_cohort(30), seed=0)
    with pytest.raises(ManifestError, match=r"already have a split.*--force"):
        assign_splits(once, seed=1)
    assert by_subject(assign_splits(once, seed=1, overwrite=True)) == by_subject(
        assign_splits(large_cohort(30), seed=1)
    )


def test_baseline_decides_the_stratum() -> None:
    # Everyone converts: by the last session there is one diagnosis, by the first there are two.
    frame = cohort([(2, "CN" if i % 2 else "MCI", 70.0) for i in range(40)])
    frame.loc[frame["months"] > 0, "diagnosis"] = "AD"
    table = assign_splits(build_manifest(frame, PATH), fractions=(0.5, 0.0, 0.5)).table
    assert set(table["split"]) == {"train", "test"}, "a fraction of zero stays empty"
    baseline = table[table["months"] == 0]
    assert baseline[baseline["split"] == "test"]["diagnosis"].value_counts().to_dict() == {"CN": 10, "MCI": 10}


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_few_subjects_still_fill_every_split(n: int) -> None:
    split = by_subject(assign_splits(build_manifest(cohort([(1, None, None)] * n), PATH)))
    assert set.union(*split.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("fractions", "expected"),
    [((0.5, 0.2, 0.2), "sum to 1"), ((1.2, -0.1, -0.1), "at least 0"), ((float("nan"), 0.5, 0.5), "at least 0")],
)
def test_impossible_fractions_and_too_few_subjects_are_refused(
    fractions: tuple[float, float, float], expected: str
) -> None:
    with pytest.raises(ManifestError, match=expected):
        assign_splits(large_cohort(20), fractions=fractions)
    with pytest.raises(ManifestError, match=r"2 subject\(s\) cannot fill 3 splits"):
        assign_splits(build_manifest(cohort([(3, "CN", 70.0)] * 2), PATH))


def test_an_external_test_trains_on_one_cohort_and_tests_on_the_other():
    one, two = assign_splits(large_cohort(20)), large_cohort(8)
    with pytest.raises(ManifestError, match="8 subjects are in both"):
        external_split(one, two)
    other = build_manifest(two.table.assign(participant_id="site2-" + two.table["participant_id"]), PATH)
    joined = external_split(one, other)
    assert set(joined.in_split("train").subjects) == set(one.subjects)
    assert set(joined.in_split("test").subjects) == set(other.subjects)
    assert len(joined) == len(one) + len(other)


def test_thin_splits_are_named() -> None:
    small = build_manifest(cohort([(1, "AD" if i == 0 else "CN", 70.0) for i in range(30)]), PATH)
    found = thin_splits(assign_splits(small))
    assert "validation holds 3 subjects, fewer than 8" in found
    assert "test holds 6 subjects, fewer than 8" in found
    assert sum("has no subject of diagnosis AD" in each for each in found) == 2
    assert thin_splits(assign_splits(large_cohort())) == []
    assert thin_splits(assign_splits(small, fractions=(1.0, 0.0, 0.0))) == []
