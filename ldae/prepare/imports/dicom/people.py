"""What may be known of people and scans after import: labels, ages, months, and words of closed lists.

No text of a header is copied into any result. Numbers are parsed and written anew; words are looked up in lists of
known ones, and what is in no list is left out.
"""

import datetime as dt
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldae.data.schema import MAX_AGE_YEARS
from ldae.dicom.headers import Header
from ldae.errors import CohortError
from ldae.prepare.imports.dates import read_date
from ldae.prepare.imports.visits import DAYS_PER_MONTH, DAYS_PER_YEAR

__all__ = [
    "TOP_AGE_YEARS",
    "Age",
    "age_at_study",
    "capped_age",
    "day_of",
    "months_between",
    "new_labels",
    "patient_labels",
    "scan_facts",
    "sex_of",
    "study_day",
]

AGE_UNITS_IN_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / DAYS_PER_YEAR, "D": 1 / DAYS_PER_YEAR}
TOP_AGE_YEARS = 90.0
"""Ages over 89 become this one: with less than this they identify (HIPAA, 45 CFR 164.514(b)(2)(i)(C))."""
AGE_TOLERANCE_YEARS = 2.0

# BIDS's name -> the element, and the factor that brings it to BIDS's unit.
NUMBERS: Mapping[str, tuple[str, float]] = {
    "MagneticFieldStrength": ("MagneticFieldStrength", 1.0),
    "EchoTime": ("EchoTime", 1e-3),
    "RepetitionTime": ("RepetitionTime", 1e-3),
    "InversionTime": ("InversionTime", 1e-3),
    "FlipAngle": ("FlipAngle", 1.0),
    "SliceThickness": ("SliceThickness", 1.0),
    "SpacingBetweenSlices": ("SpacingBetweenSlices", 1.0),
    "PixelBandwidth": ("PixelBandwidth", 1.0),
    "EchoTrainLength": ("EchoTrainLength", 1.0),
    "PercentSampling": ("PercentSampling", 1.0),
    "PercentPhaseFOV": ("PercentPhaseFieldOfView", 1.0),
}
CODES: Mapping[str, tuple[str, frozenset[str]]] = {
    "MRAcquisitionType": ("MRAcquisitionType", frozenset({"2D", "3D"})),
    "ScanningSequence": ("ScanningSequence", frozenset(["SE", "IR", "GR", "EP", "RM"])),
    "SequenceVariant": ("SequenceVariant", frozenset(["SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"])),
    "PatientPosition": ("PatientPosition", frozenset(["HFS", "HFP", "HFDL", "HFDR", "FFS", "FFP", "FFDL", "FFDR"])),
}
MANUFACTURERS = {
    "siemens": "Siemens",
    "philips": "Philips",
    "ge": "GE",
    "general electric": "GE",
    "canon": "Canon",
    "toshiba": "Toshiba",
    "hitachi": "Hitachi",
    "fujifilm": "Fujifilm",
    "united imaging": "United Imaging",
    "uih": "United Imaging",
    "bruker": "Bruker",
    "hyperfine": "Hyperfine",
    "ldae": "ldae",
}
MODELS = (
    "Prisma_fit,Prisma,Skyra_fit,Skyra,TrioTim,Trio,Verio,Avanto_fit,Avanto,Aera,Vida,Lumina,Sola,Altea,Amira,Cima.X,"
    "Terra.X,Terra,Spectra,Symphony,SymphonyTim,Sonata,Allegra,Espree,Essenza,Vision,Biograph_mMR,Investigational_Device_7T,"
    "Achieva dStream,Achieva,Ingenia Elition X,Ingenia Ambition X,Ingenia CX,Ingenia,Intera,Gyroscan NT,Gyroscan Intera,"
    "Ingenuity,Panorama,Discovery MR750w,Discovery MR750,Discovery MR450,Signa HDxt,Signa HDx,Signa Excite,Signa Premier,"
    "Signa Architect,Signa Artist,Signa Pioneer,Signa Voyager,Signa Explorer,Signa PET/MR,Signa UHP,Genesis_Signa,Signa,"
    "Optima MR450w,Optima MR360,Vantage Titan,Vantage Galan 3T,Vantage Orian,Vantage Elan,Titan3T,Echelon Oval,Echelon,"
    "Oasis,Airis,uMR 790,uMR 780,uMR 770,uMR 570,uMR Omega,Swoop"
)


