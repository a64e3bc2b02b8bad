"""Dates as study tables write them. What could be two days is refused, never guessed."""

import re
from datetime import date
from typing import Literal

from ldae.errors import CohortError

__all__ = ["DateOrder", "read_date"]

DateOrder = Literal["stated", "day-first", "month-first"]

MONTH_NAMES = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
# A time of the day may follow; it does not matter here.
TIME = re.compile(r"[T ]+\d{1,2}[:_]\d{2}([:_]\d{2}(\.\d+)?)?\s*([AaPp][Mm]|Z|[+-]\d{2}:?\d{2})?$")
YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})|(\d{4})(\d{2})(\d{2})")
YEAR_LAST = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")
DAY_NAMED = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[-/. ]+([A-Za-z]{3,9})\.?[-/., ]+(\d{4})")
MONTH_NAMED = re.compile(r"([A-Za-z]{3,9})\.?[-/ ]+(\d{1,2})(?:st|nd|rd|th)?[,/ -]+(\d{4})")


def read_date(text: str, order: DateOrder = "stated") -> date:
    """A date in any usual writing, several of which may stand in one column.

    Understood are year first (`2006-05-19`, `2006/5/19`, `20060519`), a month by its English name (`19-May-2006`,
    `May 19, 2006`), and numbers with the year last (`5/19/2006`, `19.05.2006`). For the last kind `order` says what
    comes first; without it (`stated`) only those are taken that can be read in one way.

    Args:
        text: the cell.
        order: of day and month where both are numbers before the year.

    Raises:
        CohortError: if it is no date, has a year of two digits, or could be two days.
    """
    plain = TIME.sub("", text.strip())
    if found := YEAR_FIRST.fullmatch(plain):
        year, month, day = (int(part) for part in found.groups() if part is not None)
        return _date(year, month, day, text)
    if found := DAY_NAMED.fullmatch(plain):
        return _date(int(found[3]), _month(found[2], text), int(found[1]), text)
    if found := MONTH_NAMED.fullmatch(plain):
        return _date(int(found[3]), _month(found[1], text), int(found[2]), text)
    if found := YEAR_LAST.fullmatch(plain):
        first, second, year = (int(part) for part in found.groups())
        if order == "stated" and first != second and max(first, second) <= 12:
            msg = (
                f"{text!r} could be {first} {MONTH_NAMES[second - 1].title()} or {second} "
                f"{MONTH_NAMES[first - 1].title()}; say which with 'dates: day-first' or 'dates: month-first' in a copy of "
                "the map, or write dates as YYYY-MM-DD"
            )
            raise CohortError(msg)
        month_first = order == "month-first" or (order == "stated" and second > 12)
        return _date(year, first if month_first else second, second if month_first else first, text, order)
    msg = f"{text!r} is no date that is understood; write YYYY-MM-DD, with four digits of the year, or n/a"
    raise CohortError(msg)


def _month(name: str, text: str) -> int:
    for number, full in enumerate(MONTH_NAMES, start=1):
        if full.startswith(name.lower()):
            return number
    msg = f"{text!r} names no month in English; write YYYY-MM-DD"
    raise CohortError(msg)


def _date(year: int, month: int, day: int, text: str, order: DateOrder = "stated") -> date:
    try:
        return date(year, month, day)
    except ValueError as error:
        read = "" if order == "stated" else f", read {order}"
        msg = f"{text!r} is no day of the calendar{read}; correct it, or the order of day and month in the map"
        raise CohortError(msg) from error
