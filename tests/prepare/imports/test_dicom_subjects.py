"""Ages and labels of the subjects of a DICOM import."""

import datetime as dt
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldae.dicom.headers import Header
from ldae.errors import CohortError
from ldae.prepare.imports.dicom.subjects import Age, KeyRow, Visit, age_at_study, name_visits, sex_of


def header(**values: str) -> Header:
    return Header({name: tuple(value.split("\\")) for name, value in values.items() if value})


DAY = "20200301"
DISAGREE = "the birth date and the written age disagree; the written age was taken"


@pytest.mark.parametrize(
    ("born", "day", "written", "expected"),
    [
        ("19500301", DAY, "", Age(70.0)),
        ("19500301", "20200901", "070Y", Age(70.5)),
        ("", DAY, "070Y", Age(70.0)),
        ("", "", "018M", Age(1.5)),
        ("", "", "026W", Age(0.5)),
        ("", "", "", Age(None)),
        ("19500301", "", "", Age(None)),
        ("1950.03.01", DAY, "", Age(70.0)),
        ("19501301", DAY, "", Age(None)),
        ("", "", "70", Age(None)),
        (DAY, DAY, "", Age(None, "the birth date is impossible and was not used")),
        (DAY, DAY, "066Y", Age(66.0, "the birth date is impossible and was not used")),
        ("19200101", DAY, "066Y", Age(66.0, DISAGREE)),
        ("", DAY, "095Y", Age(90.0, "an age over 89 was written as 90")),
        ("19300401", DAY, "", Age(89.9)),
        ("", DAY, "130Y", Age(None, "the written age is impossible and was not used")),
    ],
)
def test_age(born: str, day: str, written: str, expected: Age) -> None:
    known = header(PatientBirthDate=born, StudyDate=day, PatientAge=written)
    assert age_at_study(known) == expected
    if written == "095Y":
        assert age_at_study(known, exact=True) == Age(95.0)


def test_sex_is_f_m_or_nothing() -> None:
    found = [sex_of(header(PatientSex=value)) for value in ("F", "m", "O", "", "Zanzibar")]
    assert found == ["F", "M", None, None, None]


def named(patients: list[str], known: dict[str, str] | None = None, **options: bool) -> dict[str, str]:
    """PatientID -> the label that a visit of each patient gets."""
    key = [KeyRow(label, "01", patient, "", "1.2", patient, "") for patient, label in (known or {}).items()]
    visits = [Visit(patient, f"1.3.{i}", (), None) for i, patient in enumerate(patients)]
    return {visit.patient: visit.subject for visit in name_visits(visits, key, random.Random(0), [], **options)}


IDENTIFIERS = st.text("aÄ0^ -", min_size=1, max_size=4)


@given(st.lists(IDENTIFIERS, unique=True, max_size=12), st.dictionaries(IDENTIFIERS, st.just("0003"), max_size=1))
def test_new_labels_are_distinct_numbers(patients: list[str], known: dict[str, str]) -> None:
    labels = {patient: label.removeprefix("sub-") for patient, label in named(patients, known).items()}
    assert set(labels) == set(patients)
    assert len(set(labels.values())) == len(patients)
    assert all(len(label) == 4 and label.isdigit() for label in labels.values())
    assert all(labels[patient] == label for patient, label in known.items() if patient in labels)
    assert not {labels[p] for p in patients if p not in known} & set(known.values())


def test_identifiers_as_labels() -> None:
    assert named(["A-1", "b 2"], keep_patient_id=True) == {"A-1": "sub-A1", "b 2": "sub-b2"}
    for patients in (["A-1", "A1"], ["--"]):
        with pytest.raises(CohortError, match="leave out --keep-patient-id"):
            named(patients, keep_patient_id=True)


def test_months_count_from_the_first_visit_to_a_tenth() -> None:
    days = [dt.date(2020, 3, 1), dt.date(2020, 5, 20), dt.date(2021, 3, 1)]
    visits = [Visit("A", f"1.{i}", (), day) for i, day in enumerate(days)]
    named = name_visits(visits, [], random.Random(0), [])
    assert [(visit.session, visit.months) for visit in named] == [("ses-01", 0.0), ("ses-02", 2.6), ("ses-03", 12.0)]
