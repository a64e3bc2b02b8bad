"""Checks of a cohort's table: visits, ages, sex, diagnoses, splits, and paths of images."""

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ldae.data.identity import shared_values
from ldae.data.schema import SPLITS
from ldae.head.findings import ERROR, NOTICE, WARNING, Finding
from ldae.prepare.imports.dates import months_of_visit

__all__ = ["check_table", "clinical_stage", "scan_keys"]

# Ages may be whole years, so two of them can be off by one.
AGE_SLACK_YEARS = 1.0
MIN_SUBJECTS = 30
MIN_CLASS_SHARE = 0.1
STAGE_WORDS = {
    0: "cn nc hc nl normal control controls healthy cognitivelynormal smc scd",
    1: "mci emci lmci mildcognitiveimpairment",
    2: "ad dat dementia alzheimer alzheimers alzheimersdisease",
}
STAGES = {word: stage for stage, words in STAGE_WORDS.items() for word in words.split()}
IMPROVEMENTS = {
    (1, 0): (NOTICE, "reversion"),
    (2, 1): (WARNING, "diagnosis-improves"),
    (2, 0): (ERROR, "diagnosis-impossible"),
}


def clinical_stage(diagnosis: object) -> int | None:
    """0 normal, 1 mild cognitive impairment, 2 dementia of Alzheimer's type, by the usual names; None for others."""
    return STAGES.get(re.sub(r"[^a-z]", "", diagnosis.lower())) if isinstance(diagnosis, str) else None


def scan_keys(table: pd.DataFrame) -> tuple[str, ...]:
    """Keys of the scans, in order."""
    return tuple(f"{a}_{b}" for a, b in zip(table["participant_id"], table["session_id"], strict=True))


def check_table(table: pd.DataFrame, folder: Path) -> list[Finding]:
    """Findings that need no image.

    Args:
        table: canonical columns, numbers in age and months, then further ones; one row a scan; rules of the schema may be
            violated.
        folder: of the data set; relative image paths start there.
    """
    visits: dict[str, list[_Visit]] = {}
    for row in table[list(_Visit._fields)].itertuples(index=False, name=None):
        visits.setdefault(row[0], []).append(_Visit(*row))
    within_subject = (_check_visits, _check_ages, _check_diagnoses)
    several = [rows for rows in visits.values() if len(rows) > 1]
    return [
        *(finding for rows in several for check in within_subject for finding in check(rows)),
        *_check_constants(table),
        *_check_people(table),
        *_check_size(table),
        *_check_missing(table),
        *_check_balance(table),
        *_check_paths(table, folder),
    ]


class _Visit(NamedTuple):
    """A row of the table, as far as a subject's rows are compared; age and months are NaN where missing."""

    participant_id: str
    session_id: str
    age: float
    months: float
    diagnosis: str | None

    @property
    def timed(self) -> bool:
        return not (math.isnan(self.age) or math.isnan(self.months))


