"""Manifests with broken rules: the usable part, and the broken rules as findings."""

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
    """The usable part of a table.

    Attributes:
        path: the file.
        table: canonical columns; cells that break a rule are missing, `image` is None if it names no image, and rows
            without an identifier are named by their line. Index 0 to n - 1.
        findings: the broken rules.
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
        got = f"got {', '.join(cells.columns)}; rename the columns, or make a manifest with 'ldae cohort import'"
        msg = f"{path}: required column(s) {', '.join(absent)} are missing, {got}"
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
    for column in ("participant_id", "session_id"):
        text[column] = [value or f"line-{line}" for line, value in text[column].items()]
    if any(len(problem.lines) == 1 for problem in problems):
        # The schema looks for rows that repeat a session only once all cells are right.
        problems += [problem for problem in find_problems(_repaired(text)) if len(problem.lines) > 1]
    # Subjects in two splits are left to the checks of the table, which name their scans.
    kept = [problem for problem in problems if len(problem.lines) == 1 or problem.column != "split"]
    usable = pd.DataFrame({column: infer_type(text[column].tolist(), column) for column in COLUMNS})
    return LenientManifest(path, usable, tuple(_finding(problem, text) for problem in kept))


def _drop(text: pd.DataFrame, line: int, column: str) -> None:
    # An identifier with odd characters still distinguishes subjects.
    image = column == "image" and str(text.loc[line, column]).lower().endswith(SUFFIXES)
    if column not in ("participant_id", "session_id") and not image:
        text.loc[line, column] = None


def _repaired(text: pd.DataFrame) -> pd.DataFrame:
    fixed = text.copy()
    fixed["image"] = [value or "missing.nii" for value in text["image"]]
    for column in ("participant_id", "session_id"):
        fixed[column] = ["x" + re.sub(r"[^A-Za-z0-9_.+-]", "-", value) for value in text[column]]
    return fixed


def _finding(problem: Problem, text: pd.DataFrame) -> Finding:
    rows = text.loc[list(problem.lines)]
    subjects = tuple(dict.fromkeys(map(str, rows["participant_id"])))
    scans = tuple(dict.fromkeys(f"{a}_{b}" for a, b in zip(rows["participant_id"], rows["session_id"], strict=True)))
    return Finding(ERROR, "manifest", problem.statement, problem.remedy, scans, subjects)
