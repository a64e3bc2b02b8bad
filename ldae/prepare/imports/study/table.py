"""A study's tables as one list of visits a person.

Several tables may be given (visits in one, people in another): their rows are pooled by person, and what one row does not
say another may.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

from ldae.data.schema import MAX_AGE_YEARS, MAX_MONTHS, NUMBER
from ldae.data.text_table import read_text_table, shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import SEX_CODES, extra_name, identifier_parts, plain_identifier, plain_name
from ldae.prepare.imports.dates import read_date
from ldae.prepare.imports.import_report import Skipped
from ldae.prepare.imports.study.column_map import StudyColumns, StudyMap
from ldae.prepare.imports.visits import months_of_visit

__all__ = ["StudyTables", "Visit", "plain_image", "read_study"]

DAY = re.compile(r"(?:.*[dD])?(\d{1,5})(?:\.0+)?")


@dataclass(frozen=True)
class Visit:
    """One row of a table.

    Attributes:
        table: the file's name.
        line: of the row in it.
        participant_id: as the table writes it.
        code: of the visit.
        image_id: of the image.
        day: since entry.
        exam_date: of the visit.
        months: since baseline, from the table or the visit's code.
        birth_date: of the person.
        age: years at the visit.
        baseline_age: years at baseline.
        sex: "F" or "M".
        diagnosis: recoded.
        baseline_diagnosis: recoded.
        site: of the visit.
        extra: further columns, under the names that the manifest gives them.
    """

    table: str
    line: int
    participant_id: str
    code: str | None = None
    image_id: str | None = None
    day: int | None = None
    exam_date: date | None = None
    months: float | None = None
    birth_date: date | None = None
    age: float | None = None
    baseline_age: float | None = None
    sex: str | None = None
    diagnosis: str | None = None
    baseline_diagnosis: str | None = None
    site: str | None = None
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def keyed(self) -> bool:
        """Whether the row is of a visit or an image, and not of the person alone."""
        return any(key is not None for key in (self.code, self.image_id, self.day, self.exam_date))

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.table}, line {self.line}"


@dataclass(frozen=True)
class StudyTables:
    """All rows of a study's tables.

    Attributes:
        people: identifier without case and punctuation to the person's rows, in the order of the files.
        skipped: rows that could not be used.
        notes: what became of codes that the map does not list.
    """

    people: Mapping[str, tuple[Visit, ...]]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def read_study(paths: Sequence[Path], study: StudyMap) -> StudyTables:
    """Read tables as a map says.

    Raises:
        CohortError: if a table has no column of identifiers, a date cannot be read in one way, or two identifiers differ
            in where their punctuation stands and in nothing else, so that they could be one person or two.
        ManifestError: if a table cannot be read.
    """
    people: dict[str, list[Visit]] = {}
    skipped: list[Skipped] = []
    reader = _Reader(study)
    for path in paths:
        for visit in reader.rows(path, skipped):
            rows = people.setdefault(plain_identifier(visit.participant_id), [])
            if rows and identifier_parts(rows[0].participant_id) != identifier_parts(visit.participant_id):
                msg = (
                    f"{rows[0].where} says {rows[0].participant_id!r} and {visit.where} {visit.participant_id!r}: one person "
                    "or two? In copies of the tables, write a person's identifier in one way, and give two people "
                    "identifiers that differ in a letter or digit"
                )
                raise CohortError(msg)
            rows.append(visit)
    return StudyTables({person: tuple(rows) for person, rows in people.items()}, tuple(skipped), tuple(reader.notes()))


def plain_image(text: str) -> str:
    """The number of an image without the letters before it: "I118692" and "118692" are one."""
    return re.sub(r"^[a-z]+(?=\d)", "", plain_name(text))


def _sources(columns: Sequence[str], named: StudyColumns) -> dict[str, str | None]:
    """Quantity -> column of a table."""
    source: dict[str, str | None] = {}
    quantities = [(spec.name, getattr(named, spec.name)) for spec in fields(StudyColumns)]
    for quantity, names in quantities:
        source[quantity] = next((name for name in names if name in columns), None)
    # A name in other case or punctuation counts where no quantity has that column by its exact name: ADNI's "AGE" is the
    # age at baseline in one table and "Age" that at the scan in another.
    free = {plain_name(column): column for column in reversed(columns) if column not in source.values()}
    for quantity, names in quantities:
        if source[quantity] is None:
            source[quantity] = next((free[key] for name in names if (key := plain_name(name)) in free), None)
    return source


class _Reader:
    """Turns rows into visits and remembers what it could not read."""

    def __init__(self, study: StudyMap) -> None:
        self.study = study
        self.missing = {word.lower() for word in study.missing}
        self.recode = {key.lower(): value for key, value in study.diagnosis.recode.items()}
        self.sex = {**SEX_CODES, **{key.lower(): value for key, value in study.sex.items()}}
        self.visits = {key.lower(): months for key, months in study.visits.items()}
        self.odd: dict[str, dict[str, int]] = {}

    def rows(self, path: Path, skipped: list[Skipped]) -> list[Visit]:
        cells = read_text_table(path)
        by_plain_name = {plain_name(column): column for column in reversed(cells.columns)}
        source = _sources(cells.columns, self.study.columns)
        if source["participant_id"] is None:
            msg = (
                f"{path}: no column of identifiers among {shortlist(cells.columns)}; the map ({self.study.study}) looks "
                f"for {', '.join(self.study.columns.participant_id)}: choose another map, or add the name to a copy of it"
            )
            raise CohortError(msg)
        keep = [by_plain_name[plain_name(name)] for name in self.study.keep if plain_name(name) in by_plain_name]
        visits, problems = [], []
        for line, values in zip(cells.lines, cells.rows, strict=True):
            row = {
                column: None if value is None or value.lower() in self.missing else value
                for column, value in zip(cells.columns, values, strict=True)
            }
            value = {name: None if column is None else row[column] for name, column in source.items()}
            person = value["participant_id"]
            if person is None:
                skipped.append(Skipped(f"{path.name}, line {line}", "a row without an identifier"))
                continue
            dates: dict[str, date | None] = {"exam_date": None, "birth_date": None}
            for name in dates:
                text = value[name]
                try:
                    dates[name] = None if text is None else read_date(text, self.study.dates)
                except CohortError as error:
                    problems.append(f"line {line}, column {source[name]}: {error}")
            months = self._number(value["months"], "months")
            code = value["visit"]
            if months is None and code is not None:
                months = months_of_visit(code, self.visits)
            visits.append(
                Visit(
                    table=path.name,
                    line=line,
                    participant_id=person,
                    code=code,
                    image_id=value["image_id"],
                    day=self._day(value["day"]),
                    exam_date=dates["exam_date"],
                    months=months,
                    birth_date=dates["birth_date"],
                    age=self._number(value["age"], "age"),
                    baseline_age=self._number(value["baseline_age"], "age"),
                    sex=self._sex(value["sex"]),
                    diagnosis=self._diagnosis(value["diagnosis"]),
                    baseline_diagnosis=self._diagnosis(value["baseline_diagnosis"]),
                    site=value["site"],
                    extra=tuple((extra_name(name), cell) for name in keep if (cell := row[name]) is not None),
                )
            )
        if problems:
            msg = f"{path}: {len(problems)} date(s) cannot be used: {shortlist(problems)}"
            raise CohortError(msg)
        return visits

    def notes(self) -> list[str]:
        """What was met that the map does not list, with the number of rows."""
        return [
            f"{what}: {shortlist([f'{value!r} in {count} row(s)' for value, count in values.items()])}"
            for what, values in self.odd.items()
        ]

    def _met(self, what: str, value: str) -> None:
        counts = self.odd.setdefault(what, {})
        counts[value] = counts.get(value, 0) + 1

    def _number(self, value: str | None, what: str) -> float | None:
        if value is None:
            return None
        limit = MAX_AGE_YEARS if what == "age" else MAX_MONTHS
        if NUMBER.fullmatch(value) is None or not 0 <= float(value) <= limit:
            self._met(f"{what} is no number from 0 to {limit:g}, so n/a", value)
            return None
        return float(value)

    def _day(self, value: str | None) -> int | None:
        if value is None:
            return None
        found = DAY.fullmatch(value)
        if found is None:
            self._met("days are neither a number nor end like d0129, so n/a", value)
            return None
        return int(found[1])

    def _sex(self, value: str | None) -> str | None:
        if value is None:
            return None
        letter = self.sex.get(value.lower())
        if letter is None:
            self._met("sex is a code that the map does not list, so n/a", value)
        return letter

    def _diagnosis(self, value: str | None) -> str | None:
        if value is None:
            return None
        known = self.recode.get(value.lower())
        if known is not None:
            return known
        keep = self.study.diagnosis.unlisted == "keep"
        if self.recode:
            self._met(f"diagnosis that the map does not list, {'kept as it is' if keep else 'so n/a'}", value)
        return value if keep else None
