"""Tables as text: the content of each cell, and its line in the file."""

import codecs
import csv
import datetime
import io
import itertools
import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ldae.errors import ManifestError

__all__ = ["MISSING_WORDS", "cleaned", "read_text_table", "shortlist"]

log = logging.getLogger(__name__)

MISSING_WORDS = frozenset({"", "n/a", "na", "nan", "none", "null", "<na>", "#n/a"})
ITEMS_SHOWN = 3
EXCEL, ZIPPED, OLD_EXCEL = ".xlsx", b"PK\3\4", b"\xd0\xcf\x11\xe0"
SEPARATOR_LINE = re.compile(r'"?sep=([\t,;])"?\1*\s*', re.IGNORECASE)
"""As Excel reads it, and as it writes it when such a file is saved again."""
DECIMAL_COMMA = re.compile(r"([>≥]=?\s*)?[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?(\s*\+)?")
"""A number, or a bound such as `>89,5`; points separate thousands."""
END = "end of the table"

Rows = list[tuple[range, Sequence[str]]]
"""The lines of each row in the file, and its cells."""


def read_text_table(path: Path, ragged: list[tuple[int, int]] | None = None) -> pd.DataFrame:
    """Read a file separated by tabs, commas or semicolons, or the first sheet of an Excel file (.xlsx), as text.

    Cells are stripped; the words for a missing value become None. Blank lines are skipped, and so are empty columns without a
    name at the right end, and row numbers without a name at the left end. The separator is the one that Excel's first line
    `sep=;` states, else the one that cuts the header into most cells. In a semicolon-separated file a decimal comma becomes a
    decimal point. A formula without a value stays as it is, with a warning: it is no missing value.

    Args:
        path: the file, UTF-8; or UTF-16, as Excel saves "Unicode text".
        ragged: takes the number and the cells of each line of a row with more or fewer cells than the header, which is left
            out; without it such a file is refused.

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
    with path.open("rb") as file:
        start = file.read(4)
    if start == OLD_EXCEL:
        msg = f"{path}: an old Excel file (.xls), or one with a password; save it as {EXCEL} without a password, or as CSV"
        raise ManifestError(msg)
    excel = path.suffix.lower() == EXCEL or start == ZIPPED
    content = "" if excel else _text(path, wide=start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if (regular := _regular(content)) is not None:
        return regular
    numbered, separator = (_sheet(path), "") if excel else _rows(content, path)
    written = [(lines, row) for lines, row in numbered if _holds(row)]
    if len(written) < 2:
        msg = f"{path}: the table is empty, got {len(written)} line(s); it needs a header and one row a scan"
        raise ManifestError(msg)
    header = [name.strip() for name in written[0][1]]
    if not header[0] and all(row[0].strip().isdigit() for _, row in written[1:]):
        written = [(lines, row[1:]) for lines, row in written]
        header = header[1:]
    names = _names(header, written[1:], path)
    width = len(names)
    wrong: list[tuple[int, int]] = []
    whole: dict[int, Sequence[str]] = {}
    for lines, row in itertools.islice(written, 1, None):
        if len(row) == width or (len(row) > width and not _holds(row[width:])):
            whole[lines[0]] = row[:width]
        else:
            wrong += [(line, len(row)) for line in lines]
    if wrong and ragged is None:
        items = shortlist([f"line {line} has {cells}" for line, cells in wrong])
        msg = (
            f"{path}: the header has {width} columns, but {items}; "
            "quote cells that contain the separator, and write n/a for a missing value"
        )
        raise ManifestError(msg)
    if ragged is not None:
        ragged += wrong
    cells = zip(*whole.values(), strict=True) if whole else [()] * width
    columns = [cleaned(column, decimal_comma=separator == ";") for column in cells]
    return pd.DataFrame(dict(zip(names, columns, strict=True)), index=list(whole), dtype=object)


def cleaned(column: Sequence[str], *, decimal_comma: bool = False) -> list[str | None]:
    """The content of cells, None where it is missing; most stay as they are."""
    read = {cell: _cell(cell, decimal_comma=decimal_comma) for cell in set(column)}
    changed = {cell: content for cell, content in read.items() if content != cell}
    return [changed.get(cell, cell) for cell in column] if changed else list(column)


def _text(path: Path, *, wide: bool) -> str:
    encoding = "utf-16" if wide else "utf-8-sig"
    try:
        return path.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        kind = encoding.removesuffix("-sig").upper()
        msg = f"{path}: not {kind} text ({error.reason} at byte {error.start}); save it as a UTF-8 CSV or TSV, or as {EXCEL}"
        raise ManifestError(msg) from error


def _sheet(path: Path) -> Rows:
    """The rows of the first sheet of an Excel file; dates as year-month-day."""
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError as error:
        msg = f"{path}: Excel files need the extra 'excel': pip install 'ldae[excel]'; or save it as CSV"
        raise ManifestError(msg) from error
    unknown: list[str] = []
    rows: list[list[str]] = []
    try:
        # Values as Excel computed them, and formulas: where a formula has no value, nothing else tells it from an empty cell.
        books = [openpyxl.load_workbook(io.BytesIO(path.read_bytes()), True, data_only=each) for each in (True, False)]
        sheets = [book.worksheets[0] for book in books]
        for sheet in sheets:
            sheet.reset_dimensions()  # some programs write wrong ones
        for line, pair in enumerate(zip(*sheets, strict=True), 1):
            rows.append([])
            for value, formula in zip(*pair, strict=True):
                lacks = formula.data_type == "f" and value.data_type == "n" and value.value is None
                rows[-1].append(_excel_text((formula if lacks else value).value))
                if lacks or (value.data_type == "e" and value.value != "#N/A"):
                    unknown.append(f"line {line}: {rows[-1][-1]}")
    except Exception as error:  # openpyxl raises many kinds
        msg = f"{path}: not a readable Excel file ({' '.join(str(error).split())[:200]}); save it as CSV"
        raise ManifestError(msg) from error
    if unknown:
        log.warning("%s: formulas without a value: %s; correct them in Excel and save it", path, shortlist(unknown))
    width = max(map(len, rows), default=0)
    return [(range(line, line + 1), row + [""] * (width - len(row))) for line, row in enumerate(rows, 1)]


def _excel_text(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.strftime("%Y-%m-%d")
    whole = isinstance(value, float) and value.is_integer()
    return "" if value is None else str(int(value) if whole else getattr(value, "text", value))


def _regular(content: str) -> pd.DataFrame | None:
    """The table of a text whose rows have one length, without quotation marks and blank lines; pandas is thrice as fast."""
    first = content.partition("\n")[0]
    separator = max("\t,;", key=first.count)
    names = [name.strip() for name in first.split(separator)]
    lines = content.rstrip("\n").count("\n") + 1
    odd = "" in names or len(set(names)) < len(names) or any(mark in content for mark in '"\r\0')
    if odd or lines < 2 or content.count(separator) != lines * (len(names) - 1):
        return None
    try:
        cells = pd.read_csv(
            io.StringIO(content),
            sep=separator,
            header=None,
            skip_blank_lines=False,
            dtype=object,
            na_filter=False,
            quoting=csv.QUOTE_NONE,
        )
    except pd.errors.ParserError:  # a row is longer, so that another one is shorter
        return None
    columns = [cleaned(cells[column].tolist()[1:], decimal_comma=separator == ";") for column in cells]
    index = range(2, lines + 1)
    return None if None in columns[0] else pd.DataFrame(dict(zip(names, columns, strict=True)), index, dtype=object)


def _rows(content: str, path: Path) -> tuple[Rows, str]:
    """The rows of a text, and the separator."""
    source = io.StringIO(content + "\n", newline="")
    first = next((line for line in source if line.strip()), "")
    stated = SEPARATOR_LINE.fullmatch(first)
    if stated is None:
        source.seek(0)
    start = 1 + content[: source.tell()].count("\n")
    # A tab wins a tie.
    separator = stated[1] if stated else max("\t,;", key=first.count)
    reader = csv.reader(itertools.chain(source, [END]), delimiter=separator)
    rows: Rows = []
    above = start - 1
    try:
        for row in reader:
            below = reader.line_num + above + 1
            rows.append((range(start, below), tuple(row)))  # the garbage collector does not walk tuples of text
            start = below
    except csv.Error as error:
        msg = f"{path}: line {start} cannot be read ({error}); check its quotation marks"
        raise ManifestError(msg) from error
    lines, last = rows.pop()
    if last != (END,):
        count = content.rstrip().count("\n") + 1
        msg = (
            f"{path}: a quotation mark is never closed, so that lines {lines[0]} to {count} are one row; close it, or "
            "take it out"
        )
        raise ManifestError(msg)
    return rows, separator


def _names(header: Sequence[str], rows: Rows, path: Path) -> list[str]:
    """The names of the columns, without those at the right end that have neither a name nor a cell."""
    width = len(header)
    while width and not header[width - 1] and not any(_holds(row[width - 1 : len(header)]) for _, row in rows):
        width -= 1
    names = list(header[:width])
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated or "" in names:
        what = (
            f"column name(s) {', '.join(map(repr, repeated))} appear twice" if any(repeated) else "a column has no name"
        )
        msg = f"{path}: {what} in the header {header}; give each column one name"
        raise ManifestError(msg)
    return names


def _holds(cells: Sequence[str]) -> bool:
    """True if one of the cells is not blank."""
    return any(map(str.strip, cells))


def _cell(cell: str, *, decimal_comma: bool) -> str | None:
    cell = cell.strip()
    if cell.lower() in MISSING_WORDS:
        return None
    return cell.replace(".", "").replace(",", ".") if decimal_comma and DECIMAL_COMMA.fullmatch(cell) else cell


def shortlist(items: Sequence[str]) -> str:
    """The first few items of a list and how many more there are."""
    more = len(items) - ITEMS_SHOWN
    return "; ".join(items[:ITEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
