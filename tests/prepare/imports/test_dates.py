"""Dates in every usual writing come to the same day, and what could be two days is refused."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldae.errors import CohortError
from ldae.prepare.imports.columns import manifest_name
from ldae.prepare.imports.dates import months_of_visit, read_date

DAYS = st.dates(date(1900, 1, 1), date(2099, 12, 31))
WRITINGS = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y%m%d",
    "%d-%b-%Y",
    "%d %B %Y",
    "%B %d, %Y",
    "%b %d %Y",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
]


@given(DAYS, st.sampled_from(WRITINGS), st.sampled_from(["stated", "day-first", "month-first"]))
def test_writings_with_one_reading_need_no_order(day, writing, order):
    assert read_date(day.strftime(writing), order) == day


@given(DAYS, st.sampled_from("/.-"), st.booleans())
def test_numbers_before_the_year_follow_the_order_stated(day, mark, day_first):
    parts = ["%d", "%m", "%Y"] if day_first else ["%m", "%d", "%Y"]
    text = day.strftime(mark.join(parts))
    assert read_date(text, "day-first" if day_first else "month-first") == day
    if day.day > 12 or day.day == day.month:
        assert read_date(text) == day
    else:
        with pytest.raises(CohortError, match=r"could be .* day-first"):
            read_date(text)


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("5/19/06", "month-first", "four digits"),
        ("yesterday", "stated", "no day of the calendar"),
        ("2006-02-30", "stated", "no day of the calendar"),
        ("19/05/2006", "month-first", "read month-first"),
        ("31/31/2006", "stated", "no day of the calendar"),
        ("19-Mai-2006", "stated", "in English"),
    ],
)
def test_what_is_no_date_is_refused(text, order, expected):
    with pytest.raises(CohortError, match=expected):
        read_date(text, order)


@pytest.mark.parametrize(
    ("code", "months"),
    [
        ("bl", 0), ("SC", 0), ("ses-Screening", 0), ("m06", 6), ("M012", 12), ("ses-M00", 0), ("Month 6", 6),
        ("y1", 12), ("Year 2", 24), ("v04", None), ("1", None), ("scmri", None), ("d0000", 0),
    ],
)  # fmt: skip
def test_visit_codes_as_months(code, months):
    assert months_of_visit(code) == months


def test_days_are_months_a_study_may_add_codes_and_names_are_made_fit():
    assert months_of_visit("d0365") == pytest.approx(12, abs=0.01)
    assert months_of_visit("V04", {"v04": 3}) == 3.0
    assert manifest_name("ADNI2 Month 3 MRI-New Pt") == "ADNI2-Month-3-MRI-New-Pt"
    assert manifest_name("(é)") == "unnamed"
