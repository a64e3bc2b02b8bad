"""A table that goes with DICOM folders: values that headers do not hold, matched by PatientID."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ldae.data.text_table import read_text_table
from ldae.errors import CohortError
from ldae.prepare.imports.columns import SEX_CODES, SYNONYMS, plain_name, recognise
from ldae.prepare.imports.dates import try_date

__all__ = ["SubjectTable", "read_subjects"]

# Names without case and punctuation, beside those that any table's columns go by.
PATIENT = "patientid"
DAYS = "studydate scandate examdate acquisitiondate date"
# A study's own code of a visit is not the label that the import gives.
SESSIONS = "sessionid session ses"
# Values at baseline, which must not pass for those of every visit.
AT_ENTRY = frozenset({"ageatentry", "dxbl"})
CARRIED = ("age", "sex", "diagnosis", "months", "site", "split")
"""No other column goes into the manifest: it could identify."""
KEYS = ("patient", "day", "session")


@dataclass
class SubjectTable:
    """Rows of subjects or of visits.

    Attributes:
        rows: text under the names of the manifest, and `patient`, `day` and `session` to find it by.
        used: index of the rows that a scan was found for.
    """

    rows: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*KEYS, *CARRIED]))
    used: set[int] = field(default_factory=set)

    def find(self, patient: str, session: str, day: str | None) -> dict[str, str]:
        """The table's values of a visit; empty if no row fits.

        Args:
            patient: PatientID, as the header has it.
            session: the new label of the visit.
            day: of the study, YYYY-MM-DD; None if unknown.

        Raises:
            CohortError: if several rows fit.
        """
        fits = self.rows[self.rows["patient"] == patient]
        for name, own in (("day", day), ("session", session.removeprefix("ses-"))):
            fits = fits[fits[name].isna() | (fits[name] == own)]
        if len(fits) > 1:
            msg = (
                f"the table has {len(fits)} rows for the visit {session} of one patient; give each row a study_date or "
                "a session_id, or keep one row a subject"
            )
            raise CohortError(msg)
        self.used.update(fits.index)
        values = fits[list(CARRIED)].dropna(axis=1).to_dict("records")
        return {str(name): value for row in values for name, value in row.items()}

    @property
    def unused(self) -> tuple[str, ...]:
        """PatientIDs of the rows that no scan was found for."""
        return tuple(self.rows.loc[~self.rows.index.isin(self.used), "patient"])


def read_subjects(path: Path) -> SubjectTable:
    """Read a table with one row a subject, or one row a visit where it has a column of study dates or sessions.

    Raises:
        CohortError: if it has no column of identifiers, or a date that cannot be read.
        ManifestError: if it is no table.
    """
    cells = read_text_table(path)
    source = _columns(cells.columns.tolist())
    if "patient" not in source:
        msg = (
            f"{path}: no column of identifiers among {', '.join(cells.columns)}; name the one that holds the headers' "
            "PatientID participant_id"
        )
        raise CohortError(msg)
    rows = cells[list(source.values())].set_axis(list(source), axis=1).reindex(columns=[*KEYS, *CARRIED])
    unnamed = rows.index[rows["patient"].isna()]
    if len(unnamed):
        msg = f"{path}: line {unnamed[0]} has no {source['patient']}; give every row an identifier"
        raise CohortError(msg)
    for line, text in rows["day"].dropna().items():
        day = try_date(text)
        if day is None:
            # The order of day and month can be stated in a study's map, which this table has none of.
            msg = (
                f"{path}: line {line}, column {source['day']}: the date {text!r} is none, or could be two days; write the "
                "column as YYYY-MM-DD"
            )
            raise CohortError(msg)
        rows.loc[line, "day"] = day.isoformat()
    # A word that is not known fails with the manifest's own rules.
    rows["sex"] = rows["sex"].map(lambda word: SEX_CODES.get(word.lower(), word), na_action="ignore")
    rows["session"] = rows["session"].map(lambda name: name.removeprefix("ses-"), na_action="ignore")
    return SubjectTable(rows)


def _columns(columns: Sequence[str]) -> dict[str, str]:
    """Name in a row -> the table's column."""
    plain = {plain_name(column): column for column in reversed(columns)}
    # The headers' own word comes before other columns that may hold identifiers.
    found = recognise(columns, SYNONYMS | {"participant_id": (plain[PATIENT],)} if PATIENT in plain else SYNONYMS)
    source = {name: found[name] for name in CARRIED if name in found and plain_name(found[name]) not in AT_ENTRY}
    if "participant_id" in found:
        source["patient"] = found["participant_id"]
    for name, words in (("session", SESSIONS), ("day", DAYS)):
        column = next((plain[word] for word in words.split() if word in plain), None)
        if column is not None:
            source[name] = column
    return source
