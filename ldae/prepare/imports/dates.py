"""Dates as study tables write them. A date that could be two days is refused."""

import re
from datetime import date, datetime
from functools import lru_cache
from typing import Literal

from ldae.errors import CohortError

__all__ = ["DateOrder", "read_date"]

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


def _parsed(text: str, form: str) -> date | None:
    try:
        return datetime.strptime(text, form).date()
    except ValueError:
        return None
