"""A manifest read however many of its rules are broken, with the broken ones as findings."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ldae.data.schema import COLUMNS, REQUIRED_COLUMNS, Problem, find_problems, infer_type, normal_sex
from ldae.data.text_table import read_text_table
from ldae.errors import ManifestError
from ldae.head.findings import ERROR, Finding
from ldae.volume import SUFFIXES

__all__ = ["LenientManifest", "read_leniently"]


@dataclass(frozen=True, eq=False)
class LenientManifest:
    """A table with what can be used of it.

    Attributes:
        path: the file.
        table: canonical columns first, cells that break a rule missing, `image` None where it names no image; rows
            without an identifier have their line's number for one. Index 0 to n - 1.
        findings: the rules that are broken.
    """

    path: Path
    table: pd.DataFrame
    findings: tuple[Finding, ...]


def read_leniently(path: Path) -> LenientManifest:
    """Read a manifest and keep what is usable.

    Args:
        path: a TSV or CSV file.

    Raises:
        ManifestError: if it is no table, is empty, or lacks a required column.
    """
    path = Path(path)
    cells = read_text_table(path)
    absent = [column for column in REQUIRED_COLUMNS if column not in cells.columns]
    if absent:
        msg = (
            f"{path}: required column(s) {', '.join(absent)} are missing, got {', '.join(cells.columns)}; rename the "
            "columns, or make a manifest with 'ldae cohort import'"
        )
        raise ManifestError(msg)
    text = pd.DataFrame(cells.rows, columns=list(cells.columns), index=list(cells.lines), dtype=object)
    for column in COLUMNS:
        if column not in text.columns:
            text[column] = None
    text["sex"] = [normal_sex(value) for value in text["sex"]]
    problems = find_problems(text)
    for problem in problems:
        if len(problem.lines) == 1:
            _drop(text, problem.lines[0], problem.column)
    for column, start in (("participant_id", "line"), ("session_id", "line")):
        text[column] = [value or f"{start}-{line}" for line, value in text[column].items()]
    findings = [_finding(problem, text) for problem in _distinct(problems)]
    usable = pd.DataFrame({column: infer_type(text[column].tolist(), column) for column in COLUMNS})
    return LenientManifest(path, usable, (*findings, *_repeated(text, problems)))


def _drop(text: pd.DataFrame, line: int, column: str) -> None:
    # An identifier with odd characters still tells people apart.
    image = column == "image" and str(text.loc[line, column]).lower().endswith(SUFFIXES)
    if column not in ("participant_id", "session_id") and not image:
        text.loc[line, column] = None


def _distinct(problems: list[Problem]) -> list[Problem]:
    """Without subjects in two splits, which the checks of the table name with their scans."""
    return [problem for problem in problems if len(problem.lines) == 1 or problem.column != "split"]


def _repeated(text: pd.DataFrame, problems: list[Problem]) -> list[Finding]:
    """Rows that repeat a session, which the schema only looks for once all cells are right."""
    if not any(len(problem.lines) == 1 for problem in problems):
        return []
    later = [problem for problem in find_problems(_repaired(text)) if len(problem.lines) > 1]
    return [_finding(problem, text) for problem in _distinct(later)]


def _repaired(text: pd.DataFrame) -> pd.DataFrame:
    fixed = text.copy()
    fixed["image"] = [value or "missing.nii" for value in text["image"]]
    for column in ("participant_id", "session_id"):
        fixed[column] = ["x" + re.sub(r"[^A-Za-z0-9_.+-]", "-", value) for value in text[column]]
    return fixed


def _finding(problem: Problem, text: pd.DataFrame) -> Finding:
    people = [str(text.loc[line, "participant_id"]) for line in problem.lines]
    scans = [f"{person}_{text.loc[line, 'session_id']}" for person, line in zip(people, problem.lines, strict=True)]
    return Finding(
        ERROR,
        "manifest",
        problem.statement,
        problem.remedy,
        tuple(dict.fromkeys(scans)),
        tuple(dict.fromkeys(people)),
    )
