"""The names that columns of people's tables go by, and codes that need no map."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from ldae.data import schema
from ldae.errors import CohortError

__all__ = [
    "FIRST_SESSION",
    "SEX_CODES",
    "SEX_WORDS",
    "SYNONYMS",
    "extra_name",
    "identifier_parts",
    "plain_identifier",
    "plain_name",
    "recognise",
]

FIRST_SESSION = "01"
"""The session of a scan whose source states none."""

# Names a column goes by, without case and punctuation; where a table has several, the first listed counts.
SYNONYMS: dict[str, str] = {
    "participant_id": (
        "participantid participant mrid subjectid subject subjectlabel subjectidentifier patientid patient ptid "
        "ixiid rid scanid imageid id"
    ),
    "session_id": "sessionid session sessionlabel ses visitid visit viscode2 viscode timepoint tp",
    "age": "age ageatscan ageatvisit ageatentry ageyears ageinyears ageyr scanage",
    "sex": "sex gender ptgender sexid1m2f sexid",
    "diagnosis": "diagnosis dx dxgroup researchgroup group dxbl diagnosisgroup clinicaldiagnosis",
    "months": "months monthssincebaseline monthsfrombaseline monthsbl monthbl month",
    "site": "site siteid sitename center centre",
    "split": "split",
}
SEX_WORDS = {**schema.SEX_WORDS, "woman": "F", "girl": "F", "man": "M", "boy": "M"}
"""What needs no code book."""
SEX_CODES = {**SEX_WORDS, "1": "M", "1.0": "M", "2": "F", "2.0": "F"}
"""For tables outside BIDS, which has a place to explain its codes."""


def plain_name(name: str) -> str:
    """A column's name without case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def plain_identifier(text: str) -> str:
    """An identifier without case and punctuation; letters of any alphabet count, however they are composed."""
    return "".join(letter for letter in unicodedata.normalize("NFC", text).casefold() if letter.isalnum())


def identifier_parts(text: str) -> tuple[str, ...]:
    """The parts of an identifier between its punctuation, without case: '1-12' and '11-2' differ, '1-12' and '(1_12)' do not."""
    return tuple(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold()))


def extra_name(column: str) -> str:
    """What a further column is called in the manifest: it must not pose as one of the manifest's own."""
    return f"source_{column}" if column in schema.COLUMNS else column


def recognise(columns: Sequence[str], chosen: Mapping[str, str], table: Path) -> dict[str, str]:
    """Manifest column -> column of the table, for those that it has.

    Args:
        columns: of the table.
        chosen: what is known already.
        table: its file, for messages.

    Raises:
        CohortError: if a choice names no column.
    """
    for name, column in chosen.items():
        if name not in SYNONYMS:
            msg = f"mapping names {name!r}, which is no column of a manifest; choose among {', '.join(SYNONYMS)}"
            raise CohortError(msg)
        if column not in columns:
            msg = f"{table}: no column {column!r} for {name}, got {', '.join(columns)}; correct the mapping"
            raise CohortError(msg)
    source = dict(chosen)
    by_plain_name: dict[str, str] = {}
    for column in columns:
        if column not in chosen.values():
            by_plain_name.setdefault(plain_name(column), column)
    for name, synonyms in SYNONYMS.items():
        candidates = [by_plain_name[synonym] for synonym in synonyms.split() if synonym in by_plain_name]
        if name not in source and candidates:
            source[name] = candidates[0]
    return source
