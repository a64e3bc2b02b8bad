"""Manifests with broken rules: the usable part, and the broken rules as findings."""

from pathlib import Path

import pandas as pd

from ldae.data.manifest import canonical_text
from ldae.data.schema import Problem, cell_problems, infer_type, row_problems
from ldae.data.text_table import read_text_table
from ldae.head.findings import ERROR, Finding
from ldae.prepare.check.table import scan_keys

__all__ = ["read_leniently"]


def read_leniently(path: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """Read a manifest and keep what is usable.

    Returns:
        The columns, the canonical ones first, index 0 to n - 1: cells that break a rule are missing, `image` is None if it
        names no image, and rows without an identifier are named by their line. And the broken rules.

    Raises:
        ManifestError: if it is no table, is empty, or lacks a required column.
    """
    text = canonical_text(read_text_table(path), path)
    problems = cell_problems(text)
    for problem in problems:
        # An identifier with odd characters still distinguishes subjects.
        if problem.column not in ("participant_id", "session_id"):
            text.loc[problem.lines[0], problem.column] = None
    for column in ("participant_id", "session_id"):
        text[column] = [value or f"line-{line}" for line, value in text[column].items()]
    # Subjects in two splits are left to the checks of the table, which name their scans.
    problems += [problem for problem in row_problems(text) if problem.column != "split"]
    usable = pd.DataFrame({column: infer_type(text[column].tolist(), column) for column in text})
    return usable, [_finding(problem, text) for problem in problems]


def _finding(problem: Problem, text: pd.DataFrame) -> Finding:
    rows = text.loc[list(problem.lines)]
    subjects = tuple(dict.fromkeys(map(str, rows["participant_id"])))
    scans = tuple(dict.fromkeys(scan_keys(rows)))
    return Finding(ERROR, "manifest", problem.statement, problem.remedy, scans, subjects)
