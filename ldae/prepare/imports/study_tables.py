"""A study's tables as one table of visits.

Several tables may be given (visits in one, subjects in another): their rows are pooled by subject, and one row may say
what another leaves out.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from ldae.data.schema import COLUMNS, MAX_AGE_YEARS, MAX_MONTHS, bound_of
from ldae.data.text_table import read_text_table, shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import (
    SEX_CODES,
    Unusable,
    identifier_words,
    plain_name,
    read_numbers,
    recognise,
)
from ldae.prepare.imports.dates import months_of_visit, read_date
from ldae.prepare.imports.import_report import Skipped
from ldae.prepare.imports.study_map import EVERY_COLUMN, QUANTITIES, StudyMap

__all__ = ["EXTRA", "read_rows", "read_study", "typed_rows", "visit_months"]

EXTRA = "extra: "
"""Prefix of the further columns, so that none poses as a quantity."""
DAY = r"^(?:.*[dD])?(\d{1,5})(?:\.0+)?$"
SPLIT_WORDS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "holdout", "held-out"}


def read_study(paths: Sequence[Path], study: StudyMap, skipped: list[Skipped], unusable: Unusable) -> pd.DataFrame:
    """Rows as of :func:`typed_rows` of all tables.

    Raises:
        CohortError: if a table has no column of identifiers, no row can be used, a date cannot be read in one way, two
            identifiers differ in where their punctuation stands and in nothing else, or, with a strict map, a cell cannot
            be used.
        ManifestError: if a table cannot be read.
    """
    visits = pd.concat(
        [typed_rows(read_rows(path, path.name, skipped), study, skipped, unusable) for path in paths], ignore_index=True
    )
    if visits.empty:
        reasons = [f"{item.source}: {item.reason}" for item in skipped]
        msg = f"no row of the tables can be used ({shortlist(reasons)}); correct them"
        raise CohortError(msg)
    if study.strict and unusable.cells:
        reason, where, cell = unusable.cells[0]
        msg = f"{where}: {reason}, got {cell!r}; correct it or write n/a"
        raise CohortError(msg)
    first = visits.groupby("subject")[["words", "where", "participant_id"]].transform("first")
    for row in visits[visits["words"] != first["words"]].index[:1]:
        msg = (
            f"{first['where'][row]} has {first['participant_id'][row]!r} and {visits['where'][row]} "
            f"{visits['participant_id'][row]!r}: one subject or two? In copies of the tables, write a subject's identifier in "
            "one way, and give two subjects identifiers that differ in a letter or digit"
        )
        raise CohortError(msg)
    return visits


def read_rows(path: Path, name: str, skipped: list[Skipped]) -> pd.DataFrame:
    """The cells of one table as text; the index is `NAME, line N`. Rows with too many or too few cells are skipped."""
    ragged: list[tuple[int, int]] = []
    cells = read_text_table(path, ragged)
    reason = "a row with more or fewer cells than the header: quote cells that contain the separator"
    skipped += [
        Skipped(f"{name}, line {line}", reason, detail=f"{count} cells, not {len(cells.columns)}")
        for line, count in ragged
    ]
    return cells.set_axis([f"{name}, line {line}" for line in cells.index])


def typed_rows(
    text: pd.DataFrame,
    study: StudyMap,
    skipped: list[Skipped],
    unusable: Unusable,
    *,
    sex_codes: Mapping[str, str] = SEX_CODES,
    refuse_dates: bool = True,
) -> pd.DataFrame:
    """Rows of a table with their types, by a map.

    Args:
        text: of :func:`read_rows`.
        study: the map.
        skipped: takes the rows that could not be used.
        unusable: takes the cells that no value was made of.
        sex_codes: in lower case, to F and M, beside those of the map.
        refuse_dates: refuse dates that cannot be read in one way; else they become n/a.

    Returns:
        One row a row of the table: `table` and `where` (file; file and line), `subject` (the identifier without case and
        punctuation), `words` (:func:`identifier_words`), the quantities of the map's columns, `code_months` (of the
        visit's code), `keyed` (the row is of a visit or an image, not of the subject alone), and the further columns under
        :data:`EXTRA` and their names.
    """
    source = recognise(text.columns.tolist(), study.columns)
    if "participant_id" not in source:
        msg = (
            f"{_table(text.index[0])}: no column of identifiers among {shortlist(text.columns.tolist())}; the map "
            f"({study.study}) looks for {', '.join(study.columns['participant_id'])}: name it with --id-column, or in a copy "
            "of the map"
        )
        raise CohortError(msg)
    if "diagnosis" in source and {str(word).lower() for word in text[source["diagnosis"]].dropna()} <= SPLIT_WORDS:
        del source["diagnosis"]  # a column `group` may say who trains and who is tested
    missing = {word.lower() for word in study.missing}
    text = text.map(lambda cell: None if pd.isna(cell) or cell.lower() in missing else cell).astype(object)
    nameless = text.index[text[source["participant_id"]].isna()]
    if study.strict and len(nameless):
        msg = f"{nameless[0]} has no {source['participant_id']}; give every row an identifier"
        raise CohortError(msg)
    skipped += [Skipped(where, "a row without an identifier") for where in nameless]
    text = text.drop(index=nameless)
    stated = {name: text[source[name]] if name in source else None for name in QUANTITIES}
    cells = pd.DataFrame(stated, index=text.index, dtype=object)

    def checked(name: str, reason: str, values: pd.Series) -> pd.Series:
        return unusable.check(reason, cells[name], values, text.index + f", column {source.get(name)}")

    def number(name: str, limit: float) -> pd.Series:
        reason = f"{name} is no number from 0 to {limit:g}, so n/a"
        bounds = read_numbers(cells[name].map(bound_of, na_action="ignore"), limit)
        where = text.index + f", column {source.get(name)}"
        unusable.note(f"{name} is a bound, which is taken for the value", cells[name], bounds.notna(), where)
        return checked(name, reason, read_numbers(cells[name], limit).fillna(bounds))

    visits = cells[["participant_id", "visit", "image_id", "site", "split"]]
    visits = visits.assign(table=text.index.map(_table), where=text.index)
    visits["words"] = visits["participant_id"].map(identifier_words)
    visits["subject"] = visits["words"].str.replace(" ", "")
    days = cells["day"].astype("str").str.extract(DAY)[0].astype("float64")
    visits["day"] = checked("day", "days are neither a number nor end like d0129, so n/a", days)
    for name in ("exam_date", "birth_date"):
        days = _dates(cells[name], study, source.get(name), refuse=refuse_dates)
        visits[name] = checked(name, "a date that cannot be read, so n/a", days)
    visits["months"] = number("months", MAX_MONTHS)
    by_code = cells["visit"].map(lambda code: visit_months(code, study), na_action="ignore")
    visits["code_months"] = by_code.astype("float64")
    visits["months"] = visits["months"].fillna(visits["code_months"])
    visits["age"] = number("age", MAX_AGE_YEARS)
    visits["baseline_age"] = number("baseline_age", MAX_AGE_YEARS)
    codes = {**sex_codes, **{code.lower(): sex for code, sex in study.sex.items()}}
    visits["sex"] = checked("sex", "sex is no code that is known, so n/a", cells["sex"].str.lower().map(codes))
    recode = {word.lower(): known for word, known in study.diagnosis.recode.items()}
    kept = study.diagnosis.unlisted == "keep"
    for name in ("diagnosis", "baseline_diagnosis"):
        listed = cells[name].str.lower().map(recode)
        if recode:
            checked(name, f"diagnosis that the map does not list, {'kept as it is' if kept else 'so n/a'}", listed)
        visits[name] = listed.where(listed.notna(), cells[name]) if kept else listed
    visits["keyed"] = visits[["visit", "image_id", "day", "exam_date"]].notna().any(axis=1)
    by_name = {plain_name(each): each for each in reversed(text.columns)}
    every = [each for each in text.columns if each not in source.values()]
    listed_extras = [by_name[plain_name(each)] for each in study.keep if plain_name(each) in by_name]
    for each in every if EVERY_COLUMN in study.keep else listed_extras:
        # It must not pose as one of the manifest's own.
        visits[EXTRA + (f"source_{each}" if each in COLUMNS else each)] = text[each]
    return visits


def visit_months(code: str, study: StudyMap) -> float | None:
    """Months of a visit's code, by the study's own codes and by those that state them."""
    return months_of_visit(code, {key.lower(): months for key, months in study.visits.items()})


def _table(where: str) -> str:
    return where.rpartition(", line")[0]


def _dates(text: pd.Series, study: StudyMap, column: str | None, *, refuse: bool) -> pd.Series:
    days: dict[str, date] = {}
    problems = []
    for where, cell in text.dropna().items():
        try:
            days[where] = read_date(cell, study.dates)
        except CohortError as error:
            problems.append(f"{where}, column {column}: {error}")
    if problems and refuse:
        msg = f"{len(problems)} date(s) cannot be used: {shortlist(problems)}"
        raise CohortError(msg)
    return pd.Series(days, index=text.index, dtype="datetime64[s]")
