"""The usual names of columns in tables of subjects, and the values of their cells."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ldae.data import schema
from ldae.data.text_table import shortlist

__all__ = [
    "FIRST_SESSION",
    "SEX_CODES",
    "SEX_WORDS",
    "SYNONYMS",
    "Unusable",
    "identifier_words",
    "manifest_name",
    "plain_name",
    "read_numbers",
    "recognise",
]

FIRST_SESSION = "01"
"""The session of a scan whose source states none."""

# Names of a column, without case and punctuation; where a table has several, the first listed counts.
SYNONYMS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "participant_id": (
            "participant_id participantid participant mrid subjectid subject subjectlabel subjectidentifier patientid "
            "patient ptid ixiid rid scanid imageid id"
        ),
        "visit": "session_id sessionid session sessionlabel ses visitid visit viscode2 viscode timepoint tp",
        "age": "age ageatscan ageatvisit ageatentry ageyears ageinyears ageyr scanage",
        "sex": "sex gender ptgender sexid1m2f sexid",
        "diagnosis": "diagnosis dx dxgroup researchgroup group dxbl diagnosisgroup clinicaldiagnosis",
        "months": "months monthssincebaseline monthsfrombaseline monthsbl monthbl month",
        "site": "site siteid sitename center centre",
        "split": "split",
    }.items()
}
SEX_WORDS = {**schema.SEX_WORDS, "woman": "F", "girl": "F", "man": "M", "boy": "M"}
"""Words that need no code book."""
SEX_CODES = {**SEX_WORDS, "1": "M", "1.0": "M", "2": "F", "2.0": "F"}
"""For tables outside BIDS, which has a place to explain its codes."""


def plain_name(name: str) -> str:
    """A column's name without case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def identifier_words(text: str) -> str:
    """An identifier in lower case with one space for any punctuation: '1-12' and '11-2' differ, '1-12' and '(1_12)' do not.

    Letters of any alphabet count, however they are composed.
    """
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold()))


def manifest_name(code: str) -> str:
    """A code as a manifest may hold it: letters, digits and `_ . + -`, starting with a letter or digit."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", code.strip()).strip("-_.+") or "unnamed"


def recognise(columns: Sequence[str], names: Mapping[str, Sequence[str]] = SYNONYMS) -> dict[str, str]:
    """Quantity -> column of the table, for those that it has: of the names that a quantity goes by, the first counts.

    A name in other case or punctuation counts where no quantity has that column by its exact name: ADNI's "AGE" is the age
    at baseline in one table, and "Age" the age at the scan in another.
    """
    exact = {what: next((name for name in known if name in columns), None) for what, known in names.items()}
    free = {plain_name(column): column for column in reversed(columns) if column not in exact.values()}
    source = {}
    for what, known in names.items():
        column = exact[what] or next((free[key] for name in known if (key := plain_name(name)) in free), None)
        if column is not None:
            source[what] = column
    return source


def read_numbers(text: pd.Series, limit: float) -> pd.Series:
    """Numbers from 0 to a limit; NaN for everything else."""
    values = pd.to_numeric(text, errors="coerce").astype("float64")
    return values.where(values.between(0, limit))


class Unusable:
    """The cells that no value was made of, or another than they say, by reason.

    Attributes:
        cells: reason, line of the file, content.
    """

    def __init__(self) -> None:
        self.cells: list[tuple[str, str, str]] = []

    def check(self, reason: str, text: pd.Series, values: pd.Series, where: Iterable[str]) -> pd.Series:
        """The values made of cells, after a note of those that hold text but gave none; `where` has file and line of each."""
        self.note(reason, text, text.notna() & values.isna(), where)
        return values

    def note(self, reason: str, text: pd.Series, chosen: pd.Series, where: Iterable[str]) -> None:
        """Note the chosen cells."""
        self.cells += [(reason, at, str(cell)) for at, cell, one in zip(where, text, chosen, strict=True) if one]

    def notes(self) -> list[str]:
        """One line a reason, with the contents and their number of rows."""
        reasons = dict.fromkeys(reason for reason, _, _ in self.cells)
        counts = {each: Counter(cell for reason, _, cell in self.cells if reason == each) for each in reasons}
        return [
            f"{reason}: {shortlist([f'{cell!r} in {number} row(s)' for cell, number in found.items()])}"
            for reason, found in counts.items()
        ]
