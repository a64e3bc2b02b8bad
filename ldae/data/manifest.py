"""The manifest: one row a scan, validated with the line numbers of the file.

It is a tab-, comma- or semicolon-separated table. ``participant_id``, ``session_id`` and ``image`` are required; ``age``,
``sex``, ``diagnosis``, ``months``, ``site`` and ``split`` are optional; further columns are kept. A missing value is ``n/a``.
"""

import hashlib
import itertools
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldae.base.files import content_hash, write_text
from ldae.base.notebook import Shown
from ldae.data.schema import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    SPLITS,
    Problem,
    bound_of,
    cell_problems,
    infer_type,
    normal_sex,
    row_problems,
    split_problems,
    usable_rows,
)
from ldae.data.text_table import cleaned, read_text_table, shortlist
from ldae.errors import ManifestError
from ldae.image_files import Reading

__all__ = [
    "COLUMNS",
    "SPLITS",
    "Manifest",
    "Record",
    "build_manifest",
    "canonical_text",
    "read_manifest",
    "write_manifest",
]

log = logging.getLogger(__name__)

PROBLEMS_SHOWN = 10
LISTED = 100
"""Images of one folder, from which its list is read faster than the state of each file."""


@dataclass(frozen=True)
class Record:
    """One scan of one subject.

    Attributes:
        participant_id: the subject.
        session_id: the visit.
        image: absolute path of the scan.
        age: years at the scan.
        sex: "F" or "M".
        diagnosis: the cohort's own label (CN, MCI, AD, ...).
        months: months since the subject's baseline.
        site: where the scan was taken.
        split: "train", "validation" or "test".
        extra: the values of all further columns; a missing one is None.
    """

    participant_id: str
    session_id: str
    image: Path
    age: float | None
    sex: str | None
    diagnosis: str | None
    months: float | None
    site: str | None
    split: str | None
    extra: dict[str, Any]

    @property
    def key(self) -> str:
        """The scan's name in tables and messages."""
        return f"{self.participant_id}_{self.session_id}"

    @property
    def stem(self) -> str:
        """Beginning of the names of files made of this scan: `sub-X_ses-Y`, in BIDS' letters and digits."""
        ids = {"sub-": self.participant_id, "ses-": self.session_id}
        return "_".join(start + re.sub(r"[^A-Za-z0-9]", "", name.removeprefix(start)) for start, name in ids.items())

    @property
    def content_hash(self) -> str:
        """Hash of the image file's content; what caches are keyed by."""
        return content_hash(self.image)


