"""Visit codes as months since baseline, and one clock for all visits of a subject."""

import re
from collections.abc import Mapping

import pandas as pd

__all__ = ["DAYS_PER_MONTH", "DAYS_PER_YEAR", "manifest_name", "months_of_visit", "months_since_first"]

DAYS_PER_YEAR = 365.25
DAYS_PER_MONTH = DAYS_PER_YEAR / 12

BASELINE = frozenset({"bl", "sc", "baseline", "screening"})
UNITS = (
    (re.compile(r"m(?:onth)?[ _-]?(\d{1,3})"), 1.0),
    (re.compile(r"y(?:ear)?[ _-]?(\d{1,2})"), 12.0),
    (re.compile(r"d(?:ay)?[ _-]?(\d{1,5})"), 1 / DAYS_PER_MONTH),
)


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


def months_since_first(person: pd.Series, months: pd.Series, days: pd.Series, dates: pd.Series) -> pd.Series:
    """Months of each scan, in one way for all scans of a subject.

    The first of these that all scans of the subject have, else the first that any has: months as stated, days, dates; the
    latter two counted from the subject's first scan.

    Args:
        person: of each scan.
        months: stated, since baseline.
        days: since the subject's entry.
        dates: datetimes.
    """

    def from_first(values: pd.Series) -> pd.Series:
        return values - values.groupby(person).transform("min")

    clocks = (months, from_first(days) / DAYS_PER_MONTH, from_first(dates).dt.days / DAYS_PER_MONTH)
    result, open_ = pd.Series(float("nan"), index=person.index), pd.Series(data=True, index=person.index)
    for rule in ("all", "any"):
        for clock in clocks:
            fits = open_ & clock.notna().groupby(person).transform(rule)
            result, open_ = result.where(~fits, clock), open_ & ~fits
    return result


def manifest_name(code: str) -> str:
    """A code as a manifest may hold it: letters, digits and `_ . + -`, starting with a letter or digit."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", code.strip()).strip("-_.+") or "unnamed"
