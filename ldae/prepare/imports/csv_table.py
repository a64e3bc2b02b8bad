"""A manifest from a folder of images and a table of people, matched by identifier."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ldae.data.manifest import build_manifest, write_manifest
from ldae.data.schema import COLUMNS
from ldae.data.text_table import TextTable, read_text_table, shortlist
from ldae.errors import CohortError
from ldae.prepare.imports.columns import FIRST_SESSION, SEX_CODES, extra_name, recognise
from ldae.prepare.imports.image_files import find_images, manifest_path
from ldae.prepare.imports.import_report import ImportReport, Skipped, Taken, check_out
from ldae.prepare.imports.visits import months_of_visit

__all__ = ["T1W_NAME", "import_csv"]

T1W_NAME = re.compile(r"(?<![a-z0-9])(t1w?|mprage|spgr)(?![a-z0-9])", re.IGNORECASE)


def import_csv(
    images: Path,
    table: Path,
    out: Path,
    *,
    id_column: str | None = None,
    mapping: Mapping[str, str] | None = None,
    follow_links: bool = False,
) -> ImportReport:
    """Write a manifest from a folder of images and a table, and a report beside it.

    An image belongs to a row when the row's identifier stands in the image's file name (or else in its folders' names)
    as a delimited token: 'IXI012' is in 'IXI012-HH-1211-T1.nii.gz', not in 'IXI0123.nii.gz'. Where several rows share
    an identifier the session must stand there too. Columns are recognised by their usual names, without regard to
    case; the rest of the table is kept as extra columns.

    Args:
        images: folder of images, searched with its subfolders.
        table: CSV or TSV, one row a scan or a person.
        out: the manifest to write, .tsv or .csv.
        id_column: the table's column of identifiers.
        mapping: manifest column -> column of the table, for names that are not recognised.
        follow_links: take images behind links that lead out of the folder.

    Raises:
        CohortError: if the folder holds no image, columns cannot be recognised, an image or a row has more than one
            possible partner, nothing matches, or `out` is the table or another file that no import wrote.
        ManifestError: if the table cannot be read, or a matched row violates the schema.
    """
    images, table, out = Path(images), Path(table), Path(out)
    check_out(out, (table,))
    search = find_images(images, follow_links=follow_links)
    found, names = search.files, [search.name(path) for path in search.files]
    cells = read_text_table(table)
    chosen = dict(mapping or {})
    if id_column is not None:
        chosen["participant_id"] = id_column
    source = recognise(cells.columns, chosen, table)
    if "participant_id" not in source:
        msg = (
            f"{table}: no column of identifiers recognised among {', '.join(cells.columns)}; "
            "name it with id_column (--id-column)"
        )
        raise CohortError(msg)
    rows = _canonical_rows(cells, source, table)
    # Some file systems store an accent apart from its letter.
    partner = _match(rows, cells.lines, [unicodedata.normalize("NFC", name) for name in names], table)
    matched = [row for row in range(len(rows)) if row in partner]
    if not matched:
        msg = (
            f"{table}: no identifier of column {source['participant_id']!r} (such as "
            f"{rows[0]['participant_id']!r}) stands in the name of any of the {len(found)} images in {images} (such as "
            f"{names[0]!r}); name the column of identifiers with id_column (--id-column)"
        )
        raise CohortError(msg)
    frame = pd.DataFrame([rows[row] for row in matched], dtype=object)
    frame["image"] = [manifest_path(found[partner[row]], out) for row in matched]
    # Checked against the lines of the user's table, not of the manifest to come.
    build_manifest(frame, table, lines=[cells.lines[row] for row in matched])
    write_manifest(frame, out)
    used = set(partner.values())
    lonely = [
        Skipped(_row_name(row), "a row of the table without an image", detail=f"line {line}")
        for i, (row, line) in enumerate(zip(rows, cells.lines, strict=True))
        if i not in partner
    ]
    unclaimed = [Skipped(name, "an image without a row of the table") for i, name in enumerate(names) if i not in used]
    report = ImportReport(
        kind="csv",
        source=table,
        manifest=out,
        taken=tuple(Taken(_row_name(rows[row]), names[partner[row]]) for row in matched),
        skipped=(*lonely, *unclaimed, *search.skipped),
    )
    report.write()
    return report


def _canonical_rows(cells: TextTable, source: Mapping[str, str], table: Path) -> list[dict[str, str | None]]:
    """The table's rows under the manifest's column names, with codes of sex and visit made plain."""
    rows: list[dict[str, str | None]] = []
    for line, values in zip(cells.lines, cells.rows, strict=True):
        by_column = dict(zip(cells.columns, values, strict=True))
        row = {name: by_column.get(source[name]) if name in source else None for name in COLUMNS}
        if row["participant_id"] is None:
            msg = f"{table}: line {line} has no {source['participant_id']}; give every row an identifier"
            raise CohortError(msg)
        row["sex"] = _sex(row["sex"], line, source, table)
        if row["months"] is None and row["session_id"] is not None:
            months = months_of_visit(row["session_id"])
            row["months"] = None if months is None else f"{round(months, 2):g}"
        for column, value in by_column.items():
            if column not in source.values():
                row[extra_name(column)] = value
        rows.append(row)
    return rows


def _sex(value: str | None, line: int, source: Mapping[str, str], table: Path) -> str | None:
    if value is None:
        return None
    if value.lower() not in SEX_CODES:
        msg = (
            f"{table}: line {line}, column {source['sex']}: sex must be M, F, male, female, 1 (male) or 2 (female), "
            f"got {value!r}; recode the column or write n/a"
        )
        raise CohortError(msg)
    return SEX_CODES[value.lower()]


def _match(
    rows: list[dict[str, str | None]], lines: Sequence[int], names: Sequence[str], table: Path
) -> dict[int, int]:
    """Row -> image, both by position. A longer identifier claims an image before a shorter one."""
    rows_of: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        rows_of.setdefault(str(row["participant_id"]), []).append(i)
    by_length = sorted(rows_of, key=len, reverse=True)
    candidates: dict[int, list[int]] = {}
    for image, relative in enumerate(names):
        owner = _owner(relative.rsplit("/", 1)[-1], relative, by_length)
        if owner is None:
            continue
        owners = rows_of[owner]
        if len(owners) > 1:
            owners = [i for i in owners if _has_token(relative, rows[i]["session_id"] or FIRST_SESSION, "(?:ses-)?")]
            if len(owners) > 1:
                msg = (
                    f"{table}: image {relative} fits {len(owners)} rows of {owner!r}, lines "
                    f"{' and '.join(str(lines[i]) for i in owners)}; keep one row a session, or give each row a session "
                    "that stands in the image's name"
                )
                raise CohortError(msg)
        for i in owners:
            candidates.setdefault(i, []).append(image)
    partner = {}
    for i, choices in candidates.items():
        t1w = [image for image in choices if T1W_NAME.search(names[image].rsplit("/", 1)[-1])]
        best = choices if len(choices) == 1 else t1w
        if len(best) != 1:
            msg = (
                f"{table}: row {_row_name(rows[i])} fits {len(choices)} images: "
                f"{shortlist([names[image] for image in choices])}; keep one T1w a scan in "
                "the folder, or give the table one row a scan with a session column"
            )
            raise CohortError(msg)
        partner[i] = best[0]
    # Of a row without an image only what the table says is reported.
    for i in partner:
        rows[i]["session_id"] = rows[i]["session_id"] or FIRST_SESSION
    return partner


def _owner(name: str, relative: str, identifiers: Sequence[str]) -> str | None:
    """The identifier that an image's name starts with, else one inside its name, else one in its folders' names."""
    places = [("^(?:sub-)?", name), ("", name), ("", relative)]
    return next(
        (identifier for start, text in places for identifier in identifiers if _has_token(text, identifier, start)),
        None,
    )


def _has_token(text: str, token: str, start: str = "") -> bool:
    """Whether `token`, after the pattern `start`, stands in `text` with no letter or digit against either end."""
    pattern = rf"(?<![^\W_]){start}{re.escape(token)}(?![^\W_])"
    return re.search(pattern, text, re.IGNORECASE) is not None


def _row_name(row: Mapping[str, str | None]) -> str:
    return "_".join(value for value in (row["participant_id"], row["session_id"]) if value)
