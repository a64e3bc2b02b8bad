"""Tables as text: the content of each cell, and its line in the file."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ldae.errors import ManifestError

__all__ = ["MISSING_WORDS", "read_text_table", "shortlist"]

MISSING_WORDS = frozenset({"", "n/a", "na", "nan", "none", "null", "<na>"})
ITEMS_SHOWN = 3
EXCEL = ".xlsx"


def read_text_table(path: Path, ragged: list[tuple[int, int]] | None = None) -> pd.DataFrame:
    """Read a file separated by tabs, commas or semicolons, or the first sheet of an Excel file (.xlsx), as text.

    Cells are stripped; the words for a missing value become None; blank lines and empty columns without a name at the
    right end are skipped. The separator is the one that Excel's first line `sep=;` states, else the one that cuts the
    header into most cells. In a semicolon-separated file a decimal comma becomes a decimal point.

    Args:
        path: the file, UTF-8; or UTF-16, as Excel saves "Unicode text".
        ragged: takes the line number and the number of cells of each row with more or fewer cells than the header, which
            is left out; without it such a file is refused.

    Returns:
        The cells (None where missing); the index is their line numbers in the file, where the header is line 1.

    Raises:
        ManifestError: if the file is missing, is not UTF-8 or UTF-16 text, has no header or no rows, repeats a column name, or
            has a row with more or fewer cells than the header.
    """
    if not path.is_file():
        what = "is a folder; give the table itself, such as the manifest.tsv in it"
        msg = f"{path}: {what if path.is_dir() else 'no such table; check the path'}"
        raise ManifestError(msg)
    content = _sheet(path) if path.suffix.lower() == EXCEL else _text(path)
    (header, *rows), (_, *lines), separator = _cells(content, path)
    names = _names(header, rows, path)
    width = len(names)
    by_line = {line: row if any(row[width:]) else row[:width] for line, row in zip(lines, rows, strict=True)}
    wrong = [(line, len(row)) for line, row in by_line.items() if len(row) != width]
    if wrong and ragged is None:
        items = shortlist([f"line {line} has {cells}" for line, cells in wrong])
        msg = (
            f"{path}: the header has {width} columns, but {items}; "
            "quote cells that contain the separator, and write n/a for a missing value"
        )
        raise ManifestError(msg)
    if ragged is not None:
        ragged += wrong
    whole = {line: row for line, row in by_line.items() if len(row) == width}
    cells = [[_cell(cell, decimal_comma=separator == ";") for cell in row] for row in whole.values()]
    return pd.DataFrame(cells, columns=names, index=list(whole), dtype=object)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if wide else "utf-8-sig"
    try:
        return path.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        kind = encoding.removesuffix("-sig").upper()
        msg = f"{path}: not {kind} text ({error.reason} at byte {error.start}); save it as a UTF-8 CSV or TSV, or as {EXCEL}"
        raise ManifestError(msg) from error


def _sheet(path: Path) -> str:
    """The first sheet of an Excel file, separated by tabs; dates as year-month-day."""
    try:
        table = pd.read_excel(path, header=None, dtype=object)
    except ImportError as error:
        msg = f"{path}: Excel files need the extra 'excel': pip install 'ldae[excel]'; or save it as CSV"
        raise ManifestError(msg) from error
    except Exception as error:  # openpyxl raises many kinds
        msg = f"{path}: not a readable Excel file ({' '.join(str(error).split())[:200]}); save it as CSV"
        raise ManifestError(msg) from error
    return str(table.to_csv(sep="\t", index=False, header=False, date_format="%Y-%m-%d"))


def _cells(content: str, path: Path) -> tuple[list[list[str]], list[int], str]:
    """The cells of the header and each row that is not blank, their line numbers, and the separator."""
    source = io.StringIO(content, newline="")
    first = next((line for line in source if line.strip()), "")
    stated = re.fullmatch(r"sep=([\t,;])\s*", first)
    if stated is None:
        source.seek(0)
    skipped = content[: source.tell()].count("\n")
    # A tab wins a tie.
    separator = stated[1] if stated else max("\t,;", key=first.count)
    reader = csv.reader(source, delimiter=separator)
    rows, lines, start = [], [], 1 + skipped
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(start)
            start = reader.line_num + skipped + 1
    except csv.Error as error:
        msg = f"{path}: line {start} cannot be read ({error}); check its quotation marks"
        raise ManifestError(msg) from error
    if len(rows) < 2:
        msg = f"{path}: the table is empty, got {len(rows)} line(s); it needs a header and one row a scan"
        raise ManifestError(msg)
    return rows, lines, separator


def _names(header: list[str], rows: list[list[str]], path: Path) -> list[str]:
    """The names of the columns, without those at the right end that have neither a name nor a cell."""
    width = len(header)
    while width and not header[width - 1] and not any("".join(row[width - 1 : len(header)]) for row in rows):
        width -= 1
    names = header[:width]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated or "" in names:
        what = (
            f"column name(s) {', '.join(map(repr, repeated))} appear twice" if any(repeated) else "a column has no name"
        )
        msg = f"{path}: {what} in the header {header}; give each column one name"
        raise ManifestError(msg)
    return names


def _cell(cell: str, *, decimal_comma: bool) -> str | None:
    if cell.lower() in MISSING_WORDS:
        return None
    return cell.replace(",", ".") if decimal_comma and re.fullmatch(r"[+-]?\d+,\d+", cell) else cell


def shortlist(items: Sequence[str]) -> str:
    """The first few items of a list and how many more there are."""
    more = len(items) - ITEMS_SHOWN
    return "; ".join(items[:ITEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
