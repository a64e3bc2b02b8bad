"""A study's tables as one table of visits.

Several tables may be given (visits in one, subjects in another): their rows are pooled by subject, and one row may say
what another leaves out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from ldae.data.schema import MAX_AGE_YEARS, MAX_MONTHS
from ldae.data.text_table import read_text_table, shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import (
    SEX_CODES,
    Unusable,
    extra_name,
    identifier_words,
    plain_name,
    ragged_rows,
    read_numbers,
    recognise,
)
from ldae.prepare.imports.dates import read_date
from ldae.prepare.imports.import_report import Skipped
from ldae.prepare.imports.study_map import EVERY_COLUMN, StudyMap
from ldae.prepare.imports.visits import months_of_visit

__all__ = ["EXTRA", "StudyTables", "read_study"]

EXTRA = "extra: "
"""Prefix of the further columns, so that none poses as a quantity."""
DAY = r"^(?:.*[dD])?(\d{1,5})(?:\.0+)?$"


@dataclass(frozen=True)
class StudyTables:
    """All rows of a study's tables.

    Attributes:
        visits: one row a row of the tables, in their order: `table` and `where` (file; file and line), `person` (the
            identifier without case and punctuation), `words` (:func:`identifier_words`), the quantities of a map's
            columns with their types, `code_months` (of the visit's code), `keyed` (the row is of a visit or an image, not
            of the subject alone), and the further columns under :data:`EXTRA` and their names.
        skipped: rows that could not be used.
        notes: the codes that the map does not list.
    """

    visits: pd.DataFrame
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def read_study(paths: Sequence[Path], study: StudyMap) -> StudyTables:
    """Read tables by a map.

    Raises:
        CohortError: if a table has no column of identifiers, a date cannot be read in one way, two identifiers differ
            in where their punctuation stands and in nothing else, or, with a strict map, a cell cannot be used.
        ManifestError: if a table cannot be read.
    """
    skipped: list[Skipped] = []
    unusable = Unusable()
    visits = pd.concat([_read(path, study, skipped, unusable) for path in paths], ignore_index=True)
    if study.strict and unusable.cells:
        reason, where, cell = unusable.cells[0]
        msg = f"{where}: {reason}, got {cell!r}; correct it or write n/a"
        raise CohortError(msg)
    first = visits.groupby("person")[["words", "where", "participant_id"]].transform("first")
    for row in visits[visits["words"] != first["words"]].index[:1]:
        msg = (
            f"{first['where'][row]} has {first['participant_id'][row]!r} and {visits['where'][row]} "
            f"{visits['participant_id'][row]!r}: one subject or two? In copies of the tables, write a subject's identifier in "
            "one way, and give two subjects identifiers that differ in a letter or digit"
        )
        raise CohortError(msg)
    return StudyTables(visits, tuple(skipped), tuple(unusable.notes()))


def _read(path: Path, study: StudyMap, skipped: list[Skipped], unusable: Unusable) -> pd.DataFrame:
    cells = read_text_table(path, allow_ragged=True)
    skipped += ragged_rows(cells, path.name)
    names = asdict(study.columns)
    source = recognise(cells.columns, names)
    if "participant_id" not in source:
        msg = (
            f"{path}: no column of identifiers among {shortlist(cells.columns)}; the map ({study.study}) looks for "
            f"{', '.join(study.columns.participant_id)}: name it with --id-column, or in a copy of the map"
        )
        raise CohortError(msg)
    missing = {word.lower() for word in study.missing}
    text = cells.frame.map(lambda cell: None if cell is None or cell.lower() in missing else cell).astype(object)
    nameless = text[text[source["participant_id"]].isna()]
    for line in nameless.index:
        if study.strict:
            msg = f"{path}: line {line} has no {source['participant_id']}; give every row an identifier"
            raise CohortError(msg)
        skipped.append(Skipped(f"{path.name}, line {line}", "a row without an identifier"))
    text = text.drop(index=nameless.index)
    where = [f"{path.name}, line {line}" for line in text.index]

    def column(name: str) -> pd.Series:
        return text[source[name]] if name in source else pd.Series(None, index=text.index, dtype=object)

    def checked(name: str, reason: str, values: pd.Series) -> pd.Series:
        at = [f"{each}, column {source.get(name)}" for each in where]
        return unusable.check(reason, column(name), values, at)

    def number(name: str, limit: float) -> pd.Series:
        reason = f"{name} is no number from 0 to {limit:g}, so n/a"
        return checked(name, reason, read_numbers(column(name), limit))

    visits = pd.DataFrame({"table": path.name, "where": where}, index=text.index)
    visits["participant_id"] = column("participant_id")
    visits["words"] = visits["participant_id"].map(identifier_words)
    visits["person"] = visits["words"].str.replace(" ", "")
    for name in ("visit", "image_id", "site", "split"):
        visits[name] = column(name)
    days = column("day").astype("str").str.extract(DAY)[0].astype("float64")
    visits["day"] = checked("day", "days are neither a number nor end like d0129, so n/a", days)
    for name in ("exam_date", "birth_date"):
        visits[name] = _dates(column(name), study, f"{path}: ", source.get(name))
    visits["months"] = number("months", MAX_MONTHS)
    visits["code_months"] = (
        column("visit").map(lambda code: visit_months(code, study), na_action="ignore").astype("float64")
    )
    visits["months"] = visits["months"].fillna(visits["code_months"])
    visits["age"] = number("age", MAX_AGE_YEARS)
    visits["baseline_age"] = number("baseline_age", MAX_AGE_YEARS)
    codes = {**SEX_CODES, **{code.lower(): sex for code, sex in study.sex.items()}}
    visits["sex"] = checked("sex", "sex is no code that is known, so n/a", _lower(column("sex")).map(codes))
    recode = {word.lower(): known for word, known in study.diagnosis.recode.items()}
    kept = study.diagnosis.unlisted == "keep"
    for name in ("diagnosis", "baseline_diagnosis"):
        listed = _lower(column(name)).map(recode)
        if recode:
            checked(name, f"diagnosis that the map does not list, {'kept as it is' if kept else 'so n/a'}", listed)
        visits[name] = listed.where(listed.notna(), column(name)) if kept else listed
    visits["keyed"] = visits[["visit", "image_id", "day", "exam_date"]].notna().any(axis=1)
    by_name = {plain_name(each): each for each in reversed(cells.columns)}
    every = [each for each in cells.columns if each not in source.values()]
    listed_extras = [by_name[plain_name(each)] for each in study.keep if plain_name(each) in by_name]
    for each in every if EVERY_COLUMN in study.keep else listed_extras:
        visits[EXTRA + extra_name(each)] = text[each]
    return visits


def visit_months(code: str, study: StudyMap) -> float | None:
    """Months of a visit's code, by the study's own codes and by those that state them."""
    return months_of_visit(code, {key.lower(): months for key, months in study.visits.items()})


def _lower(text: pd.Series) -> pd.Series:
    return text.map(lambda cell: cell.lower(), na_action="ignore").astype(object)


def _dates(text: pd.Series, study: StudyMap, where: str, column: str | None) -> pd.Series:
    days: dict[object, date] = {}
    problems = []
    for line, cell in text.dropna().items():
        try:
            days[line] = read_date(cell, study.dates)
        except CohortError as error:
            problems.append(f"line {line}, column {column}: {error}")
    if problems:
        msg = f"{where}{len(problems)} date(s) cannot be used: {shortlist(problems)}"
        raise CohortError(msg)
    return pd.Series(days, index=text.index, dtype="datetime64[s]")
