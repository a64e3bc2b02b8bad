"""The rules of a manifest, for its cells and for its rows together.

They look at text cells (None where missing) in a table whose index is the line numbers of the file, so that every
problem names its line.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ldae.volume import SUFFIXES

__all__ = [
    "COLUMNS",
    "OPTIONAL_COLUMNS",
    "PLACE_WORDS",
    "REQUIRED_COLUMNS",
    "SPLITS",
    "SUBJECT_WORDS",
    "Problem",
    "bound_of",
    "cell_problems",
    "infer_type",
    "normal_sex",
    "row_problems",
    "split_problems",
    "usable_rows",
]

REQUIRED_COLUMNS = ("participant_id", "session_id", "image")
OPTIONAL_COLUMNS = ("age", "sex", "diagnosis", "months", "site", "split")
COLUMNS = REQUIRED_COLUMNS + OPTIONAL_COLUMNS
SPLITS = ("train", "validation", "test")

CODE = re.compile(r"[+-]?0\d")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
BOUND = re.compile(r"(?:[>≥]=?\s*(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?)\s*\+)")
"""An age such as `89+`, `>89` or `>= 89`: those above a limit identify people, so that data sets hide them."""
SUBJECT_WORDS = frozenset(["id", "ids", "rid", "ptid", "uid", "uuid", "guid", "mrn", "mrid", "identifier"])
"""Last words of the names of columns that name people or files."""
PLACE_WORDS = frozenset(["site", "center", "centre", "scanner", "device", "machine", "batch", "protocol"])
SEX_WORDS = {"f": "F", "female": "F", "m": "M", "male": "M"}
MAX_AGE_YEARS = 120.0
MAX_MONTHS = 1200.0


def _number(high: float) -> Callable[[str], bool]:
    return lambda value: NUMBER.fullmatch(value) is not None and 0 <= float(value) <= high


NAME_RULE = "must start with a letter or digit and hold only letters, digits and _ . + -; rename it"
# Rule of a cell, and the message for one that breaks it: the requirement, then the remedy.
CELL_RULES: Mapping[str, tuple[Callable[[str], object], str]] = {
    "participant_id": (IDENTIFIER.fullmatch, NAME_RULE),
    "session_id": (IDENTIFIER.fullmatch, NAME_RULE),
    "image": (
        lambda value: value.lower().endswith(SUFFIXES),
        f"must name an image ending in {', '.join(SUFFIXES)}; convert it",
    ),
    "age": (_number(MAX_AGE_YEARS), f"must be years between 0 and {MAX_AGE_YEARS:g}; write n/a if unknown"),
    "sex": ({"F", "M"}.__contains__, "must be F or M; write n/a if unknown"),
    "months": (
        _number(MAX_MONTHS),
        f"must be months since baseline between 0 and {MAX_MONTHS:g}; count from the first scan",
    ),
    "split": (SPLITS.__contains__, f"must be one of {', '.join(SPLITS)}; write n/a to leave a scan out"),
}


@dataclass(frozen=True)
class Problem:
    """A rule that a table breaks.

    Attributes:
        lines: of the file; several where rows contradict one another.
        column: whose rule it is.
        what: is wrong.
        remedy: what to do about it.
    """

    lines: tuple[int, ...]
    column: str
    what: str
    remedy: str

    @property
    def statement(self) -> str:
        """Lines and fault."""
        return f"line{'s' if len(self.lines) > 1 else ''} {' and '.join(map(str, self.lines))}: {self.what}"

    def __str__(self) -> str:
        return f"{self.statement}; {self.remedy}"


def normal_sex(value: str | None) -> str | None:
    """F or M for the usual spellings; anything else as it is."""
    return None if value is None else SEX_WORDS.get(value.lower(), value)


def bound_of(value: str | None) -> str | None:
    """The number in a bound such as `89+` or `>89`; None for all else."""
    found = None if value is None else BOUND.fullmatch(value)
    return None if found is None else found[1] or found[2]


def usable_rows(text: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Rows that break no rule, and the rules that the others break.

    Of rows that are equal the first is kept; of rows that name one scan and differ, none. Subjects in two splits are no fault
    of a row, and stay. `text` is as of :func:`cell_problems`.
    """
    problems = cell_problems(text)
    whole = text.drop(index=[line for problem in problems for line in problem.lines]) if problems else text
    if not _keys(whole).duplicated().any():
        return whole, problems
    rows = whole.drop_duplicates()
    equal = [
        Problem((line,), "session_id", "equals an earlier row", "remove it")
        for line in whole.index.difference(rows.index)
    ]
    clashes = _duplicate_problems(rows)
    lines = {line for problem in clashes for line in problem.lines}
    return rows.drop(index=list(lines)), problems + equal + clashes


