"""Subjects and visits of a DICOM import: labels, ages, months, and the key that tells which label is whose."""

import datetime as dt
import itertools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd

from ldae.base.files import write_text
from ldae.data.schema import MAX_AGE_YEARS
from ldae.dicom.headers import Header, Series
from ldae.errors import CohortError
from ldae.prepare.imports.dates import DAYS_PER_MONTH, DAYS_PER_YEAR, try_date

__all__ = [
    "Age",
    "KeyRow",
    "Visit",
    "age_at_study",
    "capped_age",
    "group_visits",
    "name_visits",
    "patient_of",
    "read_key",
]
__all__ += ["sex_of", "write_key"]

AGE_UNITS_IN_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / DAYS_PER_YEAR, "D": 1 / DAYS_PER_YEAR}
TOP_AGE_YEARS = 90.0
"""Ages over 89 become this one, because they identify (HIPAA, 45 CFR 164.514(b)(2)(i)(C))."""
AGE_TOLERANCE_YEARS = 2.0
WITHOUT_ID = "without PatientID, study "
"""Before the study's identifier, this stands in the key for a subject without PatientID."""


@dataclass(frozen=True)
class Age:
    """An age at a study.

    Attributes:
        years: to a tenth; None if unknown.
        warning: what is odd, in fixed words.
    """

    years: float | None
    warning: str | None = None


@dataclass(frozen=True)
class KeyRow:
    """The identity of a scan: labels without 'sub-' and 'ses-', what its header has, and the image's path in the cohort."""

    subject: str
    session: str
    patient: str
    study_date: str
    study: str
    series: str
    image: str


@dataclass(frozen=True)
class Visit:
    """The series of one study of a subject that make volumes.

    Attributes:
        patient: PatientID, or what stands for it.
        study: StudyInstanceUID.
        series: in the order of their numbers.
        day: of the study.
        subject: the label, with 'sub-'.
        session: the label, with 'ses-'.
        months: since the subject's first known visit.
    """

    patient: str
    study: str
    series: tuple[Series, ...]
    day: dt.date | None
    subject: str = ""
    session: str = ""
    months: float | None = None


def age_at_study(header: Header, *, exact: bool = False) -> Age:
    """Age from birth date and study date, else from the written age.

    A birth date is not used where it is on the day of the study or later, or more than two years away from the written age:
    de-identification often leaves such dates. Ages over 89 are kept only if `exact`.
    """
    born, day = try_date(header.text("PatientBirthDate")), try_date(header.text("StudyDate"))
    computed = (day - born).days / DAYS_PER_YEAR if born and day else None
    match = re.fullmatch(r"(\d{1,3})([YMWD])", header.text("PatientAge").upper())
    written = int(match[1]) * AGE_UNITS_IN_YEARS[match[2]] if match else None
    warning = None
    if computed is not None and not 0 < computed <= MAX_AGE_YEARS:
        computed, warning = None, "the birth date is impossible and was not used"
    # The written age counts whole years.
    if computed is not None and written is not None and abs(computed - written - 0.5) > AGE_TOLERANCE_YEARS:
        computed, warning = None, "the birth date and the written age disagree; the written age was taken"
    years = computed if computed is not None else written
    if years is None:
        return Age(None, warning)
    if years > MAX_AGE_YEARS:
        return Age(None, "the written age is impossible and was not used")
    capped = capped_age(years, exact=exact)
    return Age(round(years, 1), warning) if capped.warning is None else capped


def capped_age(years: float, *, exact: bool = False) -> Age:
    """An age as it may be published: those over 89 become 90 unless `exact`."""
    if years < TOP_AGE_YEARS or exact:
        return Age(years)
    return Age(TOP_AGE_YEARS, "an age over 89 was written as 90")


def sex_of(header: Header) -> str | None:
    """F, M, or None."""
    word = header.text("PatientSex").upper()
    return word if word in ("F", "M") else None


def patient_of(series: Series) -> str:
    """PatientID of a series; without one, each study counts as a subject."""
    return series.header.text("PatientID") or WITHOUT_ID + series.header.text("StudyInstanceUID")


def group_visits(series: Iterable[Series]) -> list[Visit]:
    """The studies of series, in their order; of a visit the first series states the day."""
    studies: dict[tuple[str, str], list[Series]] = {}
    for each in series:
        studies.setdefault((patient_of(each), each.header.text("StudyInstanceUID")), []).append(each)
    return [Visit(*key, tuple(own), try_date(own[0].header.text("StudyDate"))) for key, own in studies.items()]


