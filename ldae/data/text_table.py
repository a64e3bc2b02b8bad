"""Separated text files as text: what stands in each cell, and in which line of the file."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldae.errors import ManifestError

__all__ = ["MISSING_WORDS", "TextTable", "read_text_table", "shortlist"]

MISSING_WORDS = frozenset({"", "n/a", "na", "nan", "none", "null", "<na>"})
ITEMS_SHOWN = 3


@dataclass(frozen=True)
class TextTable:
    """The cells of a separated text file.

    Attributes:
        columns: the names in the header.
        lines: the line number of each row in the file; the header is line 1.
        rows: the cells of each row, stripped; None where missing.
    """

    columns: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[tuple[str | None, ...], ...]


def read_text_table(path: Path) -> TextTable:
    """Read a file separated by tabs, commas or semicolons as text.

    Cells are stripped; the words for a missing value become None; blank lines are skipped. In a semicolon-separated
    file a decimal comma becomes a decimal point.

    Raises:
        ManifestError: if the file is missing, is not UTF-8 text, has no header or no rows, repeats a column name, or
            has a row with more or fewer cells than the header.
    """
    if path.is_dir():
        msg = f"{path}: is a folder; give the table itself, such as the manifest.tsv in it"
        raise ManifestError(msg)
    if not path.is_file():
        msg = f"{path}: no such table; check the path"
        raise ManifestError(msg)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as a UTF-8 CSV or TSV"
        raise ManifestError(msg) from error
    source = io.StringIO(content, newline="")
    first = next((line for line in source if line.strip()), "")
    source.seek(0)
    # The separator that cuts the header into most pieces; a tab wins a tie.
    separator = max("\t,;", key=first.count)
    reader = csv.reader(source, delimiter=separator)
    lines: list[int] = []
    cells: list[list[str]] = []
    start = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append(start)
                cells.append([cell.strip() for cell in row])
            start = reader.line_num + 1
    except csv.Error as error:
        msg = f"{path}: line {start} cannot be read ({error}); check its quotation marks"
        raise ManifestError(msg) from error
    if len(cells) < 2:
        msg = f"{path}: the table is empty, got {len(cells)} line(s); it needs a header and one row a scan"
        raise ManifestError(msg)
    header = cells[0]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated or "" in header:
        what = f"column name(s) {', '.join(map(repr, repeated))} appear twice" if repeated else "a column has no name"
        msg = f"{path}: {what} in the header {header}; give each column one name"
        raise ManifestError(msg)
    ragged = [f"line {line} has {len(row)}" for line, row in zip(lines, cells, strict=True) if len(row) != len(header)]
    if ragged:
        msg = (
            f"{path}: the header has {len(header)} columns, but {shortlist(ragged)}; "
            "quote cells that contain the separator, and write n/a for a missing value"
        )
        raise ManifestError(msg)
    rows = tuple(tuple(_cell(cell, decimal_comma=separator == ";") for cell in row) for row in cells[1:])
    return TextTable(tuple(header), tuple(lines[1:]), rows)


def _cell(cell: str, *, decimal_comma: bool) -> str | None:
    if cell.lower() in MISSING_WORDS:
        return None
    if decimal_comma and re.fullmatch(r"[+-]?\d+,\d+", cell):
        return cell.replace(",", ".")
    return cell


def shortlist(items: Sequence[str]) -> str:
    """The first few items of a list and how many more there are."""
    more = len(items) - ITEMS_SHOWN
    return "; ".join(items[:ITEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
