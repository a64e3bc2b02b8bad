"""The visits of a DICOM import: which series belong together, and what person and visit are called."""

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ldae.dicom.headers import Series
from ldae.errors import CohortError
from ldae.prepare.imports.dicom.files import KeyRow
from ldae.prepare.imports.dicom.people import day_of, months_between, new_labels, patient_labels, study_day

__all__ = ["Visit", "group_visits", "name_visits", "patient_of"]

NOBODY = "without PatientID, study "
"""Before the study's identifier, which stands for a person without one in the key."""


@dataclass(frozen=True)
class Visit:
    """Series of one study of a person that make volumes.

    Attributes:
        patient: PatientID, or what stands for it.
        study: StudyInstanceUID.
        series: in the order of their numbers.
        day: of the study.
        subject: the label, with 'sub-'.
        session: the label, with 'ses-'.
        months: since the person's first visit that is known.
    """

    patient: str
    study: str
    series: tuple[Series, ...]
    day: dt.date | None
    subject: str = ""
    session: str = ""
    months: float | None = None


def patient_of(series: Series) -> str:
    """Who a series is of; where there is no identifier, each study is somebody of its own."""
    return series.header.text("PatientID") or NOBODY + series.header.text("StudyInstanceUID")


def group_visits(suitable: Iterable[Series]) -> list[Visit]:
    """The studies in order of person, day and time.

    Args:
        suitable: series in that order.
    """
    studies: dict[tuple[str, str], list[Series]] = {}
    for series in suitable:
        studies.setdefault((patient_of(series), series.header.text("StudyInstanceUID")), []).append(series)
    return [Visit(*key, tuple(study), study_day(study[0].header)) for key, study in studies.items()]


def name_visits(
    visits: Sequence[Visit],
    known: Sequence[KeyRow],
    rng: random.Random,
    warnings: list[str],
    *,
    keep_patient_id: bool = False,
) -> list[Visit]:
    """The visits with labels, and months since the first of the person.

    People and studies of the key keep their labels, and further visits of such a person are numbered on: two imports with
    one key never give one name to two visits.

    Args:
        visits: a person's in order of time.
        known: the key of former imports.
        rng: deals new labels.
        warnings: what deserves a look is added here, in fixed words under the new labels.
        keep_patient_id: PatientID gives the labels.

    Raises:
        CohortError: if identifiers that should be kept are missing or differ in punctuation only.
    """
    patients = list(dict.fromkeys(visit.patient for visit in visits))
    if keep_patient_id and any(patient.startswith(NOBODY) for patient in patients):
        msg = "some headers have no PatientID to keep; leave out --keep-patient-id"
        raise CohortError(msg)
    former = {row.patient: row.subject for row in known}
    labels = patient_labels(patients) if keep_patient_id else new_labels(patients, former, rng)
    named: list[Visit] = []
    for patient in sorted(patients, key=lambda each: labels[each]):
        own = [visit for visit in visits if visit.patient == patient]
        subject = f"sub-{labels[patient]}"
        if patient.startswith(NOBODY):
            warnings.append(f"{subject}: no patient identifier in the headers, so each study counts as a person")
        past = {row.study: row for row in known if row.patient == patient}
        named += [replace(visit, subject=subject) for visit in _in_time(own, past, subject, warnings)]
    return named


def _in_time(own: Sequence[Visit], past: dict[str, KeyRow], subject: str, warnings: list[str]) -> list[Visit]:
    """One person's visits with session and months.

    Args:
        own: the visits of this import.
        past: study -> its row in the key.
        subject: the label.
        warnings: what deserves a look is added here.
    """
    past_days = [day_of(row.study_date) for row in past.values()]
    fresh = [visit.day for visit in own if visit.study not in past]
    all_days = [*past_days, *fresh]
    days = [day for day in all_days if day is not None]
    whole = len(days) == len(all_days)
    if len(all_days) > 1 and not whole:
        warnings.append(f"{subject}: not all visits have a date; their order may be wrong and months are unknown")
    elif past and min(days, default=None) not in past_days:
        warnings.append(
            f"{subject}: a visit before those of former imports; months count from it here, but not in the former cohorts"
        )
    number = max((int(row.session) for row in past.values() if row.session.isdecimal()), default=0)
    timed = []
    for visit in own:
        if visit.study in past:
            session = past[visit.study].session
        else:
            number += 1
            session = f"{number:02d}"
        if len(all_days) == 1:
            months: float | None = 0.0
        else:
            months = months_between(min(days), visit.day) if whole and visit.day is not None else None
        timed.append(replace(visit, session=f"ses-{session}", months=months))
    return timed