def name_visits(
    visits: Sequence[Visit],
    known: Sequence[KeyRow],
    rng: random.Random,
    warnings: list[str],
    *,
    keep_patient_id: bool = False,
) -> list[Visit]:
    """The visits with labels, and months since the subject's first one.

    Subjects and studies of the key keep their labels, and further visits of such a subject are numbered on: two imports with
    one key never give one name to two visits.

    Args:
        visits: those of a subject in order of time.
        known: the key of former imports.
        rng: deals new labels.
        warnings: receives oddities, in fixed words under the new labels.
        keep_patient_id: PatientID gives the labels.

    Raises:
        CohortError: if identifiers that should be kept are missing or differ in punctuation only.
    """
    patients = list(dict.fromkeys(visit.patient for visit in visits))
    if keep_patient_id:
        labels = _patient_labels(patients)
    else:
        labels = _new_labels(patients, {row.patient: row.subject for row in known}, rng)
    named: list[Visit] = []
    for patient in sorted(patients, key=lambda each: labels[each]):
        own = [visit for visit in visits if visit.patient == patient]
        subject = f"sub-{labels[patient]}"
        if patient.startswith(WITHOUT_ID):
            warnings.append(f"{subject}: no patient identifier in the headers, so each study counts as a subject")
        past = {row.study: row for row in known if row.patient == patient}
        named += _in_time(own, past, subject, warnings)
    return named


def read_key(path: Path) -> list[KeyRow]:
    """The rows of a key; none if there is no such file yet.

    Raises:
        CohortError: if the file is something else.
    """
    if not path.exists():
        return []
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        table = pd.DataFrame()
    if list(table) != [field.name for field in fields(KeyRow)] or table.isna().any(axis=None):
        msg = f"{path}: there is something already that is no key of an import; give another file with --key"
        raise CohortError(msg)
    return [KeyRow(*row) for row in table.itertuples(index=False)]


def write_key(path: Path, rows: Sequence[KeyRow]) -> None:
    """Write the key, readable by its owner alone; of several rows of a series the last one counts."""
    table = pd.DataFrame(rows).drop_duplicates("series", keep="last")
    write_text(path, table.to_csv(sep="\t", index=False, lineterminator="\n"))
    path.chmod(0o600)


def _patient_labels(patients: Sequence[str]) -> dict[str, str]:
    """The patients' identifiers as BIDS labels: letters and digits only."""
    labels: dict[str, str] = {}
    for patient in patients:
        label = "" if patient.startswith(WITHOUT_ID) else re.sub(r"[^A-Za-z0-9]", "", patient)
        if not label or label in labels.values():
            what = "two PatientIDs differ only in punctuation" if label else "some headers have no PatientID to keep"
            msg = f"{what}; leave out --keep-patient-id"
            raise CohortError(msg)
        labels[patient] = label
    return labels


def _new_labels(patients: Sequence[str], known: Mapping[str, str], rng: random.Random) -> dict[str, str]:
    """Known labels, and for other patients running numbers in random order, which tells neither names nor dates."""
    labels = {patient: known[patient] for patient in patients if patient in known}
    fresh = [patient for patient in patients if patient not in known]
    rng.shuffle(fresh)
    used = set(known.values())
    numbers = (f"{n:04d}" for n in range(1, len(used) + len(fresh) + 1))
    return labels | dict(zip(fresh, (number for number in numbers if number not in used), strict=False))


def _in_time(own: Sequence[Visit], past: Mapping[str, KeyRow], subject: str, warnings: list[str]) -> list[Visit]:
    """One subject's visits with labels and months; `past` has the key's row of each study."""
    past_days = [try_date(row.study_date) for row in past.values()]
    all_days = [*past_days, *(visit.day for visit in own if visit.study not in past)]
    days = [day for day in all_days if day is not None]
    whole = len(days) == len(all_days)
    if len(all_days) > 1 and not whole:
        warnings.append(f"{subject}: not all visits have a date; their order may be wrong and months are unknown")
    elif past and min(days, default=None) not in past_days:
        warnings.append(
            f"{subject}: a visit before those of former imports; months count from it here, but not in the former cohorts"
        )
    taken = max((int(row.session) for row in past.values() if row.session.isdecimal()), default=0)
    numbers = itertools.count(taken + 1)
    timed = []
    for visit in own:
        session = past[visit.study].session if visit.study in past else f"{next(numbers):02d}"
        months = 0.0 if len(all_days) == 1 else None
        if len(all_days) > 1 and whole and visit.day is not None:
            # To a tenth: the days themselves are not kept.
            months = round((visit.day - min(days)).days / DAYS_PER_MONTH, 1)
        timed.append(replace(visit, subject=subject, session=f"ses-{session}", months=months))
    return timed
