"""Tables of feature vectors, one row a scan, whichever model made them."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldae.base.files import atomic_file
from ldae.codes import Origin, check_origin
from ldae.data.identity import names_people
from ldae.data.manifest import COLUMNS, Record
from ldae.data.text_table import read_text_table
from ldae.errors import ManifestError, TaskError
from ldae.tasks.probe.result import CODES, MEDIAN

__all__ = [
    "Embeddings",
    "embeddings_of",
    "feature_names",
    "joined",
    "keys_of",
    "origin_of_table",
    "read_embeddings",
    "read_named",
    "write_arrays",
    "write_embeddings",
]

METADATA = b"ldae"
DOMAIN_DISTANCE = "domain_distance"
SUBJECT, SESSION = KEYS = ["participant_id", "session_id"]
COPY = re.compile(r"(\.\d+|_[xy])$")
"""What pandas puts behind the name of a second column `age`."""
COMMA, THOUSANDS = r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?", r"[+-]?[1-9]\d{0,2}(,\d{3})*"
NUMERIC = ("integer", "floating", "mixed-integer-float", "decimal", "empty", "string")
"""Kinds of columns that may hold numbers, in the words of pandas."""
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Embeddings:
    """A table of feature vectors, whichever model made them.

    Attributes:
        keys: participant_id and session_id of each row; without session_id there is one row a person.
        values: (N, S), or (N, K, S) where a scan has K tokens (slices, patches); a missing number is NaN.
        components: principal components that a probe reduces them to, fitted on its fitting subjects; None keeps all.
        names: of the columns that are features, where the table names them.
        left_out: columns that are no features, because the manifest holds them, they name people, or they are no numbers.
        origin: the model that made them, if it is of this package.
        outside: rows that lie outside the training domain of that model; None where it is not known.
    """

    keys: pd.DataFrame
    values: Array
    components: int | None = None
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    origin: Origin | None = None
    outside: int | None = None

    @property
    def tokens(self) -> int:
        """Of each scan; 1 where it has one vector."""
        return self.values.shape[1] if self.values.ndim == 3 else 1

    def of(self, records: Sequence[Record], *, what: str = "the embeddings") -> Array:
        """The vectors of these scans, in their order.

        Raises:
            TaskError: naming scans that have none, or that a table without sessions cannot tell apart.
        """
        columns = [name for name in KEYS if name in self.keys.columns]
        if SESSION not in columns and len({r.participant_id for r in records}) < len(records):
            msg = (
                f"{what} have no session_id, but some people have several scans here; add the column, or use one scan a "
                "person (--scans first)"
            )
            raise TaskError(msg)
        index = {tuple(key): row for row, key in enumerate(self.keys[columns].itertuples(index=False, name=None))}
        rows = [index.get(tuple(getattr(record, name) for name in columns)) for record in records]
        missing = [record.key for record, row in zip(records, rows, strict=True) if row is None]
        if missing:
            msg = (
                f"{what} hold no row for {len(missing)} of {len(records)} scans (first: {', '.join(missing[:3])}), but name "
                f"{', '.join('_'.join(key) for key in list(index)[:2])}, ...; give rows for all scans, by the same identifiers"
            )
            raise TaskError(msg)
        return self.values[[row for row in rows if row is not None]]


def joined(first: Embeddings, second: Embeddings) -> Embeddings:
    """Rows of two tables of one model.

    Raises:
        TaskError: if the models or widths differ.
    """
    check_origin("the second table", second.origin, first.origin)
    if first.values.shape[1:] != second.values.shape[1:] or set(first.keys) != set(second.keys):
        msg = (
            f"the tables hold {first.values.shape[1:]} and {second.values.shape[1:]} features a scan, under {list(first.keys)} "
            f"and {list(second.keys)}; encode both cohorts with one model"
        )
        raise TaskError(msg)
    keys = pd.concat([first.keys, second.keys], ignore_index=True)
    return replace(first, keys=keys, values=np.concatenate([first.values, second.values]))


def keys_of(records: Sequence[Record]) -> pd.DataFrame:
    """Columns participant_id and session_id of scans."""
    return pd.DataFrame({key: [getattr(record, key) for record in records] for key in KEYS})


def feature_names(width: int) -> list[str]:
    """y000, y001, ..., in as many digits as the last needs."""
    digits = len(str(width - 1))
    return [f"y{index:0{digits}d}" for index in range(width)]


def embeddings_of(
    records: Sequence[Record],
    values: npt.NDArray[np.floating],
    origin: Origin | None = None,
    components: int | None = None,
) -> Embeddings:
    """Feature vectors, (N, S), under the keys of their scans."""
    return Embeddings(keys_of(records), np.asarray(values, dtype=np.float64), components, origin=origin)


def write_embeddings(
    path: Path,
    records: Sequence[Record],
    values: npt.NDArray[np.floating],
    origin: Origin | None = None,
    notes: Mapping[str, Sequence[Any]] | None = None,
) -> Path:
    """Write feature vectors as Parquet: participant_id, session_id, y000, y001, ..., and their model as the schema's metadata.

    Notes are further columns, which are no features: `domain_distance`, and text. Values are (N, S).
    """
    import pyarrow
    import pyarrow.parquet

    parts = [keys_of(records), pd.DataFrame(values, columns=feature_names(values.shape[1])), pd.DataFrame(notes or {})]
    whole = pyarrow.Table.from_pandas(pd.concat(parts, axis=1), preserve_index=False)
    if origin is not None:
        whole = whole.replace_schema_metadata({**whole.schema.metadata, METADATA: json.dumps(asdict(origin)).encode()})
    with atomic_file(path) as temporary:
        pyarrow.parquet.write_table(whole, temporary, write_page_checksum=True)
    return path


def write_arrays(path: Path, records: Sequence[Record], values: npt.NDArray[np.floating]) -> Path:
    """Write feature vectors (N, S), or tokens (N, K, S), as NPZ: participant_id, session_id, values."""
    keys = {name: np.array(column.tolist()) for name, column in keys_of(records).items()}
    with atomic_file(path) as temporary:
        np.savez(temporary, allow_pickle=False, **keys, values=values)
    return path


def read_embeddings(path: Path, manifest: Collection[str] = ()) -> Embeddings:
    """Read feature vectors.

    Parquet, and CSV and TSV as manifests are read: participant_id, session_id unless there is one scan a person, and numeric
    columns, which are the features, but for those that belong to the manifest (age, diagnosis, ...) or name people (RID,
    image_id, ...), and row numbers without a name. NPZ: arrays `participant_id` and `session_id` (N,), and `values` (N, S), or
    (N, K, S) for K tokens a scan.

    Args:
        path: of the table.
        manifest: columns of the manifest, which are no features either, or a target could tell itself.

    Raises:
        TaskError: if the file is missing, unreadable, without the key columns or without features, names a column twice, or has
            a column of numbers of which some cannot be read.
    """
    tables, arrays = (".parquet", ".csv", ".tsv"), ".npz"
    if path.suffix not in (*tables, arrays) or not path.is_file():
        msg = (
            f"{path}: no such table of embeddings; give a {', '.join((*tables, arrays))} file that 'ldae encode' or another "
            "model wrote"
        )
        raise TaskError(msg)
    read = _read_arrays(path) if path.suffix == arrays else _read_table(path, manifest)
    keys, values = read.keys, read.values
    if keys.duplicated().any():
        first = " ".join(keys[keys.duplicated()].iloc[0])
        remedy = "keep one" if SESSION in keys else "keep one, or add the column session_id"
        msg = f"{path}: two rows for {first}; {remedy}"
        raise TaskError(msg)
    if not len(values):
        msg = f"{path}: holds no rows; it needs one a scan"
        raise TaskError(msg)
    if values.shape[-1] == 0:
        msg = f"{path}: no numeric column besides the keys and what the manifest holds; add the features"
        raise TaskError(msg)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, *_, column = bad[0]
        kind = "missing" if np.isnan(values[tuple(bad[0])]) else "infinite"
        msg = (
            f"{path}: {len(bad)} missing or infinite values, the first in column {read.names[column]}, row {row + 1} "
            f"({' '.join(keys.iloc[row])}), which is {kind}; correct them, or take those columns or rows out"
        )
        raise TaskError(msg)
    return replace(read, keys=keys.reset_index(drop=True))


def _read_table(path: Path, manifest: Collection[str]) -> Embeddings:
    try:
        table, origin = _read_parquet(path) if path.suffix == ".parquet" else (read_text_table(path), None)
    except ManifestError as error:
        raise TaskError(str(error)) from error
    if repeated := table.columns[table.columns.duplicated()].tolist():
        msg = f"{path}: column {', '.join(map(str, repeated))} appears twice; give each column one name"
        raise TaskError(msg)
    if SUBJECT not in table.columns:
        msg = f"{path}: column {SUBJECT} is missing, got {', '.join(map(str, table.columns[:5]))}...; add it"
        raise TaskError(msg)
    keys = table[[name for name in KEYS if name in table.columns]]
    blank = keys.isna().any(axis=1)
    if blank.any():
        first = int(blank.argmax()) + 1
        msg = f"{path}: {int(blank.sum())} rows lack {' or '.join(keys.columns)} (first: row {first}); fill it in"
        raise TaskError(msg)
    outside = None
    if DOMAIN_DISTANCE in table.columns and (distances := _numbers(path, table.pop(DOMAIN_DISTANCE))) is not None:
        outside = int((distances > 1).sum())
    # Row numbers and what the manifest says of a scan are no features: they would tell the target.
    known = {*COLUMNS, *manifest}
    features: dict[str, Array] = {}
    left_out: list[str] = []
    for column in (each for each in table.columns if each not in keys and not str(each).startswith("Unnamed:")):
        name = str(column)
        values = None if {name, COPY.sub("", name)} & known else _numbers(path, table[column])
        if values is None or names_people(name, values):
            left_out.append(name)
        else:
            features[name] = values
    matrix = pd.DataFrame(features, index=table.index).to_numpy(dtype=np.float64)
    return Embeddings(keys.astype(str), matrix, None, tuple(features), tuple(left_out), origin, outside)


def _read_parquet(path: Path) -> tuple[pd.DataFrame, Origin | None]:
    """The columns, and the model that the file names; None where another program wrote it."""
    import pyarrow.parquet

    try:
        whole = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True).read()
        table = whole.to_pandas()
    except Exception as error:  # pyarrow raises many kinds
        msg = f"{path}: unreadable ({' '.join(str(error).split())[:200]}); write it again"
        raise TaskError(msg) from error
    try:
        return table, _origin(whole.schema.metadata)
    except (ValueError, RecursionError) as error:
        msg = f"{path}: the metadata name no model ({error}); encode the scans again, or take the entry 'ldae' out"
        raise TaskError(msg) from error


def origin_of_table(path: Path) -> Origin | None:
    """The model that a Parquet table names, of which no row is read; None where no table is, or it names none."""
    import pyarrow.parquet

    try:
        return _origin(pyarrow.parquet.read_schema(path).metadata)
    except (OSError, ValueError, RecursionError, pyarrow.ArrowException):
        return None


def _origin(metadata: Mapping[bytes, bytes] | None) -> Origin | None:
    plain = (metadata or {}).get(METADATA)
    return None if plain is None else Origin.of(json.loads(plain))


def _numbers(path: Path, column: "pd.Series[Any]") -> Array | None:
    """The numbers of a column, NaN where missing; None where it holds words, dates, truth values or lists.

    Text of which some cells are numbers, or may be, is an error.
    """
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind not in NUMERIC:
        return None
    numbers = pd.to_numeric(column, errors="coerce")
    lost = numbers.isna()
    words = column[lost].dropna()
    if len(words):
        cells = column.dropna().astype(str)
        if cells.str.fullmatch(COMMA).all() and not cells.str.fullmatch(THOUSANDS).all():
            return _numbers(path, column.str.replace(",", "."))
        if pd.to_numeric(cells.str.replace(",", ""), errors="coerce").isna().all():
            return None
        msg = (
            f"{path}: column {column.name} holds numbers and text, such as {words.iloc[0]!r}; write numbers with a decimal "
            "point, without marks between thousands, or take the column out"
        )
        raise TaskError(msg)
    if kind == "string" and lost.all():
        return None
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def read_named(items: Sequence[str], manifest: Collection[str] = ()) -> dict[str, Embeddings]:
    """Read embeddings by name: each NAME=TABLE, or NAME=TABLE@COMPONENTS to reduce them to principal components.

    Columns of the manifest are no features.

    Raises:
        TaskError: for an item of another form, or a name that is taken.
    """
    found: dict[str, Embeddings] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or not name or name in (CODES, MEDIAN, *found):
            msg = f"{item}: expected NAME=TABLE with a new name, such as pca=pca.parquet"
            raise TaskError(msg)
        table, at, width = path.rpartition("@")
        if at and width.isdigit() and int(width) > 0:
            found[name] = replace(read_embeddings(Path(table), manifest), components=int(width))
        else:
            found[name] = read_embeddings(Path(path), manifest)
    return found


def _read_arrays(path: Path) -> Embeddings:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            msg = "an array alone, as numpy.save writes it"
            raise ValueError(msg)
        with file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        keys = {name: arrays[name].astype(str) for name in KEYS if name in arrays}
    except Exception as error:  # zipfile, its decompressors and numpy raise many kinds
        reason = "not an NPZ file of plain arrays" if "pickle" in str(error) else str(error)
        msg = f"{path}: unreadable ({reason}); save plain arrays with numpy.savez"
        raise TaskError(msg) from error
    absent = [name for name in (SUBJECT, "values") if name not in arrays]
    if absent:
        msg = f"{path}: array {', '.join(absent)} is missing, got {', '.join(arrays)}; add it"
        raise TaskError(msg)
    values = arrays["values"]
    if (
        values.ndim not in (2, 3)
        or 0 in values.shape[1:]
        or any(each.shape != values.shape[:1] for each in keys.values())
    ):
        msg = (
            f"{path}: values must be (scans, features) or (scans, tokens, features), at least one each, with one key a scan, got "
            f"{values.shape} and keys {[each.shape for each in keys.values()]}; save them in one order"
        )
        raise TaskError(msg)
    if values.dtype.kind not in "fiu":
        msg = f"{path}: values must be numbers, got {values.dtype}; save them as floats"
        raise TaskError(msg)
    names = tuple(str(number) for number in range(1, values.shape[-1] + 1))
    return Embeddings(pd.DataFrame(keys), values.astype(np.float64), names=names)
