"""Target of a probe: a column of the manifest, as classes, a number, or time to conversion."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ldae.data.manifest import COLUMNS, Manifest, Record
from ldae.errors import TaskError

__all__ = ["Target", "check_column", "choose_target", "find_conversions", "values_of"]

Kind = Literal["binary", "multiclass", "regression", "survival"]
Array = npt.NDArray[np.float64]

FEW_VALUES = 10
"""A column of whole numbers with no more different values than this is read as classes, unless a kind is given."""


@dataclass(frozen=True)
class Target:
    """Scans with a value to predict.

    Attributes:
        name: the column, or the conversion.
        kind: binary, multiclass, regression or survival.
        records: scans that have a value.
        values: (N,): 1 for the positive class and 0 for the other, the index of a class, a number, or months to the event.
        classes: names; of a binary target negative first, then positive.
        events: (N,), 1 where the event was seen and 0 where follow-up ended before it; survival only.
        left_out: scans without a value, or of other classes.
    """

    name: str
    kind: Kind
    records: tuple[Record, ...]
    values: Array
    classes: tuple[str, ...] = ()
    events: Array | None = None
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.records)

    @property
    def subjects(self) -> npt.NDArray[np.str_]:
        """The subject of each scan, (N,)."""
        return np.array([record.participant_id for record in self.records])

    @property
    def outcome(self) -> Array:
        """The values, (N,); months with whether the event was seen, (N, 2), of survival."""
        return self.values if self.events is None else np.stack([self.values, self.events], axis=1)

    def select(self, rows: npt.NDArray[np.int64]) -> "Target":
        """Some of the scans."""
        events = None if self.events is None else self.events[rows]
        records = tuple(self.records[row] for row in rows)
        return replace(self, records=records, values=self.values[rows], events=events)

    def first_scans(self) -> "Target":
        """One scan a subject: the earliest by months, then by order."""
        order = sorted(range(len(self)), key=lambda row: self.records[row].months or 0.0)
        first = {self.records[row].participant_id: row for row in reversed(order)}
        chosen = np.array(sorted(first.values()), dtype=np.int64)
        return replace(self.select(chosen), left_out=self.left_out + len(self) - len(chosen))


def values_of(records: Sequence[Record], column: str) -> list[Any]:
    """Values of a column, canonical or further; None where one is missing."""
    if column in COLUMNS:
        return [getattr(record, column) for record in records]
    return [record.extra.get(column) for record in records]


def check_column(records: Sequence[Record], name: str) -> None:
    """Refuse a column that the manifest lacks.

    Raises:
        TaskError: with the columns that there are.
    """
    further = records[0].extra if records else {}
    if name not in COLUMNS and name not in further:
        known = [each for each in COLUMNS[3:] if any(getattr(record, each) is not None for record in records)]
        msg = f"there is no column {name}; the manifest has {', '.join([*known, *further])}"
        raise TaskError(msg)


def choose_target(
    manifest: Manifest,
    column: str,
    *,
    kind: Literal["auto", "binary", "multiclass", "regression"] = "auto",
    positive: str | None = None,
    negative: str | None = None,
) -> Target:
    """A column as a target.

    `auto`: two named classes, or a column with two values, are binary; text, and numbers with at most ten values, are
    multiclass; other numbers regression. A diagnosis column that holds AD and CN is binary by default, AD positive.

    Args:
        manifest: whose column.
        column: canonical (diagnosis, age, sex, ...) or further.
        kind: what to read it as.
        positive: class that counts as 1.
        negative: class that counts as 0; others are left out.

    Raises:
        TaskError: if there is no such column, nothing in it, or it cannot be read as that.
    """
    if column not in manifest.table.columns:
        others = ", ".join(str(name) for name in manifest.table.columns if name not in COLUMNS[:3])
        msg = f"{manifest.path}: there is no column {column}; a target can be {others}"
        raise TaskError(msg)
    values = values_of(manifest.records, column)
    known = [value for value in values if value is not None]
    found = sorted(set(map(str, known)))
    if len(found) < 2:
        msg = f"{manifest.path}: column {column} holds {', '.join(found) or 'nothing'}; a probe needs two different values"
        raise TaskError(msg)
    if column == "diagnosis" and kind in ("auto", "binary") and {"AD", "CN"} <= set(found):
        positive = positive or ("CN" if negative == "AD" else "AD")
        negative = negative or ("AD" if positive == "CN" else "CN")
    if positive is not None and positive == negative:
        msg = f"the positive and the negative class are both {positive}; name two"
        raise TaskError(msg)
    numeric = all(isinstance(value, int | float) for value in known)
    if kind == "auto":
        measured = column in ("age", "months") or (numeric and any(value % 1 for value in known))
        if numeric and not (positive or negative) and (measured or len(found) > FEW_VALUES):
            kind = "regression"
        else:
            kind = "binary" if positive or negative or len(found) == 2 else "multiclass"
    if kind == "regression":
        if not numeric:
            msg = f"{manifest.path}: column {column} holds text ({', '.join(found[:3])}); it cannot be a number to regress"
            raise TaskError(msg)
        classes: tuple[str, ...] = ()
        numbers = {row: float(value) for row, value in enumerate(values) if value is not None}
    else:
        classes = _two_classes(manifest, column, found, positive, negative) if kind == "binary" else tuple(found)
        index = {name: float(number) for number, name in enumerate(classes)}
        numbers = {
            row: index[str(value)] for row, value in enumerate(values) if value is not None and str(value) in index
        }
    records = tuple(manifest.records[row] for row in numbers)
    left_out = len(manifest) - len(records)
    return Target(column, kind, records, np.array(list(numbers.values())), classes, left_out=left_out)


def _two_classes(
    manifest: Manifest, column: str, found: list[str], positive: str | None, negative: str | None
) -> tuple[str, str]:
    """Negative and positive class; an error if one is missing from the column, or they are ambiguous."""
    for name in (positive, negative):
        if name is not None and name not in found:
            msg = f"{manifest.path}: column {column} holds no {name}, but {', '.join(found)}; name one of these"
            raise TaskError(msg)
    if len(found) > 2 and (positive is None or negative is None):
        msg = (
            f"{manifest.path}: column {column} holds {len(found)} classes ({', '.join(found[:6])}); give --positive and "
            "--negative, or --task multiclass"
        )
        raise TaskError(msg)
    high = positive or next(name for name in reversed(found) if name != negative)
    low = negative or next(name for name in found if name != high)
    return low, high


def find_conversions(manifest: Manifest, *, before: str = "MCI", after: str = "AD") -> Target:
    """Months from the first scan to the visit at which the diagnosis `after` is first seen, or to the last visit.

    Subjects whose first diagnosis is not `before` are left out.

    Raises:
        TaskError: if no subject converts, or all do.
    """
    chosen: list[tuple[Record, float, float]] = []
    for subject in manifest.subjects:
        visits = [each for each in manifest[subject] if each.months is not None and each.diagnosis is not None]
        visits.sort(key=lambda record: record.months or 0.0)
        if not visits or visits[0].diagnosis != before:
            continue
        start = visits[0].months or 0.0
        event = next((r for r in visits if r.diagnosis == after), None)
        months = ((event or visits[-1]).months or 0.0) - start
        if months > 0:
            chosen.append((visits[0], months, float(event is not None)))
    events = np.array([event for _, _, event in chosen])
    if not len(chosen) or events.min() == events.max():
        msg = (
            f"{manifest.path}: {len(chosen)} subjects start as {before} and are seen again, {int(events.sum())} of them "
            f"become {after}; time to conversion needs some who do and some who do not"
        )
        raise TaskError(msg)
    records = tuple(record for record, _, _ in chosen)
    months_seen = np.array([months for _, months, _ in chosen])
    name = f"{before}_to_{after}"
    return Target(name, "survival", records, months_seen, (before, after), events, len(manifest) - len(records))
