"""Dates and visit codes as study tables write them, and one clock for all scans of a subject."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Literal

import pandas as pd

from ldae.errors import CohortError

__all__ = [
    "DAYS_PER_MONTH",
    "DAYS_PER_YEAR",
    "DateOrder",
    "months_of_visit",
    "months_since_first",
    "read_date",
    "try_date",
]

DAYS_PER_YEAR = 365.25
DAYS_PER_MONTH = DAYS_PER_YEAR / 12

BASELINE = frozenset({"bl", "sc", "baseline", "screening"})
UNITS = (
    (re.compile(r"m(?:onth)?[ _-]?(\d{1,3})"), 1.0),
    (re.compile(r"y(?:ear)?[ _-]?(\d{1,2})"), 12.0),
    (re.compile(r"d(?:ay)?[ _-]?(\d{1,5})"), 1 / DAYS_PER_MONTH),
)

DateOrder = Literal["stated", "day-first", "month-first"]

# A time of the day may follow; it does not matter here.
TIME = re.compile(r"[T ]+\d{1,2}[:_]\d{2}([:_]\d{2}(\.\d+)?)?\s*([AaPp][Mm]|Z|[+-]\d{2}:?\d{2})?$")
FORMATS = ("%Y-%m-%d", "%d-%b-%Y", "%d-%B-%Y", "%b-%d-%Y", "%B-%d-%Y")
YEAR_LAST = {"day-first": ("%d-%m-%Y",), "month-first": ("%m-%d-%Y",), "stated": ("%d-%m-%Y", "%m-%d-%Y")}


@lru_cache(maxsize=10_000)
def read_date(text: str, order: DateOrder = "stated") -> date:
    """A date in any usual writing.

    Understood are the year first (`2006-05-19`, `2006/5/19`, `20060519`), the month by its English name (`19-May-2006`,
    `May 19, 2006`), and numbers with the year last (`5/19/2006`, `19.05.2006`).

    Args:
        text: the cell.
        order: of day and month where both are numbers before the year; "stated" takes only dates with one reading.

    Raises:
        CohortError: if it is no date, has a year of two digits, or could be two days.
    """
    plain = re.sub(r"(?<=\d)(st|nd|rd|th)\b", "", TIME.sub("", text.strip()))
    plain = re.sub(r"[\s,./-]+", "-", re.sub(r"\bsept\b", "sep", plain, flags=re.IGNORECASE))
    if re.fullmatch(r"\d{8}", plain):
        plain = f"{plain[:4]}-{plain[4:6]}-{plain[6:]}"
    readings = (_parsed(plain, each) for each in (*FORMATS, *YEAR_LAST[order]))
    days = list(dict.fromkeys(day for day in readings if day is not None))
    if len(days) == 1:
        return days[0]
    if days:
        both = " or ".join(f"{day.day} {day:%B}" for day in days)
        msg = (
            f"{text!r} could be {both}; say which with 'dates: day-first' or 'dates: month-first' in a copy of the map, or "
            "write dates as YYYY-MM-DD"
        )
        raise CohortError(msg)
    read = "" if order == "stated" else f", read {order}"
    msg = (
        f"{text!r} is no day of the calendar{read}; write YYYY-MM-DD, with four digits of the year and months in numbers or "
        "in English, or n/a"
    )
    raise CohortError(msg)


def try_date(text: str, order: DateOrder = "stated") -> date | None:
    """The date as of :func:`read_date`; None where it is none, or could be two."""
    try:
        return read_date(text, order)
    except CohortError:
        return None


def _parsed(text: str, form: str) -> date | None:
    try:
        return datetime.strptime(text, form).date()
    except ValueError:
        return None


def months_of_visit(code: str, known: Mapping[str, float] | None = None) -> float | None:
    """Months since baseline that a visit code states, or None where it states none.

    `bl`, `sc`, `baseline` and `screening` are 0; `m06`, `M12`, `Month 6` are months, `y1` and `Year 2` years, `d0129`
    days. A leading `ses-` does not count, nor does case. A bare number or a code such as `v04` states nothing by itself.

    Args:
        code: of the visit.
        known: further codes of a study, in lower case, and their months.
    """
    text = code.strip().lower().removeprefix("ses-")
    if known and text in known:
        return float(known[text])
    if text in BASELINE:
        return 0.0
    found = ((pattern.fullmatch(text), months) for pattern, months in UNITS)
    return next((int(match[1]) * months for match, months in found if match), None)


def months_since_first(subject: pd.Series, months: pd.Series, days: pd.Series, dates: pd.Series) -> pd.Series:
    """Months of each scan, in one way for all scans of a subject.

    The first of these that all scans of the subject have, else the first that any has: months as stated, days, dates; the
    latter two counted from the subject's first scan.

    Args:
        subject: of each scan.
        months: stated, since baseline.
        days: since the subject's entry.
        dates: datetimes.
    """

    def from_first(values: pd.Series) -> pd.Series:
        return values - values.groupby(subject).transform("min")

    clocks = (months, from_first(days) / DAYS_PER_MONTH, from_first(dates).dt.days / DAYS_PER_MONTH)
    result, open_ = pd.Series(float("nan"), index=subject.index), pd.Series(data=True, index=subject.index)
    for rule in ("all", "any"):
        for clock in clocks:
            fits = open_ & clock.notna().groupby(subject).transform(rule)
            result, open_ = result.where(~fits, clock), open_ & ~fits
    return result
