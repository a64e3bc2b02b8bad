"""Ages, months, labels and words of closed lists."""

import datetime as dt
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldae.dicom.headers import Header
from ldae.errors import CohortError
from ldae.prepare.imports.dicom.people import (
    Age,
    age_at_study,
    months_between,
    new_labels,
    patient_labels,
    scan_facts,
    sex_of,
)


def header(**values: str) -> Header:
    return Header({name: tuple(value.split("\\")) for name, value in values.items() if value})


@pytest.mark.parametrize(
    ("born", "day", "written", "years"),
    [
        ("19500301", "20200301", "", 70.0),
        ("19500301", "20200901", "070Y", 70.5),
        ("", "20200301", "070Y", 70.0),
        ("", "", "018M", 1.5),
        ("", "", "026W", 0.5),
        ("", "", "", None),
        ("19500301", "", "", None),
        ("1950.03.01", "20200301", "", 70.0),
        ("19501301", "20200301", "", None),
        ("", "", "70", None),
    ],
)
def test_age(born: str, day: str, written: str, years: float | None) -> None:
    age = age_at_study(header(PatientBirthDate=born, StudyDate=day, PatientAge=written))
    assert age == Age(years)


@pytest.mark.parametrize(
    ("born", "written", "exact", "expected"),
    [
        ("20200301", "", False, Age(None, "the birth date is impossible and was not used")),
        ("20200301", "066Y", False, Age(66.0, "the birth date is impossible and was not used")),
        (
            "19200101",
            "066Y",
            False,
            Age(66.0, "the birth date and the written age disagree; the written age was taken"),
        ),
        ("", "095Y", False, Age(90.0, "an age over 89 was written as 90")),
        ("", "095Y", True, Age(95.0)),
        ("19300401", "", False, Age(89.9)),
        ("", "130Y", True, Age(None, "the written age is impossible and was not used")),
    ],
)
def test_odd_ages(born: str, written: str, exact: bool, expected: Age) -> None:
    assert (
        age_at_study(header(PatientBirthDate=born, StudyDate="20200301", PatientAge=written), exact=exact) == expected
    )


def test_sex_is_f_m_or_nothing() -> None:
    assert [sex_of(header(PatientSex=value)) for value in ("F", "m", "O", "", "Zanzibar")] == [
        "F",
        "M",
        None,
        None,
        None,
    ]


def test_months() -> None:
    assert months_between(dt.date(2020, 3, 1), dt.date(2021, 3, 1)) == 12.0
    assert months_between(dt.date(2020, 3, 1), dt.date(2020, 5, 20)) == 2.6


@given(st.lists(st.text(min_size=1), unique=True, max_size=12), st.dictionaries(st.text(), st.just("0003"), max_size=1))
def test_new_labels_are_distinct_numbers(patients: list[str], known: dict[str, str]) -> None:
    labels = new_labels(patients, known, random.Random(0))
    assert set(labels) == set(patients)
    assert len(set(labels.values())) == len(patients)
    assert all(len(label) == 4 and label.isdigit() for label in labels.values())
    assert all(labels[patient] == label for patient, label in known.items() if patient in labels)
    assert not {labels[p] for p in patients if p not in known} & set(known.values())


def test_identifiers_as_labels() -> None:
    assert patient_labels(["A-1", "b 2"]) == {"A-1": "A1", "b 2": "b2"}
    for patients in (["A-1", "A1"], ["--"]):
        with pytest.raises(CohortError, match="leave out --keep-patient-id"):
            patient_labels(patients)


def test_facts_are_numbers_and_known_words() -> None:
    facts = scan_facts(
        header(
            Modality="MR",
            Manufacturer="GE MEDICAL SYSTEMS, ward 7",
            ManufacturerModelName="DISCOVERY MR750w of Jane",
            MagneticFieldStrength="3",
            EchoTime="2.976",
            FlipAngle="Jane",
            PixelBandwidth="123456789",
            ScanningSequence="GR\\Jane",
            PatientPosition="Jane",
        )
    )
    assert facts == {
        "Modality": "MR",
        "Manufacturer": "GE",
        "ManufacturersModelName": "Discovery MR750w",
        "MagneticFieldStrength": 3.0,
        "EchoTime": 0.002976,
        "ScanningSequence": "GR",
    }
    assert "Manufacturer" not in scan_facts(header(Manufacturer="Gemini"))
