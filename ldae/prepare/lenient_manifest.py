"""A manifest read however many of its rules are broken, with the broken ones as findings."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ldae.data.schema import COLUMNS, REQUIRED_COLUMNS, find_problems, infer_type, normal_sex
from ldae.data.text_table import read_text_table
from ldae.errors import ManifestError
from ldae.prepare.findings import ERROR, Finding
from ldae.volume import SUFFIXES

__all__ = ["LenientManifest", "read_leniently"]

# How the schema names the place of a problem.
LINES = re.compile(r"lines? (\d+)(?: and (\d+))*: (\w+)?")


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
        place = LINES.match(problem)
        if place is not None and place[3] in COLUMNS and problem.startswith("line "):
            _drop(text, int(place[1]), place[3])
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


def _distinct(problems: list[str]) -> list[str]:
    """Without subjects in two splits, which the checks of the table name with their scans."""
    return [problem for problem in problems if not re.match(r"lines \d+( and \d+)+: subject ", problem)]


def _repeated(text: pd.DataFrame, problems: list[str]) -> list[Finding]:
    """Rows that repeat a session, which the schema only looks for once all cells are right."""
    if not any(problem.startswith("line ") for problem in problems):
        return []
    later = [problem for problem in find_problems(_repaired(text)) if problem.startswith("lines")]
    return [_finding(problem, text) for problem in _distinct(later)]


def _repaired(text: pd.DataFrame) -> pd.DataFrame:
    fixed = text.copy()
    fixed["image"] = [value or "missing.nii" for value in text["image"]]
    for column in ("participant_id", "session_id"):
        fixed[column] = ["x" + re.sub(r"[^A-Za-z0-9_.+-]", "-", value) for value in text[column]]
    return fixed


def _finding(problem: str, text: pd.DataFrame) -> Finding:
    what, _, remedy = problem.rpartition("; ")
    lines = [int(number) for number in re.findall(r"\d+", problem.partition(":")[0])]
    people = [str(text.loc[line, "participant_id"]) for line in lines]
    scans = [f"{person}_{text.loc[line, 'session_id']}" for person, line in zip(people, lines, strict=True)]
    return Finding(
        ERROR, "manifest", what or problem, remedy, tuple(dict.fromkeys(scans)), tuple(dict.fromkeys(people))
    )
