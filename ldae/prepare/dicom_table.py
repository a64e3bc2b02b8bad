"""A table of people that goes with DICOM folders: what headers do not know, matched by the patients' identifiers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ldae.data.schema import normal_sex
from ldae.data.text_table import read_text_table
from ldae.errors import CohortError
from ldae.prepare.dicom_people import day_of

__all__ = ["PeopleTable", "read_people"]

# Names without case and punctuation. No other column is carried into the manifest: it could identify.
NAMES = {
    "patient": "participantid patientid ptid subjectid subject rid id",
    "session": "sessionid session ses",
    "day": "studydate scandate examdate acquisitiondate date",
    "age": "age ageatscan ageatvisit",
    "sex": "sex gender",
    "diagnosis": "diagnosis dx group",
    "months": "months monthssincebaseline",
    "site": "site siteid",
    "split": "split",
}
CARRIED = ("age", "sex", "diagnosis", "months", "site", "split")


@dataclass
class PeopleTable:
    """Rows of people or of visits.

    Attributes:
        rows: what each row carries, and by what it is found.
        used: positions of the rows that a scan was found for.
    """

    rows: tuple[Mapping[str, str], ...] = ()
    used: set[int] = field(default_factory=set)

    def find(self, patient: str, session: str, day: str | None) -> dict[str, str]:
        """What the table says of a visit; nothing if no row fits.

        Args:
            patient: PatientID, as the header has it.
            session: the new label of the visit.
            day: of the study, YYYY-MM-DD; None if unknown.

        Raises:
            CohortError: if several rows fit.
        """
        fits = [
            i
            for i, row in enumerate(self.rows)
            if row["patient"] == patient
            and ("day" not in row or row["day"] == day)
            and ("session" not in row or row["session"].removeprefix("ses-") == session.removeprefix("ses-"))
        ]
        if len(fits) > 1:
            msg = (
                f"the table has {len(fits)} rows for the visit {session} of one patient; give each row a study_date or "
                "a session_id, or keep one row a person"
            )
            raise CohortError(msg)
        if not fits:
            return {}
        self.used.add(fits[0])
        return {name: value for name, value in self.rows[fits[0]].items() if name in CARRIED}

    @property
    def unused(self) -> tuple[str, ...]:
        """Identifiers in the rows that no scan was found for; they identify people."""
        return tuple(row["patient"] for i, row in enumerate(self.rows) if i not in self.used)


def read_people(path: Path) -> PeopleTable:
    """Read a table with one row a person, or one row a visit where it has a column of study dates or sessions.

    Raises:
        CohortError: if it has no column of identifiers, or a date that cannot be read.
        ManifestError: if it is no table.
    """
    cells = read_text_table(path)
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): i for i, name in reversed(list(enumerate(cells.columns)))}
    place = {
        name: plain[next(word for word in words.split() if word in plain)]
        for name, words in NAMES.items()
        if set(words.split()) & set(plain)
    }
    if "patient" not in place:
        msg = (
            f"{path}: no column of identifiers among {', '.join(cells.columns)}; name the one that holds the headers' "
            "PatientID participant_id"
        )
        raise CohortError(msg)
    rows = []
    for line, values in zip(cells.lines, cells.rows, strict=True):
        row = {name: value for name, i in place.items() if (value := values[i]) is not None}
        if "patient" not in row:
            msg = f"{path}: line {line} has no {cells.columns[place['patient']]}; give every row an identifier"
            raise CohortError(msg)
        if "day" in row:
            day = day_of(row["day"])
            if day is None:
                msg = f"{path}: line {line}: the date {row['day']!r} is not written YYYY-MM-DD; rewrite the column"
                raise CohortError(msg)
            row["day"] = day.isoformat()
        if "sex" in row:
            row["sex"] = normal_sex(row["sex"]) or ""
        rows.append(row)
    return PeopleTable(tuple(rows))
