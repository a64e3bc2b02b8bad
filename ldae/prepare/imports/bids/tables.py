"""What the tables of a BIDS data set say of people, sessions and scans.

A table that cannot be read never stops an import: it is reported, and what it would have said is missing. Values that a
manifest has no room for (an age of "89+", a sex that is neither F nor M) become n/a and are counted.
"""

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from ldae.data.schema import MAX_AGE_YEARS, MAX_MONTHS, NUMBER
from ldae.data.text_table import TextTable, read_text_table
from ldae.errors import CohortError, ManifestError
from ldae.prepare.imports.columns import SEX_WORDS, extra_name, recognise
from ldae.prepare.imports.dates import read_date
from ldae.prepare.imports.import_report import Skipped

__all__ = ["BidsTables", "Row"]

Row = dict[str, str | None]


@dataclass
class BidsTables:
    """Reads the tables of one data set, and keeps what was wrong with them.

    Attributes:
        root: the data set.
        problems: tables and rows that could not be used.
        doubts: what became n/a: reason to an example and the number of times.
    """

    root: Path
    problems: list[Skipped] = field(default_factory=list)
    doubts: dict[str, tuple[str, int]] = field(default_factory=dict)

    @cached_property
    def participants(self) -> dict[str, dict[str | None, Row]]:
        """Participant ("sub-01") to session ("ses-1", or None for all) to what participants.tsv says, as text.

        A person with two rows that differ, and no column of sessions to tell them apart, is left out and reported.
        """
        people: dict[str, dict[str | None, Row]] = {}
        lines: dict[tuple[str, str | None], int] = {}
        clashes: set[tuple[str, str | None]] = set()
        for line, row in self._rows(self.root / "participants.tsv", self._descriptions("participants.json")):
            person = row.pop("participant_id")
            if person is None:
                self.problems.append(Skipped(f"participants.tsv, line {line}", "a row without a participant_id"))
                continue
            person = with_prefix(person, "sub-")
            session = row.pop("session_id", None)
            session = None if session is None else with_prefix(session, "ses-")
            known = people.setdefault(person, {})
            if session in known and known[session] != row:
                clashes.add((person, session))
                self.problems.append(
                    Skipped(
                        person,
                        "two rows of participants.tsv that differ: neither is used; remove one",
                        detail=f"lines {lines[person, session]} and {line}",
                    )
                )
            known.setdefault(session, row)
            lines.setdefault((person, session), line)
        for person, session in clashes:
            people[person][session] = {}
        return people

    def sessions(self, person: str) -> dict[str, Row]:
        """Session ("ses-1") to what `sub-X_sessions.tsv` says; empty where there is none."""
        path = self.root / person / f"{person}_sessions.tsv"
        found: dict[str, Row] = {}
        for line, row in self._rows(path, self._descriptions("sessions.json"), key="session_id"):
            row.pop("participant_id", None)
            session = row.pop("session_id")
            if session is None:
                self.problems.append(Skipped(f"{path.name}, line {line}", "a row without a session_id"))
            elif found.setdefault(with_prefix(session, "ses-"), row) != row:
                self.problems.append(
                    Skipped(f"{path.name}, line {line}", "a second row of a session, which differs: the first is used")
                )
        return found

    def scan_times(self, folder: Path, stem: str) -> dict[str, str]:
        """File, relative to the data set, to its `acq_time` in `STEM_scans.tsv`."""
        path = folder / f"{stem}_scans.tsv"
        table = self._read(path)
        if table is None or not {"filename", "acq_time"} <= set(table.columns):
            return {}
        times = {}
        here = folder.relative_to(self.root).as_posix()
        for line, cells in zip(table.lines, table.rows, strict=True):
            row = dict(zip(table.columns, cells, strict=True))
            name = posixpath.normpath(posixpath.join(here, row["filename"] or "."))
            if name.startswith(("../", "/")) or name == "..":
                self.problems.append(
                    Skipped(
                        f"{path.name}, line {line}", "names a file outside the data set", detail=row["filename"] or ""
                    )
                )
            elif row["acq_time"] is not None:
                times[name] = row["acq_time"]
        return times

    def number(self, value: str | None, what: str, where: str) -> float | None:
        """An age in years or a time in months; None where it is missing or no number in range."""
        if value is None:
            return None
        limit = MAX_AGE_YEARS if what == "age" else MAX_MONTHS
        if NUMBER.fullmatch(value) is None or not 0 <= float(value) <= limit:
            self.doubt(f"{what} is no number from 0 to {limit:g}", f"{value!r} of {where}")
            return None
        return float(value)

    def day(self, value: str | None, where: str) -> date | None:
        """The day of an `acq_time`."""
        if value is None:
            return None
        try:
            return read_date(value)
        except CohortError:
            self.doubt("acq_time is no date as BIDS writes it (YYYY-MM-DDThh:mm:ss)", f"{value!r} of {where}")
            return None

    def doubt(self, reason: str, example: str) -> None:
        """Count one value that became n/a."""
        first, count = self.doubts.get(reason, (example, 0))
        self.doubts[reason] = (first, count + 1)

    def _rows(self, path: Path, described: Mapping[str, Any], key: str = "participant_id") -> list[tuple[int, Row]]:
        """Line and row of a table under the manifest's names, with sex in its two letters; further columns kept."""
        table = self._read(path)
        if table is None:
            return []
        source = recognise(table.columns)
        if key not in source:
            self.problems.append(Skipped(self._name(path), f"a table without the column {key}: it is not used"))
            return []
        self._check_age_unit(path, source, described)
        rows = []
        for line, cells in zip(table.lines, table.rows, strict=True):
            by_column = dict(zip(table.columns, cells, strict=True))
            row: Row = {name: by_column[column] for name, column in source.items()}
            if "sex" in source:
                levels = _field(described, source["sex"]).get("Levels")
                row["sex"] = self._sex(row["sex"], levels if isinstance(levels, Mapping) else {}, path)
            for column, value in by_column.items():
                if column not in source.values():
                    row[extra_name(column)] = value
            row.pop("split", None)
            rows.append((line, row))
        return rows

    def _sex(self, value: str | None, levels: Mapping[str, Any], path: Path) -> str | None:
        if value is None:
            return None
        meaning = levels.get(value, value)
        if isinstance(meaning, Mapping):
            meaning = meaning.get("Description", value)
        letter = SEX_WORDS.get(str(meaning).strip().lower())
        if letter is None:
            self.doubt("sex is neither F nor M, nor a code that the table's JSON explains", f"{value!r} in {path.name}")
        return letter

    def _check_age_unit(self, path: Path, source: dict[str, str], described: Mapping[str, Any]) -> None:
        unit = _field(described, source.get("age", "")).get("Units", "years")
        if "age" in source and not str(unit).lower().startswith(("y", "a")):
            del source["age"]
            self.problems.append(
                Skipped(self._name(path), f"ages in {unit}, not years: not used", detail="give a column in years")
            )

    def _read(self, path: Path) -> TextTable | None:
        if not path.is_file():
            return None
        try:
            return read_text_table(path)
        except ManifestError as error:
            reason = str(error).removeprefix(f"{path}: ")
            self.problems.append(Skipped(self._name(path), "a table that cannot be used", detail=reason))
            return None

    def _descriptions(self, name: str) -> Mapping[str, Any]:
        path = self.root / name
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, OSError):
            self.problems.append(Skipped(name, "a description that is no JSON: it is not used"))
            return {}
        return content if isinstance(content, Mapping) else {}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def with_prefix(value: str, prefix: str) -> str:
    """An identifier with the prefix that BIDS gives it, whether the table wrote it or not."""
    return value if value.startswith(prefix) else prefix + value


def _field(described: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    entry = described.get(column, {})
    return entry if isinstance(entry, Mapping) else {}
