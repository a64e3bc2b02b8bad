"""What a cohort's table contradicts: visits, ages, sex, diagnoses, splits, and where its images lie."""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ldae.data.schema import SPLITS
from ldae.head.findings import ERROR, NOTICE, WARNING, Finding
from ldae.prepare.imports.visits import months_of_visit

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


def clinical_stage(diagnosis: object) -> int | None:
    """0 normal, 1 mild cognitive impairment, 2 dementia of Alzheimer's type, by the usual names; None for others."""
    return STAGES.get(re.sub(r"[^a-z]", "", diagnosis.lower())) if isinstance(diagnosis, str) else None


def scan_keys(table: pd.DataFrame) -> tuple[str, ...]:
    """The scans' names, in order."""
    return tuple(f"{a}_{b}" for a, b in zip(table["participant_id"], table["session_id"], strict=True))


def check_table(table: pd.DataFrame, folder: Path) -> list[Finding]:
    """All that can be told without opening an image.

    Args:
        table: canonical columns, numbers in age and months, one row a scan; rules of the schema may be violated.
        folder: of the data set, against which relative image paths resolve.
    """
    found: list[Finding] = []
    for rows in _people(table):
        for check in (_visit_order, _ages, _sex, _diagnoses, _splits):
            found += check(rows)
    for check_all in (_size, _missing, _balance):
        found += check_all(table)
    return found + _paths(table, folder)


