"""A manifest from a folder of images and a table of people, matched by identifier."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ldae.data.manifest import build_manifest, write_manifest
from ldae.data.schema import COLUMNS
from ldae.data.text_table import TextTable, read_text_table, shortlist
from ldae.errors import CohortError
from ldae.volume import SUFFIXES

__all__ = ["ImportReport", "import_csv"]

FIRST_SESSION = "01"

# Names a column goes by, without case and punctuation; where a table has several, the first listed counts.
SYNONYMS: dict[str, str] = {
    "participant_id": (
        "participantid participant mrid subjectid subject subjectlabel subjectidentifier patientid patient ptid "
        "ixiid rid scanid imageid id"
    ),
    "session_id": "sessionid session sessionlabel ses visitid visit viscode2 viscode timepoint tp",
    "age": "age ageatscan ageatvisit ageatentry ageyears ageinyears ageyr scanage",
    "sex": "sex gender ptgender sexid1m2f sexid",
    "diagnosis": "diagnosis dx dxgroup researchgroup group dxbl diagnosisgroup clinicaldiagnosis",
    "months": "months monthssincebaseline monthsfrombaseline monthsbl monthbl month",
    "site": "site siteid sitename center centre",
    "split": "split",
}
SEX_CODES = {"1": "M", "1.0": "M", "2": "F", "2.0": "F", "m": "M", "male": "M", "f": "F", "female": "F"}
# ADNI's visit codes carry the month: bl, sc, m06, m12.
BASELINE_VISITS = ("bl", "sc", "baseline", "screening")
MONTH_VISIT = re.compile(r"(?:ses-)?m(\d{1,3})", re.IGNORECASE)
T1W_NAME = re.compile(r"(?<![a-z0-9])(t1w?|mprage|spgr)(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class ImportReport:
    """What an import matched and what it left over.

    Attributes:
        manifest: the manifest written.
        matched: number of scans in it.
        rows_without_image: identifiers of table rows for which no image was found.
        images_without_row: images that no row of the table names, relative to the folder of images.
    """

    manifest: Path
    matched: int
    rows_without_image: tuple[str, ...]
    images_without_row: tuple[str, ...]


def import_csv(
    images: Path,
    table: Path,
    out: Path,
    *,
    id_column: str | None = None,
    mapping: Mapping[str, str] | None = None,
) -> ImportReport:
    """Write a manifest from a folder of images and a table.

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

    Raises:
        CohortError: if the folder holds no image, columns cannot be recognised, an image or a row has more than one
            possible partner, or nothing matches.
        ManifestError: if the table cannot be read, or a matched row violates the schema.
    """
    images, table, out = Path(images), Path(table), Path(out)
    found = _find_images(images)
    cells = read_text_table(table)
    chosen = dict(mapping or {})
    if id_column is not None:
        chosen["participant_id"] = id_column
    source = _recognise(cells.columns, chosen, table)
    rows = _canonical_rows(cells, source, table)
    partner = _match(rows, found, images, table)
    matched = [row for row in range(len(rows)) if row in partner]
    if not matched:
        names = [str(path.relative_to(images)) for path in found]
        msg = (
            f"{table}: no identifier of column {source['participant_id']!r} (such as "
            f"{rows[0]['participant_id']!r}) stands in the name of any of the {len(found)} images in {images} (such as "
            f"{names[0]!r}); name the column of identifiers with id_column (--id-column)"
        )
        raise CohortError(msg)
    frame = pd.DataFrame([rows[row] for row in matched], dtype=object)
    frame["image"] = [_image_path(found[partner[row]], out) for row in matched]
    # Checked against the lines of the user's table, not of the manifest to come.
    build_manifest(frame, table, lines=[cells.lines[row] for row in matched])
    write_manifest(frame, out)
    used = set(partner.values())
    return ImportReport(
        manifest=out,
        matched=len(matched),
        rows_without_image=tuple(_row_name(rows[row]) for row in range(len(rows)) if row not in partner),
        images_without_row=tuple(str(path.relative_to(images)) for i, path in enumerate(found) if i not in used),
    )


def _find_images(images: Path) -> list[Path]:
    if not images.is_dir():
        msg = f"{images}: no such folder of images; check the path"
        raise CohortError(msg)
    found = sorted(
        path
        for path in images.rglob("*")
        if path.name.lower().endswith(SUFFIXES) and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        msg = f"{images}: no image ending in {', '.join(SUFFIXES)}; convert DICOM first or choose another folder"
        raise CohortError(msg)
    return found


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _recognise(columns: Sequence[str], chosen: Mapping[str, str], table: Path) -> dict[str, str]:
    """Manifest column -> column of the table."""
    for name, column in chosen.items():
        if name not in SYNONYMS:
            msg = f"mapping names {name!r}, which is no column of a manifest; choose among {', '.join(SYNONYMS)}"
            raise CohortError(msg)
        if column not in columns:
            msg = f"{table}: no column {column!r} for {name}, got {', '.join(columns)}; correct the mapping"
            raise CohortError(msg)
    source = dict(chosen)
    by_plain_name: dict[str, str] = {}
    for column in columns:
        if column not in chosen.values():
            by_plain_name.setdefault(_plain_name(column), column)
    for name, synonyms in SYNONYMS.items():
        candidates = [by_plain_name[synonym] for synonym in synonyms.split() if synonym in by_plain_name]
        if name not in source and candidates:
            source[name] = candidates[0]
    if "participant_id" not in source:
        msg = (
            f"{table}: no column of identifiers recognised among {', '.join(columns)}; "
            "name it with id_column (--id-column)"
        )
        raise CohortError(msg)
    return source


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
            row["months"] = _months(row["session_id"])
        for column, value in by_column.items():
            if column not in source.values():
                # An extra column must not pose as a canonical one ('image' of the table is not our image).
                row[f"source_{column}" if column in COLUMNS else column] = value
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


def _months(session: str) -> str | None:
    if session.lower() in BASELINE_VISITS:
        return "0"
    month = MONTH_VISIT.fullmatch(session)
    return None if month is None else str(int(month[1]))


def _match(rows: list[dict[str, str | None]], found: list[Path], images: Path, table: Path) -> dict[int, int]:
    """Row -> image, both by position. A longer identifier claims an image before a shorter one."""
    rows_of: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        rows_of.setdefault(str(row["participant_id"]), []).append(i)
    by_length = sorted(rows_of, key=len, reverse=True)
    candidates: dict[int, list[int]] = {}
    for image, path in enumerate(found):
        relative = path.relative_to(images).as_posix()
        owner = _owner(path.name, relative, by_length)
        if owner is None:
            continue
        owners = rows_of[owner]
        if len(owners) > 1:
            owners = [i for i in owners if _has_token(relative, rows[i]["session_id"] or FIRST_SESSION, "(?:ses-)?")]
            if len(owners) > 1:
                msg = (
                    f"{table}: image {relative} fits {len(owners)} rows of {owner!r}; give each row a session that "
                    "stands in the image's name"
                )
                raise CohortError(msg)
        for i in owners:
            candidates.setdefault(i, []).append(image)
    partner = {}
    for i, choices in candidates.items():
        t1w = [image for image in choices if T1W_NAME.search(found[image].name)]
        best = choices if len(choices) == 1 else t1w
        if len(best) != 1:
            msg = (
                f"{table}: row {_row_name(rows[i])} fits {len(choices)} images: "
                f"{shortlist([str(found[image].relative_to(images)) for image in choices])}; keep one T1w a scan in "
                "the folder, or give the table one row a scan with a session column"
            )
            raise CohortError(msg)
        partner[i] = best[0]
    for row in rows:
        row["session_id"] = row["session_id"] or FIRST_SESSION
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
    pattern = rf"(?<![a-z0-9]){start}{re.escape(token)}(?![a-z0-9])"
    return re.search(pattern, text, re.IGNORECASE) is not None


def _row_name(row: Mapping[str, str | None]) -> str:
    return "_".join(value for value in (row["participant_id"], row["session_id"]) if value)


def _image_path(image: Path, out: Path) -> str:
    image, folder = image.absolute(), out.parent.absolute()
    # Relative where image and manifest travel together, absolute where they do not.
    return os.path.relpath(image, folder) if image.is_relative_to(folder) else str(image)
