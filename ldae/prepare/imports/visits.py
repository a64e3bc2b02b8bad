"""Visit codes as months since baseline."""

import re
from collections.abc import Mapping

__all__ = ["DAYS_PER_MONTH", "DAYS_PER_YEAR", "manifest_name", "months_of_visit"]

DAYS_PER_YEAR = 365.25
DAYS_PER_MONTH = DAYS_PER_YEAR / 12

BASELINE = frozenset({"bl", "sc", "baseline", "screening"})
MONTHS = re.compile(r"m(?:onth)?[ _-]?(\d{1,3})")
YEARS = re.compile(r"y(?:ear)?[ _-]?(\d{1,2})")
DAYS = re.compile(r"d(?:ay)?[ _-]?(\d{1,5})")


def months_of_visit(code: str, known: Mapping[str, float] | None = None) -> float | None:
    """Months since baseline that a visit code states, or None where it states none.

    `bl`, `sc`, `baseline` and `screening` are 0; `m06`, `M12`, `Month 6` are months, `y1` and `Year 2` years, `d0129`
    days. A leading `ses-` does not count, nor does case. A bare number or a code such as `v04` says nothing by itself.

    Args:
        code: of the visit.
        known: further codes of a study, in lower case, and their months.
    """
    text = code.strip().lower().removeprefix("ses-")
    if known and text in known:
        return float(known[text])
    if text in BASELINE:
        return 0.0
    for pattern, months in ((MONTHS, 1.0), (YEARS, 12.0), (DAYS, 1 / DAYS_PER_MONTH)):
        if found := pattern.fullmatch(text):
            return int(found[1]) * months
    return None


def manifest_name(code: str) -> str:
    """A code as a manifest may hold it: letters, digits and `_ . + -`, starting with a letter or digit."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", code.strip()).strip("-_.+") or "unnamed"