@dataclass(frozen=True, eq=False, repr=False)
class Manifest(Shown):
    """A validated cohort table; make one with :func:`read_manifest` or :func:`build_manifest`.

    Attributes:
        path: the file; relative image paths resolve against its folder.
        table: one row a scan, index 0 to n - 1; the nine canonical columns in order (absent ones all missing),
            then the extra columns. ``age`` and ``months`` are floats, the other canonical columns text or missing.

    >>> row = {"participant_id": ["P1", "P2"], "session_id": "01", "image": ["1.nii", "2.nii"], "age": [70, 64]}
    >>> cohort = build_manifest(pd.DataFrame(row), "cohort.tsv")
    >>> cohort.select(cohort.table["age"] > 65).subjects
    ('P1',)
    """

    path: Path
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, participant_id: str) -> list[Record]:
        """The scans of a subject, in the order of the rows.

        Raises:
            KeyError: if there is no such subject.
        """
        found = [record for record in self.records if record.participant_id == participant_id]
        if not found:
            raise KeyError(participant_id)
        return found

    @property
    def facts(self) -> dict[str, str]:
        """What it shows of itself."""
        splits = self.table["split"].dropna().value_counts()
        return {
            "file": str(self.path),
            "scans": f"{len(self)} of {len(self.subjects)} subjects",
            **{name: f"{splits[name]} scans" for name in SPLITS if name in splits},
            "columns": ", ".join(_written_columns(self.table)),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of its table, images with absolute paths."""
        return self.table.assign(image=[str(record.image) for record in self.records])

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The rows as :class:`Record`, in order."""
        folder = self.path.parent.absolute()
        plain = _plain_columns(self.table)
        plain["image"] = [folder / str(image) for image in plain["image"]]
        canonical = [plain.pop(name) for name in COLUMNS]  # the order of a record's fields
        extras = zip(*plain.values(), strict=True) if plain else itertools.repeat((), len(self))
        return tuple(map(Record, *canonical, (dict(zip(plain, extra, strict=True)) for extra in extras)))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Participant ids in order of first appearance."""
        return tuple(dict.fromkeys(self.table["participant_id"]))

    @cached_property
    def sha256(self) -> str:
        """Hash of the content: rows in order, values as parsed; separators and the order of columns do not count."""
        columns = _written_columns(self.table)
        names = [*(c for c in COLUMNS if c in columns), *sorted(c for c in columns if c not in COLUMNS)]
        plain = _plain_columns(self.table[names]).values()
        numbers_as_floats = [[float(v) if isinstance(v, int) else v for v in values] for values in plain]
        rows = list(zip(*numbers_as_floats, strict=True))
        return hashlib.sha256(json.dumps([names, rows]).encode()).hexdigest()

    def select(self, mask: npt.ArrayLike) -> "Manifest":
        """The rows where `mask`, one boolean a row, (n,), is true.

        Raises:
            ManifestError: if the mask is not one boolean a row.
        """
        chosen = np.asarray(mask)
        if chosen.shape != (len(self),) or chosen.dtype != np.bool_:
            msg = (
                f"a selection needs one boolean for each of the {len(self)} rows, got {chosen.dtype} of shape "
                f"{chosen.shape}; build it from this manifest's own table"
            )
            raise ManifestError(msg)
        return Manifest(self.path, self.table[chosen].reset_index(drop=True))

    def in_split(self, name: str) -> "Manifest":
        """The scans of one split; possibly none.

        Raises:
            ManifestError: if the name is no split, or no scan has been given a split.
        """
        if name not in SPLITS:
            msg = f"split must be one of {', '.join(SPLITS)}, got {name!r}"
            raise ManifestError(msg)
        if not self.table["split"].notna().any():
            msg = f"{self.path}: no scan has a split; run 'ldae cohort split' to freeze one by subject"
            raise ManifestError(msg)
        return self.select((self.table["split"] == name).to_numpy(dtype=bool))

    def write(self, path: str | os.PathLike[str]) -> "Manifest":
        """Write to `path`, relative image paths re-expressed from the new folder, and return what was written."""
        target = Path(path).absolute()
        source, folder = self.path.parent.absolute(), target.parent
        table = self.table.copy()
        if source != folder:
            table["image"] = [
                image if Path(image).is_absolute() else os.path.relpath(source / image, folder)
                for image in table["image"]
            ]
        write_manifest(table, target)
        return Manifest(target, table)


def read_manifest(
    path: str | os.PathLike[str], *, check_images: bool = True, images: bool = True, strict: bool | None = None
) -> Manifest:
    """Read and validate a manifest. A row that cannot be used is left out, with a warning that names its line.

    Args:
        path: a TSV or CSV file (tab, comma or semicolon; a byte order mark is tolerated).
        check_images: refuse if an image file does not exist.
        images: False for tasks that read no images: the column `image` may be missing, and `session_id` too (then "1")
            where every subject has one row.
        strict: refuse a table with a row that cannot be used; as :class:`ldae.image_files.Reading` says if not given.

    Raises:
        ManifestError: if a subject is in two splits or no row can be used; if strict, naming every violated rule with the line
            numbers of the file (the header is line 1).
    """
    path = Path(path)
    strict = Reading.current().strict if strict is None else strict
    ragged: list[tuple[int, int]] = []
    table = read_text_table(path, None if strict else ragged)
    reasons = [f"line {line} has {cells} cells, the header has {table.shape[1]}" for line, cells in ragged]
    _warn_of(f"{path}: {len(ragged)} rows are left out", reasons)
    if not images and REQUIRED_COLUMNS[0] in table.columns:
        # No file has the name of such an image, and none is read.
        unread = {"session_id": "1", "image": [f"{row}.nii.gz" for row in range(len(table))]}
        table = table.assign(**{name: value for name, value in unread.items() if name not in table.columns})
    return _validated(table, path, check_images=check_images and images, strict=strict)


def build_manifest(table: pd.DataFrame, path: str | os.PathLike[str]) -> Manifest:
    """Validate a table made in memory as if it stood in the file `path`, row i in line i + 2.

    Args:
        table: one row a scan.
        path: where it stands or will stand; relative image paths resolve against its folder.

    Raises:
        ManifestError: naming every violated rule.
    """
    text = pd.DataFrame(
        {column: cleaned([_text(value) for value in values]) for column, values in _plain_columns(table).items()},
        index=range(2, len(table) + 2),
        dtype=object,
    )
    return _validated(text, Path(path), check_images=False, strict=True)


def write_manifest(table: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a table as a manifest: validated, then written beside its name and renamed.

    Columns come in canonical order, then the extra ones; optional columns without any value are left out.

    Args:
        table: one row a scan; ``image`` is written as it is.
        path: a name in .tsv or .csv; its folder is made if need be.

    Raises:
        ManifestError: if the suffix is neither .tsv nor .csv, or the table violates the schema.
    """
    path = Path(path)
    separator = {".tsv": "\t", ".csv": ","}.get(path.suffix.lower())
    if separator is None:
        msg = f"{path}: a manifest is written as .tsv or .csv, got {path.suffix!r}; rename the output"
        raise ManifestError(msg)
    valid = build_manifest(table, path).table
    content = valid[_written_columns(valid)].to_csv(sep=separator, na_rep="n/a", index=False, lineterminator="\n")
    return write_text(path, content)


def canonical_text(text: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Text cells with all canonical columns first, None where missing, and sex as F or M; the index is line numbers.

    Raises:
        ManifestError: if a required column is absent, or there is no row.
    """
    absent = [column for column in REQUIRED_COLUMNS if column not in text.columns]
    if absent:
        msg = (
            f"{path}: required column(s) {', '.join(absent)} are missing, got {', '.join(map(str, text.columns))}; "
            "rename the columns, or make a manifest with 'ldae cohort import'"
        )
        raise ManifestError(msg)
    if text.empty:
        msg = f"{path}: the table is empty; it needs one row a scan"
        raise ManifestError(msg)
    text = text.reindex(columns=[*COLUMNS, *(column for column in text.columns if column not in COLUMNS)])
    text = text.astype(object).where(text.notna(), None)
    text["sex"] = _map_distinct(text["sex"], normal_sex)
    bounds = _map_distinct(text["age"], bound_of)
    reasons = [f"line {line}: {value}" for line, value in text["age"][bounds.notna()].items()]
    _warn_of(f"{path}: ages that are bounds are taken for the age", reasons)
    text["age"] = bounds.where(bounds.notna(), text["age"])
    return text


def _map_distinct(cells: pd.Series, function: Callable[[str | None], str | None]) -> pd.Series:
    """A function of each cell, called once for cells that are equal."""
    results = {cell: function(cell) for cell in set(cells)}
    return pd.Series([results[cell] for cell in cells], index=cells.index, dtype=object)


def _validated(text: pd.DataFrame, path: Path, *, check_images: bool, strict: bool) -> Manifest:
    """Check a table of text cells (index: line numbers) against the schema and give its columns their types."""
    text = canonical_text(text, path)
    usable, problems = usable_rows(text)
    lost = _without_file(usable["image"], path.parent) if check_images else []
    if strict or usable.empty:
        # Rules that span rows wait for the cells to be right, because a broken cell would only echo in them.
        _refuse(cell_problems(text) or row_problems(text), path)
    _refuse(split_problems(usable), path)
    if lost and (strict or len(lost) == len(usable)):
        missing = shortlist([f"line {line}: {path.parent.absolute() / usable['image'][line]}" for line in lost])
        msg = (
            f"{path}: {len(lost)} of {len(usable)} image files do not exist: {missing}; "
            "relative paths resolve against the manifest's folder: move the manifest or correct the paths"
        )
        raise ManifestError(msg)
    reasons = [*map(str, problems), *(f"line {line}: there is no file {usable['image'][line]}" for line in lost)]
    usable = usable.drop(index=lost)
    _warn_of(f"{path}: {len(text) - len(usable)} of {len(text)} rows are left out", reasons)
    return Manifest(path, pd.DataFrame({column: infer_type(usable[column].tolist(), column) for column in usable}))


def _without_file(images: pd.Series, folder: Path) -> list[int]:
    """Lines of images that are no files; a folder of many is listed once. Path objects would take longer than all else."""
    base = str(folder)
    paths = [os.path.join(base, image) for image in images]  # noqa: PTH118
    counts = Counter(path.rpartition("/")[0] for path in paths)
    found: set[str] = set()
    for each in (each for each, count in counts.items() if count >= LISTED and os.path.isdir(each)):  # noqa: PTH112
        with os.scandir(each) as entries:
            found.update(f"{each}/{entry.name}" for entry in entries if entry.is_file())
    asked = zip(images.index, paths, strict=True)
    return [line for line, path in asked if path not in found and not os.path.isfile(path)]  # noqa: PTH113


def _refuse(problems: Sequence[Problem], path: Path) -> None:
    """Raise ManifestError if there are problems."""
    if problems:
        raise ManifestError(_listed(f"{path}: {len(problems)} problem(s)", list(map(str, problems))))


def _warn_of(what: str, reasons: Sequence[str]) -> None:
    if reasons:
        log.warning("%s", _listed(what, reasons))


def _listed(what: str, reasons: Sequence[str]) -> str:
    """A line for each of the first reasons."""
    more = len(reasons) - PROBLEMS_SHOWN
    return "\n  ".join([what, *reasons[:PROBLEMS_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _written_columns(table: pd.DataFrame) -> list[str]:
    return [column for column in table.columns if column not in OPTIONAL_COLUMNS or table[column].notna().any()]


def _plain_columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """The cells of each column as Python's own values, None where missing."""
    cells = {name: zip(table[name].tolist(), table[name].isna().tolist(), strict=True) for name in table.columns}
    return {
        name: [None if gone else value.item() if isinstance(value, np.generic) else value for value, gone in column]
        for name, column in cells.items()
    }


def _text(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