@dataclass(frozen=True)
class Age:
    """An age at a study.

    Attributes:
        years: to a tenth; None if unknown.
        warning: what is odd, in fixed words.
    """

    years: float | None
    warning: str | None = None


def study_day(header: Header) -> dt.date | None:
    """The day of a study, if its header has one."""
    return day_of(header.text("StudyDate"))


def day_of(text: str) -> dt.date | None:
    """The day that a header states; None where it is none, or could be two."""
    try:
        return read_date(text)
    except CohortError:
        return None


def months_between(first: dt.date, later: dt.date) -> float:
    """Months from one day to another, to a tenth: the days themselves are not kept."""
    return round((later - first).days / DAYS_PER_MONTH, 1)


def age_at_study(header: Header, *, exact: bool = False) -> Age:
    """Age from birth date and study date, else from the written age.

    A birth date is not believed where it is on the day of the study or later, or more than two years away from
    the written age: de-identification often leaves such dates.

    Args:
        header: of the study.
        exact: keep ages over 89.
    """
    born, day = day_of(header.text("PatientBirthDate")), study_day(header)
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
    """An age as it may be published.

    Args:
        years: from a header or a table.
        exact: keep ages over 89.
    """
    return (
        Age(TOP_AGE_YEARS, "an age over 89 was written as 90") if years >= TOP_AGE_YEARS and not exact else Age(years)
    )


def sex_of(header: Header) -> str | None:
    """F, M, or None."""
    word = header.text("PatientSex").upper()
    return word if word in ("F", "M") else None


def patient_labels(patients: Sequence[str]) -> dict[str, str]:
    """The patients' own identifiers as BIDS labels: letters and digits only.

    Raises:
        CohortError: if one is empty then, or two are the same.
    """
    labels: dict[str, str] = {}
    for patient in patients:
        label = re.sub(r"[^A-Za-z0-9]", "", patient)
        if not label or label in labels.values():
            what = "two patients' identifiers differ only in punctuation" if label else "a patient has no identifier"
            msg = f"{what}, so they cannot be kept as labels; leave out --keep-patient-id"
            raise CohortError(msg)
        labels[patient] = label
    return labels


def new_labels(patients: Sequence[str], known: Mapping[str, str], rng: random.Random) -> dict[str, str]:
    """Running numbers for patients, dealt in random order: neither names nor dates can be told from their order.

    Args:
        patients: their identifiers.
        known: labels given before, which are kept.
        rng: deals the numbers.
    """
    labels = {patient: known[patient] for patient in patients if patient in known}
    fresh = [patient for patient in patients if patient not in known]
    rng.shuffle(fresh)
    used = set(known.values())
    numbers = (f"{n:04d}" for n in range(1, len(used) + len(fresh) + 1))
    free = [number for number in numbers if number not in used]
    return labels | dict(zip(fresh, free, strict=False))


def scan_facts(header: Header) -> dict[str, Any]:
    """What the side-car tells of a scan, under BIDS's names: numbers, and words of closed lists."""
    facts: dict[str, Any] = {}
    if header.words("Modality") == ("MR",):
        facts["Modality"] = "MR"
    maker = _known(header.text("Manufacturer"), MANUFACTURERS)
    if maker is not None:
        facts["Manufacturer"] = MANUFACTURERS[maker]
    # Longer names first, so that a 'Signa Premier' is not called 'Signa'.
    model = _known(header.text("ManufacturerModelName"), sorted(MODELS.split(","), key=len, reverse=True))
    if model is not None:
        facts["ManufacturersModelName"] = model
    for name, (keyword, factor) in NUMBERS.items():
        value = header.number(keyword)
        # A number of six digits is no setting of a scanner, and might be somebody's.
        if value is not None and abs(value) < 1e5:
            facts[name] = float(f"{value * factor:.6g}")
    for name, (keyword, known) in CODES.items():
        words = [word for word in header.words(keyword) if word in known]
        if words:
            facts[name] = "_".join(words)
    return facts


def _known(text: str, names: Sequence[str] | Mapping[str, str]) -> str | None:
    """The first of known names that stands in a text as whole words."""
    plain = f" {re.sub(r'[^a-z0-9]+', ' ', text.lower())} "
    return next((name for name in names if f" {re.sub(r'[^a-z0-9]+', ' ', name.lower())} " in plain), None)
