"""Manifests with broken rules: the usable part, and the broken rules as findings."""

import re
from pathlib import Path

import pandas as pd

from ldae.data.manifest import canonical_text
from ldae.data.schema import COLUMNS, Problem, find_problems, infer_type
from ldae.data.text_table import read_text_table
from ldae.head.findings import ERROR, Finding
from ldae.volume import SUFFIXES

__all__ = ["read_leniently"]


def read_leniently(path: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """Read a manifest and keep what is usable.

    Args:
        path: a TSV or CSV file.

    Returns:
        The canonical columns, index 0 to n - 1: cells that break a rule are missing, `image` is None if it names no image,
        and rows without an identifier are named by their line. And the broken rules.

    Raises:
        ManifestError: if it is no table, is empty, or lacks a required column.
    """
    text = canonical_text(read_text_table(path).frame, path)
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
    return usable, [_finding(problem, text) for problem in kept]


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