def _concern(rows: pd.DataFrame | Sequence[_Visit]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keys of the scans of these rows, and their subjects."""
    table = pd.DataFrame(rows)
    return scan_keys(table), tuple(dict.fromkeys(table["participant_id"]))


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts ses-2 before ses-10."""
    return tuple((text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", name.lower()))


def _named_before(first: str, second: str) -> bool:
    """True if a session's name places it before another; names of two kinds (bl, v2) do not."""
    months, others = months_of_visit(first), months_of_visit(second)
    if months is not None and others is not None:
        return months < others
    one, another = _natural(first), _natural(second)
    return one[0][0] == another[0][0] and one < another


def _check_visits(rows: Sequence[_Visit]) -> Iterator[Finding]:
    """Months against ages, then session names against both."""
    subject = rows[0].participant_id
    timed = sorted((visit for visit in rows if visit.timed), key=lambda visit: visit.months)
    falls = ((one, next_one) for one, next_one in itertools.pairwise(timed) if _falls(one, next_one))
    if pair := next(falls, None):
        one, next_one = pair
        message = (
            f"{subject} grows younger: {one.age:g} years at month {one.months:g} and {next_one.age:g} at month "
            f"{next_one.months:g}"
        )
        remedy = "correct ages or months; results over time depend on them"
        yield Finding(ERROR, "session-order", message, remedy, *_concern(pair))
    else:
        yield from itertools.islice(_check_names(rows, subject), 1)
    counts = Counter(visit.months for visit in rows)
    same = [visit for visit in rows if counts[visit.months] > 1 and not math.isnan(visit.months)]
    if same:
        message = f"{subject} has {len(same)} scans at one month ({same[0].months:g})"
        yield Finding(NOTICE, "same-visit", message, "keep one, unless repeated scans are wanted", *_concern(same))


def _falls(one: _Visit, next_one: _Visit) -> bool:
    return next_one.age - one.age < -AGE_SLACK_YEARS / 2


def _check_names(rows: Sequence[_Visit], subject: str) -> Iterator[Finding]:
    for column, slack in (("months", 0.0), ("age", AGE_SLACK_YEARS / 2)):
        known = [(getattr(visit, column), visit) for visit in rows if not math.isnan(getattr(visit, column))]
        for (value, one), (other_value, other) in itertools.permutations(known, 2):
            if other_value < value - slack and _named_before(one.session_id, other.session_id):
                message = (
                    f"{subject}: session {one.session_id} comes before {other.session_id} by name, but {column} is "
                    f"{value:g} and {other_value:g}"
                )
                remedy = "check whether two sessions were exchanged"
                yield Finding(WARNING, "session-names", message, remedy, *_concern([one, other]))


def _check_ages(rows: Sequence[_Visit]) -> Iterator[Finding]:
    timed = [visit for visit in rows if visit.timed]
    if len(timed) < 2:
        return
    youngest, oldest = (pick(timed, key=_age_at_baseline) for pick in (min, max))
    if _age_at_baseline(oldest) - _age_at_baseline(youngest) <= AGE_SLACK_YEARS + 1e-6:
        return
    if _falls(*sorted((youngest, oldest), key=lambda visit: visit.months)):
        return  # found already: the session order contradicts the ages
    years, months = abs(oldest.age - youngest.age), abs(oldest.months - youngest.months)
    message = f"{oldest.participant_id}: two sessions are {months:g} months but {years:.1f} years of age apart"
    remedy = "give the age at each scan, or correct the months"
    yield Finding(WARNING, "age-months", message, remedy, *_concern([youngest, oldest]))


def _age_at_baseline(visit: _Visit) -> float:
    return visit.age - visit.months / 12.0


def _check_constants(table: pd.DataFrame) -> Iterator[Finding]:
    """Sex and split, which belong to the subject."""
    for column, code, message, remedy in (
        ("sex", "sex-changes", "the sex of {} is {}", "correct the table; check whether scans were exchanged"),
        (
            "split",
            "two-splits",
            "{} is in {}: results on the test part would be too good",
            "empty the split column and run 'ldae cohort split' to freeze a new one by subject",
        ),
    ):
        varies = table.groupby("participant_id")[column].transform("nunique") > 1
        for subject, rows in table[varies].groupby("participant_id", sort=False):
            values = " and ".join(rows[column].dropna().unique())
            yield Finding(ERROR, code, message.format(subject, values), remedy, *_concern(rows))


def _check_diagnoses(rows: Sequence[_Visit]) -> Iterator[Finding]:
    """The first step back in stage."""
    order = "age" if any(math.isnan(visit.months) for visit in rows) else "months"
    if any(math.isnan(getattr(visit, order)) for visit in rows):
        return
    ordered = sorted(rows, key=lambda visit: getattr(visit, order))
    stages = [(visit, stage) for visit in ordered if (stage := clinical_stage(visit.diagnosis)) is not None]
    for (before, earlier), (after, later) in itertools.pairwise(stages):
        if later < earlier:
            severity, code = IMPROVEMENTS[earlier, later]
            message = f"{before.participant_id} goes from {before.diagnosis} to {after.diagnosis}"
            remedy = "nothing, unless the table is wrong: reversion from MCI occurs"
            if severity != NOTICE:
                remedy = "correct the table, or leave the subject out of analyses of diagnosis"
            yield Finding(severity, code, message, remedy, *_concern([before, after]))
            return


def _check_people(table: pd.DataFrame) -> Iterator[Finding]:
    """One person under several identifiers."""
    rows_of = table.groupby("participant_id", sort=False).indices
    for shared in shared_values(table):
        rows = table.iloc[np.sort(np.concatenate([rows_of[subject] for subject in shared.subjects]))]
        message, _, remedy = str(shared).partition("; ")
        yield Finding(WARNING, "shared-identity", message, remedy, *_concern(rows))


def _check_size(table: pd.DataFrame) -> Iterator[Finding]:
    subjects = table["participant_id"].nunique()
    if subjects < MIN_SUBJECTS:
        message = f"{subjects} subject(s): results will have wide intervals"
        yield Finding(NOTICE, "few-subjects", message, "fine for a first look; comparisons between groups need more")


def _check_missing(table: pd.DataFrame) -> Iterator[Finding]:
    for column in ("age", "sex", "diagnosis"):
        rows = table[table[column].isna()]
        if 0 < len(rows) < len(table):
            severity = WARNING if len(rows) > len(table) / 2 else NOTICE
            message = f"{column} is missing in {len(rows)} of {len(table)} scans"
            remedy = "complete the table; scans without it are left out where it is needed"
            yield Finding(severity, "missing-values", message, remedy, *_concern(rows))
        elif len(rows):
            remedy = "nothing, unless it is to be predicted or controlled for"
            yield Finding(NOTICE, "missing-values", f"no scan has a value for {column}", remedy)


def _check_balance(table: pd.DataFrame) -> Iterator[Finding]:
    """Classes in each split, by subject at the first visit."""
    subjects = table.drop_duplicates("participant_id").dropna(subset=["diagnosis"])
    shares = subjects["diagnosis"].value_counts(normalize=True)
    if len(shares) < 2:
        return
    rare = [f"{name} has {100 * share:.0f} %" for name, share in shares.items() if share < MIN_CLASS_SHARE]
    if rare:
        remedy = "report balanced accuracy and areas under the curve, not accuracy"
        yield Finding(NOTICE, "rare-class", f"{', '.join(rare)} of the subjects", remedy)
    for split in SPLITS:
        part = subjects[subjects["split"] == split]
        absent = [str(name) for name in shares.index if name not in set(part["diagnosis"])]
        if len(part) and absent:
            message = f"no subject with {', '.join(absent)} is in {split}"
            remedy = "freeze another split ('ldae cohort split --force --seed'), before anything is trained"
            yield Finding(WARNING, "class-missing", message, remedy)


def _check_paths(table: pd.DataFrame, folder: Path) -> Iterator[Finding]:
    """Images named twice, or that leave the folder of the data set by a relative path."""
    folder = folder.absolute()
    table = table[[isinstance(image, str) for image in table["image"]]]
    places = pd.Series([os.path.normpath(folder / image) for image in table["image"]], index=table.index, dtype=object)
    twice = places[places.duplicated(keep=False)]
    for place, rows in table.loc[twice.index].groupby(twice, sort=False):
        message = f"{len(rows)} rows name one image, {place}"
        yield Finding(ERROR, "duplicate-path", message, "give every row its own image", *_concern(rows))
    relative = table[[not Path(image).is_absolute() for image in table["image"]]]
    escaping = relative[[not Path(places[row]).is_relative_to(folder) for row in relative.index]]
    if len(escaping):
        example = escaping["image"].iloc[0]
        message = f"{len(escaping)} image path(s) leave the manifest's folder with '..', such as {example}"
        remedy = "keep images below the manifest; such paths break, or lead to another file, when the folder moves"
        yield Finding(WARNING, "escaping-path", message, remedy, *_concern(escaping))