def _people(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _, rows in table.groupby("participant_id", sort=False):
        if len(rows) > 1:
            yield rows


def _concern(rows: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return scan_keys(rows), tuple(dict.fromkeys(rows["participant_id"]))


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts ses-2 before ses-10."""
    return tuple((text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", name.lower()))


def _named_before(first: str, second: str) -> bool:
    """Whether a session's name says that it comes before another; names of two kinds (bl, v2) say nothing."""
    months, others = months_of_visit(first), months_of_visit(second)
    if months is not None and others is not None:
        return months < others
    one, another = _natural(first), _natural(second)
    return one[0][0] == another[0][0] and one < another


def _visit_order(rows: pd.DataFrame) -> list[Finding]:
    """Months against ages, then session names against both."""
    found = []
    timed = rows.dropna(subset=["age", "months"]).sort_values("months", kind="stable")
    falls = np.diff(timed["age"].to_numpy()) < -AGE_SLACK_YEARS / 2
    if falls.any():
        pair = timed.iloc[[int(falls.argmax()), int(falls.argmax()) + 1]]
        found.append(
            Finding(
                ERROR,
                "session-order",
                f"{pair['participant_id'].iloc[0]} grows younger: {pair['age'].iloc[0]:g} years at month "
                f"{pair['months'].iloc[0]:g} and {pair['age'].iloc[1]:g} at month {pair['months'].iloc[1]:g}",
                "correct ages or months; results over time depend on them",
                *_concern(pair),
            )
        )
    for column in ("months", "age"):
        known = rows.dropna(subset=[column])
        slack = AGE_SLACK_YEARS / 2 if column == "age" else 0.0
        names, values = known["session_id"].tolist(), known[column].tolist()
        exchanged = [
            [one, another]
            for one, another in itertools.permutations(range(len(known)), 2)
            if values[another] < values[one] - slack and _named_before(names[one], names[another])
        ]
        if exchanged and not falls.any():
            pair = known.iloc[exchanged[0]]
            first, second = pair["session_id"]
            found.append(
                Finding(
                    WARNING,
                    "session-names",
                    f"{pair['participant_id'].iloc[0]}: session {first} comes before {second} by name, but "
                    f"{pair[column].iloc[0]:g} against {pair[column].iloc[1]:g} by {column}",
                    "check whether two sessions were exchanged",
                    *_concern(pair),
                )
            )
            break
    same = rows[rows["months"].notna() & rows.duplicated("months", keep=False)]
    if len(same):
        found.append(
            Finding(
                NOTICE,
                "same-visit",
                f"{same['participant_id'].iloc[0]} has {len(same)} scans at one month ({same['months'].iloc[0]:g})",
                "keep one, unless repeated scans are wanted",
                *_concern(same),
            )
        )
    return found


def _ages(rows: pd.DataFrame) -> list[Finding]:
    timed = rows.dropna(subset=["age", "months"])
    if len(timed) < 2:
        return []
    at_baseline = timed["age"] - timed["months"] / 12.0
    if float(at_baseline.max() - at_baseline.min()) <= AGE_SLACK_YEARS + 1e-6:
        return []
    pair = timed.loc[[at_baseline.idxmin(), at_baseline.idxmax()]]
    if pair.sort_values("months")["age"].diff().iloc[-1] < -AGE_SLACK_YEARS / 2:
        return []  # already said: the session order contradicts the ages
    years, months = abs(pair["age"].diff().iloc[-1]), abs(pair["months"].diff().iloc[-1])
    return [
        Finding(
            WARNING,
            "age-months",
            f"{pair['participant_id'].iloc[0]}: {months:g} months but {years:.1f} years of age lie between two sessions",
            "give the age at each scan, or correct the months",
            *_concern(pair),
        )
    ]


def _sex(rows: pd.DataFrame) -> list[Finding]:
    values = rows["sex"].dropna().unique()
    if len(values) < 2:
        return []
    message = f"{rows['participant_id'].iloc[0]} is {' and '.join(values)}"
    return [
        Finding(ERROR, "sex-changes", message, "correct the table; check whether scans were exchanged", *_concern(rows))
    ]


def _diagnoses(rows: pd.DataFrame) -> list[Finding]:
    order = "months" if rows["months"].notna().all() else "age"
    if rows[order].isna().any():
        return []
    rows = rows.sort_values(order, kind="stable")
    stages = [(row, stage) for row, name in enumerate(rows["diagnosis"]) if (stage := clinical_stage(name)) is not None]
    for (before, earlier), (after, later) in itertools.pairwise(stages):
        if later >= earlier:
            continue
        severity, code = {
            (1, 0): (NOTICE, "reversion"),
            (2, 1): (WARNING, "diagnosis-improves"),
            (2, 0): (ERROR, "diagnosis-impossible"),
        }[earlier, later]
        pair = rows.iloc[[before, after]]
        first, second = pair["diagnosis"]
        remedy = "reversion from MCI occurs; nothing, unless it is an error of the table"
        return [
            Finding(
                severity,
                code,
                f"{pair['participant_id'].iloc[0]} goes from {first} to {second}",
                remedy
                if severity == NOTICE
                else "check the table; leave the person out of analyses of labels otherwise",
                *_concern(pair),
            )
        ]
    return []


def _splits(rows: pd.DataFrame) -> list[Finding]:
    values = rows["split"].dropna().unique()
    if len(values) < 2:
        return []
    return [
        Finding(
            ERROR,
            "two-splits",
            f"{rows['participant_id'].iloc[0]} is in {' and '.join(values)}: results on the test part would be too good",
            "empty the split column and run 'ldae cohort split' to freeze a new one by subject",
            *_concern(rows),
        )
    ]


def _size(table: pd.DataFrame) -> list[Finding]:
    people = table["participant_id"].nunique()
    if people >= MIN_SUBJECTS:
        return []
    message = f"{people} subject(s): figures over them will have wide intervals"
    return [Finding(NOTICE, "few-subjects", message, "fine for a first look; comparisons between groups need more")]


def _missing(table: pd.DataFrame) -> list[Finding]:
    found = []
    for column in ("age", "sex", "diagnosis"):
        rows = table[table[column].isna()]
        if 0 < len(rows) < len(table):
            message = f"{column} is missing in {len(rows)} of {len(table)} scans"
            severity = WARNING if len(rows) > len(table) / 2 else NOTICE
            remedy = "fill in what the study knows; scans without it are left out where it is needed"
            found.append(Finding(severity, "missing-values", message, remedy, *_concern(rows)))
        elif len(rows):
            message = f"no scan has a value for {column}"
            found.append(
                Finding(NOTICE, "missing-values", message, "nothing, unless it is to be predicted or controlled for")
            )
    return found


def _balance(table: pd.DataFrame) -> list[Finding]:
    """Classes in each split, by subject at the first visit."""
    people = table.drop_duplicates("participant_id").dropna(subset=["diagnosis"])
    shares = people["diagnosis"].value_counts(normalize=True)
    if len(shares) < 2:
        return []
    found = []
    rare = [name for name, share in shares.items() if share < MIN_CLASS_SHARE]
    if rare:
        message = f"{', '.join(f'{name} has {100 * shares[name]:.0f} %' for name in rare)} of the subjects"
        found.append(
            Finding(NOTICE, "rare-class", message, "report balanced accuracy and areas under the curve, not accuracy")
        )
    split_of = people.dropna(subset=["split"])
    for split in SPLITS:
        part = split_of[split_of["split"] == split]
        absent = [str(name) for name in shares.index if name not in set(part["diagnosis"])]
        if len(part) and absent:
            message = f"no subject with {', '.join(absent)} is in {split}"
            remedy = "freeze another split ('ldae cohort split --force --seed'), before anything is trained"
            found.append(Finding(WARNING, "class-missing", message, remedy))
    return found


def _paths(table: pd.DataFrame, folder: Path) -> list[Finding]:
    """Images named twice, or outside of the folder of the data set."""
    folder = folder.absolute()
    table = table[[isinstance(image, str) for image in table["image"]]]
    places = pd.Series([os.path.normpath(folder / image) for image in table["image"]], index=table.index, dtype=object)
    found = []
    for place, rows in table.groupby(places, sort=False):
        if len(rows) > 1:
            message = f"{len(rows)} rows name one image, {place}"
            found.append(Finding(ERROR, "duplicate-path", message, "give every row its own image", *_concern(rows)))
    outside = np.array([not Path(place).is_relative_to(folder) for place in places], dtype=bool)
    relative = np.array([not Path(image).is_absolute() for image in table["image"]], dtype=bool)
    if (escaping := table[outside & relative]).size:
        message = (
            f"{len(escaping)} image path(s) leave the manifest's folder with '..', such as {escaping['image'].iloc[0]}"
        )
        remedy = "keep images below the manifest; such paths break, or lead to another file, when the folder moves"
        found.append(Finding(WARNING, "escaping-path", message, remedy, *_concern(escaping)))
    if (absolute := table[outside & ~relative]).size:
        message = f"{len(absolute)} image path(s) are absolute and lie elsewhere, such as {absolute['image'].iloc[0]}"
        remedy = "nothing, as long as the images stay there"
        found.append(Finding(NOTICE, "outside-path", message, remedy, *_concern(absolute)))
    return found
