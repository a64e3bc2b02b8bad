"""The rules of a manifest: its columns, and what each cell and the rows together must satisfy.

The rules look at text cells (None where missing) in a table whose index is the line numbers of the file, so that
every problem can name its line.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ldae.volume import SUFFIXES

__all__ = [
    "COLUMNS",
    "OPTIONAL_COLUMNS",
    "REQUIRED_COLUMNS",
    "SPLITS",
    "Problem",
    "find_problems",
    "infer_type",
    "normal_sex",
]

REQUIRED_COLUMNS = ("participant_id", "session_id", "image")
OPTIONAL_COLUMNS = ("age", "sex", "diagnosis", "months", "site", "split")
COLUMNS = REQUIRED_COLUMNS + OPTIONAL_COLUMNS
SPLITS = ("train", "validation", "test")

WHOLE_NUMBER = re.compile(r"[+-]?\d{1,15}")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# '007' is a code, not the number seven: a column that holds one stays text.
LEADING_ZERO = re.compile(r"[+-]?0\d")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
SEX_WORDS = {"f": "F", "female": "F", "m": "M", "male": "M"}
MAX_AGE_YEARS = 120.0
MAX_MONTHS = 1200.0


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
        """Where and what."""
        return f"line{'s' if len(self.lines) > 1 else ''} {' and '.join(map(str, self.lines))}: {self.what}"

    def __str__(self) -> str:
        return f"{self.statement}; {self.remedy}"


def normal_sex(value: str | None) -> str | None:
    """F or M for the usual spellings; anything else as it is."""
    return None if value is None else SEX_WORDS.get(value.lower(), value)


def find_problems(text: pd.DataFrame) -> list[Problem]:
    """What violates the schema; rules that span rows are only looked at once all cells are right.

    Args:
        text: all canonical columns as text, None where missing; the index is the line numbers of the file.
    """
    # A broken cell would only echo in the rules that span rows, so those wait for the cells to be right.
    return _cell_problems(text) or [*_duplicate_problems(text), *_split_problems(text)]


def infer_type(values: list[str | None], column: str) -> pd.Series:
    """A column with its type: floats for age and months, text for the other canonical ones, numbers where all are.

    Args:
        values: text cells that satisfy the schema, None where missing.
        column: its name.
    """
    present = [value for value in values if value is not None]
    if column not in ("age", "months"):
        if column in COLUMNS or not present:
            return pd.Series(values, dtype=object)
        if not all(NUMBER.fullmatch(value) and not LEADING_ZERO.match(value) for value in present):
            return pd.Series(values, dtype=object)
        if len(present) == len(values) and all(WHOLE_NUMBER.fullmatch(value) for value in present):
            return pd.Series([int(value) for value in present], dtype=np.int64)
    return pd.Series([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _cell_problems(text: pd.DataFrame) -> list[Problem]:
    import pandera.pandas as pa

    def number(low: float, high: float) -> Any:
        def inside(value: str) -> bool:
            return NUMBER.fullmatch(value) is not None and low <= float(value) <= high

        return inside

    def column(rule: Any, remedy: str, *, nullable: bool = True) -> pa.Column:
        return pa.Column(checks=pa.Check(rule, element_wise=True, error=remedy), nullable=nullable)

    def identifier(value: str) -> bool:
        return IDENTIFIER.fullmatch(value) is not None

    id_remedy = "must start with a letter or digit and hold only letters, digits and _ . + -; rename it"
    schema = pa.DataFrameSchema(
        {
            "participant_id": column(identifier, id_remedy, nullable=False),
            "session_id": column(identifier, id_remedy, nullable=False),
            "image": column(
                lambda value: value.lower().endswith(SUFFIXES),
                f"must name an image ending in {', '.join(SUFFIXES)}; convert it",
                nullable=False,
            ),
            "age": column(
                number(0.0, MAX_AGE_YEARS), f"must be years between 0 and {MAX_AGE_YEARS:g}; write n/a if unknown"
            ),
            "sex": column({"F", "M"}.__contains__, "must be F or M; write n/a if unknown"),
            "months": column(
                number(0.0, MAX_MONTHS),
                f"must be months since baseline between 0 and {MAX_MONTHS:g}; count from the first scan",
            ),
            "split": column(SPLITS.__contains__, f"must be one of {', '.join(SPLITS)}; write n/a to leave a scan out"),
        },
        strict=False,
    )
    try:
        schema.validate(text, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases.sort_values("index", kind="stable")
        return [
            Problem((int(line),), name, f"{name} is missing", "every row needs one")
            if check == "not_nullable"
            else Problem(
                (int(line),), name, f"{name} {check.partition('; ')[0]}, got {value!r}", check.partition("; ")[2]
            )
            for line, name, check, value in zip(
                cases["index"], cases["column"], cases["check"], cases["failure_case"], strict=True
            )
        ]
    return []


def _duplicate_problems(text: pd.DataFrame) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for line, subject, session in zip(text.index, text["participant_id"], text["session_id"], strict=True):
        # On the joined key: it names files, where 'a_b' + 'c' and 'a' + 'b_c' would collide too.
        first = seen.setdefault(f"{subject}_{session}", line)
        if first != line:
            problems.append(
                Problem(
                    (first, line),
                    "session_id",
                    f"participant {subject}, session {session} appears twice",
                    "remove one or give it its own session_id",
                )
            )
    return problems


def _split_problems(text: pd.DataFrame) -> list[Problem]:
    seen: dict[str, dict[str, int]] = {}
    for line, subject, split in zip(text.index, text["participant_id"], text["split"], strict=True):
        if split is not None:
            seen.setdefault(subject, {}).setdefault(split, line)
    return [
        Problem(
            tuple(splits.values()),
            "split",
            f"subject {subject} is in {' and in '.join(splits)}",
            "empty the split column and run 'ldae cohort split' to freeze a new one",
        )
        for subject, splits in seen.items()
        if len(splits) > 1
    ]
