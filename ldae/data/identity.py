"""Who is who: columns that name people instead of measuring them, and one person under several identifiers."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ldae.data.manifest import Manifest, build_manifest
from ldae.data.schema import COLUMNS, PLACE_WORDS, SUBJECT_WORDS
from ldae.data.text_table import read_text_table, shortlist
from ldae.errors import ManifestError

__all__ = ["SharedValue", "merge_people", "names_people", "read_same_person", "shared_values"]

BIRTH = re.compile(r"birth|dob", re.IGNORECASE)
MOSTLY = 0.8
"""Share of the subjects with a value of their own from which on a value that two share is worth a look."""
FEWEST = 5


@dataclass(frozen=True)
class SharedValue:
    """Identifiers that may be one person.

    Attributes:
        column: whose value they share.
        subjects: the identifiers.
    """

    column: str
    subjects: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{' and '.join(self.subjects)} have the same {self.column}; if they are one person, name them in a file for "
            "'ldae cohort split --same-person'"
        )


def names_people(column: str, values: Iterable[float] | None = None) -> bool:
    """Whether a column names people or files, such as `RID`, `subject_id` or `imageUID`, and measures nothing.

    Args:
        column: its name; one that names a site or a scanner is a confound.
        values: its numbers, NaN where missing; numbers that are not whole measure something whatever the name is.
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", column)]
    if not words or words[-1] not in SUBJECT_WORDS or set(words) & PLACE_WORDS:
        return False
    return values is None or all(value % 1 == 0 for value in values if not math.isnan(value))


def shared_values(table: pd.DataFrame) -> list[SharedValue]:
    """Subjects of a manifest who share a birth date and sex, or a further identifier where nearly all have their own."""
    subjects = table.drop_duplicates("participant_id")
    found = []
    for column in (name for name in table.columns if name not in COLUMNS):
        birth = BIRTH.search(column) is not None
        keys = [column, "sex"] if birth else [column]
        known = subjects.dropna(subset=keys)
        if not birth and not names_people(column):
            continue
        if len(known) < FEWEST or len(known.drop_duplicates(keys)) < MOSTLY * len(known):
            continue
        alike = known[known.duplicated(keys, keep=False)].groupby(keys, sort=False)["participant_id"]
        found += [SharedValue(" and ".join(keys), tuple(ids)) for _, ids in alike]
    return found


def read_same_person(path: Path) -> dict[str, str]:
    """Read a table with the columns `participant_id` and `person`: identifier to person.

    Raises:
        ManifestError: if a column is missing, a person has no identifier, an identifier belongs to two people, or no row names
            a person; if a row cannot be read, since such a map would let one person into two splits.
    """
    table = read_text_table(path)
    if missing := [name for name in ("participant_id", "person") if name not in table.columns]:
        got = ", ".join(table.columns)
        msg = f"{path}: column {', '.join(missing)} is missing, got {got}; it needs participant_id and person"
        raise ManifestError(msg)
    table = table.dropna(subset="person").drop_duplicates(["participant_id", "person"])
    if table.empty:
        msg = f"{path}: no row names a person; write in each row an identifier, and one name for all identifiers of a person"
        raise ManifestError(msg)
    if blank := [f"line {line}" for line in table.index[table["participant_id"].isna()]]:
        msg = f"{path}: {shortlist(blank)} names a person without participant_id; fill it in, or take the row out"
        raise ManifestError(msg)
    if twice := table["participant_id"][table.duplicated("participant_id")].tolist():
        msg = f"{path}: {shortlist(twice)} belongs to two people; keep one row of each identifier"
        raise ManifestError(msg)
    return dict(zip(table["participant_id"], table["person"], strict=True))


def merge_people(manifest: Manifest, person_of: Mapping[str, str]) -> Manifest:
    """The manifest with one identifier a person: that of the person's first row; `source_participant_id` keeps the others.

    A session whose name the person has already takes the former identifier behind it.

    Args:
        manifest: the cohort.
        person_of: identifier to person; who is not in it is a person of one identifier.

    Raises:
        ManifestError: if an identifier is not in the manifest, where a typing error would let one person into two splits; if a
            person is an identifier of another one, or one person's rows are in two splits.
    """
    table = manifest.table.copy()
    if chained := [person for person in person_of.values() if person_of.get(person, person) != person]:
        msg = f"{shortlist(chained)} is a person, and an identifier of another person; name one person in all of their rows"
        raise ManifestError(msg)
    former = table["participant_id"]
    # A manifest that was merged before holds some of the identifiers as former ones of the same people.
    sources = zip(table.get("source_participant_id", former), former, strict=True)
    merged = {source for source, name in sources if person_of.get(source) == person_of.get(name, name)}
    if unknown := [name for name in person_of if name not in {*former, *merged}]:
        msg = (
            f"{manifest.path}: it has no participant_id {shortlist(unknown)}, which the map of people names; write identifiers "
            "as the manifest has them, or take those rows out of the map"
        )
        raise ManifestError(msg)
    people = pd.Series([person_of.get(name, name) for name in former], index=table.index)
    table["participant_id"] = former.groupby(people).transform("first")
    moved = table["participant_id"] != former
    taken = moved & table.duplicated(["participant_id", "session_id"], keep=False)
    table.loc[taken, "session_id"] += "-" + former[taken].str.removeprefix("sub-")
    if "source_participant_id" not in table:
        table["source_participant_id"] = former
    return build_manifest(table, manifest.path)
