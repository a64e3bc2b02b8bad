"""Ranges of settings, which stand with their types: `steps: Count = 100`."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from ldae.errors import ConfigError

__all__ = [
    "Checked",
    "Count",
    "Natural",
    "NotNegative",
    "Positive",
    "Range",
    "Share",
    "ShareBelowOne",
    "check_range",
    "ranges_of",
]


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`.

    Attributes:
        low: the smallest.
        high: the largest.
        above: `low` itself is not one of them.
        below: `high` itself is not one of them.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        inside = self.low < value if self.above else self.low <= value
        return inside and (value < self.high if self.below else value <= self.high) and math.isfinite(value)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        ends = {(False, False): "", (True, True): ", both excluded", (True, False): f", without {self.low:g}"}
        return f"between {self.low:g} and {self.high:g}{ends.get((self.above, self.below), f', without {self.high:g}')}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, below=True)]


class Checked:
    """Base of configurations, which are frozen dataclasses: numbers outside the range of their type are refused."""

    def __post_init__(self) -> None:
        for name, allowed in ranges_of(type(self)).items():
            check_range(name, getattr(self, name), allowed)


def check_range(name: str, given: Any, allowed: Range) -> None:
    """Refuse a number, or a sequence of numbers, outside a range; None passes.

    Raises:
        ConfigError: naming the setting, what it got and what it takes.
    """
    for value in given if isinstance(given, tuple | list) else [] if given is None else [given]:
        if isinstance(value, int | float) and value not in allowed:
            each = " each" if isinstance(given, tuple | list) else ""
            msg = f"{name} must be {allowed}{each}, got {given}; correct it"
            raise ConfigError(msg)


def ranges_of(cls: type) -> dict[str, Range]:
    """The ranges of a dataclass' fields, by name."""
    found = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        allowed = _range(hint)
        if allowed is not None:
            found[name] = allowed
    return found


def _range(hint: Any) -> Range | None:
    """The range in a type, such as `Count`, `Count | None`, or `tuple[Count, ...]`."""
    if get_origin(hint) is Annotated:
        return next((each for each in hint.__metadata__ if isinstance(each, Range)), None)
    return next((found for each in get_args(hint) if (found := _range(each)) is not None), None)
