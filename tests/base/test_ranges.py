"""Ranges that stand with the types of settings."""

import math
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldae.base.ranges import Range, checked, positive, share_below_one, within
from ldae.base.ranges import count as count_each
from ldae.base.ranges import share as share_of
from ldae.errors import ConfigError


@dataclass(frozen=True)
@checked
class Settings:
    count: int = count_each(1)
    share: float = share_of(0.0)
    below: float = share_below_one(0.0)
    rate: float | None = positive(None)
    widths: tuple[int, ...] = count_each(())
    few: int = within(2, Range(2, 5))
    free: float = -1.0
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 1.0)


@given(st.floats(), st.floats(-10, 10), st.booleans(), st.booleans())
def test_a_range_holds_what_lies_between_its_ends(value, low, above, below):
    high = low + 3
    inside = (value > low or (value == low and not above)) and (value < high or (value == high and not below))
    assert (value in Range(low, high, above=above, below=below)) == inside


def test_what_is_not_finite_lies_in_no_range():
    assert all(value not in Range() for value in (math.nan, math.inf, -math.inf))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"share": 1.01}, "share must be between 0 and 1, got 1.01"),
        ({"below": 1.0}, "below must be between 0 and 1, without 1, got 1.0"),
        ({"rate": 0.0}, "rate must be above 0, got 0.0"),
        ({"rate": math.nan}, "rate must be above 0, got nan"),
        ({"widths": (4, 0)}, r"widths must be at least 1 each, got \(4, 0\)"),
        ({"few": 6}, "few must be between 2 and 5, got 6"),
        ({"few": 2.5}, "few takes a whole number, got 2.5"),
        ({"few": True}, "few takes a whole number, got True"),
        ({"few": None}, "few takes a whole number, got None"),
        ({"free": "5"}, "free takes a number, got '5'"),
        ({"kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"pair": (1.0,)}, r"pair takes 2 values, got \(1.0,\)"),
        ({"pair": "ab"}, "pair takes 2 values, got 'ab'"),
        ({"widths": (1.5,)}, "widths takes a whole number, got 1.5"),
    ],
)
def test_configurations_refuse_what_lies_outside(wrong, words):
    with pytest.raises(ConfigError, match=words):
        Settings(**wrong)


def test_what_lies_inside_and_what_has_no_range_passes():
    assert Settings(3, 1.0, 0.99, 1e-9, (1, 2), 5, -1e9).rate == 1e-9