def infer_type(values: list[str | None], column: str) -> pd.Series:
    """A column with its type: floats for age and months, text for the other canonical ones, numbers where all are.

    Values are text cells that satisfy the schema, None where missing.
    """
    if column not in ("age", "months"):
        # '007' is a code, not the number seven: a column that holds one stays text.
        present = [] if column in COLUMNS else [value for value in values if value is not None]
        distinct = set(present)
        if not distinct or any(not NUMBER.fullmatch(v) or CODE.match(v) for v in distinct):
            return pd.Series(values, dtype=object)
        if len(present) == len(values) and all(re.fullmatch(r"[+-]?\d{1,15}", value) for value in distinct):
            return pd.Series([int(value) for value in present], dtype=np.int64)
    return pd.Series([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def cell_problems(text: pd.DataFrame) -> list[Problem]:
    """Broken rules of single cells, by line.

    Args:
        text: all canonical columns as text, None where missing; the index is the line numbers of the file.
    """
    problems = []
    for column in CELL_RULES:
        cells = text[column].tolist()
        faults = {cell: fault for cell in set(cells) if (fault := _fault(column, cell))}
        if faults:
            rows = zip(text.index, cells, strict=True)
            problems += [Problem((line,), column, *faults[cell]) for line, cell in rows if cell in faults]
    return sorted(problems, key=lambda problem: problem.lines)


def _fault(column: str, value: str | None) -> tuple[str, str] | None:
    """Fault and remedy of a cell; None for a sound one."""
    if value is None:
        return (f"{column} is missing", "every row needs one") if column in REQUIRED_COLUMNS else None
    fits, rule = CELL_RULES[column]
    what, _, remedy = rule.partition("; ")
    return None if fits(value) else (f"{column} {what}, got {value!r}", remedy)


def row_problems(text: pd.DataFrame) -> list[Problem]:
    """Rules that rows break together; `text` as of :func:`cell_problems`."""
    return [*_duplicate_problems(text), *split_problems(text)]


def _keys(text: pd.DataFrame) -> pd.Series:
    """Names of scans, joined: they name files, where 'a_b' + 'c' and 'a' + 'b_c' would collide too."""
    return pd.Series(text["participant_id"].to_numpy() + "_" + text["session_id"].to_numpy(), text.index, dtype=object)


def _duplicate_problems(text: pd.DataFrame) -> list[Problem]:
    keys = _keys(text)
    if not keys.duplicated().any():
        return []
    lines = pd.Series(text.index, index=text.index)
    first = lines.groupby(keys).transform("first")
    return [
        Problem(
            (int(first[line]), line),
            "session_id",
            f"participant {text.loc[line, 'participant_id']}, session {text.loc[line, 'session_id']} appears twice",
            "remove one or give it its own session_id",
        )
        for line in lines[lines != first]
    ]


def split_problems(text: pd.DataFrame) -> list[Problem]:
    """Subjects in two splits; `text` as of :func:`cell_problems`."""
    known = text.dropna(subset="split").drop_duplicates(["participant_id", "split"])
    known = known[known.duplicated("participant_id", keep=False)]
    return [
        Problem(
            tuple(rows.index),
            "split",
            f"subject {subject} is in {' and in '.join(rows['split'])}",
            "empty the split column and run 'ldae cohort split' to freeze a new one",
        )
        for subject, rows in known.groupby("participant_id", sort=False)
    ]
