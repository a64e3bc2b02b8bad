"""Ranges of settings, which stand with their defaults: `steps: int = count(100)`."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ldae.errors import ConfigError

__all__ = [
    "SEEDS",
    "Range",
    "blocks",
    "check_choice",
    "check_range",
    "checked",
    "count",
    "natural",
    "not_negative",
    "positive",
    "ranges_of",
    "share",
    "share_below_one",
    "within",
]

T = TypeVar("T")
RANGE = "range"


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
        finite = -math.inf < value < math.inf
        return finite and inside and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:.10g}" if self.above else f"at least {self.low:.10g}"
        ends = {(False, False): "", (True, True): ", both excluded", (True, False): f", without {self.low:.10g}"}
        without = ends.get((self.above, self.below), f", without {self.high:.10g}")
        return f"between {self.low:.10g} and {self.high:.10g}{without}"


SEEDS = Range(0, 2**32 - 1)
"""Of every generator that is used: NumPy's takes no others."""


def within(default: Any, allowed: Range) -> Any:
    """A dataclass field of that default, whose number, or each of whose numbers, lies in a range."""
    return field(default=default, metadata={RANGE: allowed})


def count(default: Any) -> Any:
    """Whole numbers from 1 on."""
    return within(default, Range(1))


def blocks(default: Any) -> Any:
    """Whole numbers from 1 to 1000, of parts that are built one by one: a model's file must not ask for a billion."""
    return within(default, Range(1, 1000))


def natural(default: Any) -> Any:
    """Whole numbers from 0 on."""
    return within(default, Range(0))


def positive(default: Any) -> Any:
    """Numbers above 0."""
    return within(default, Range(0, above=True))


def not_negative(default: Any) -> Any:
    """Numbers from 0 on."""
    return within(default, Range(0))


def share(default: Any) -> Any:
    """Numbers from 0 to 1."""
    return within(default, Range(0, 1))


def share_below_one(default: Any) -> Any:
    """Numbers from 0 to below 1."""
    return within(default, Range(0, 1, below=True))


def checked(cls: type[T]) -> type[T]:
    """Let a frozen dataclass refuse values that are not of their field's type and range; it stands below `@dataclass`.

    A base class would do the same, but parsers of dataclasses then look for its subclasses, at twice the time.
    """
    hints = functools.cache(lambda: get_type_hints(cls))  # not yet: a class may name one that comes after it
    own = cls.__dict__.get("__post_init__", lambda self: None)

    def check(self: Any) -> None:
        allowed = ranges_of(type(self))
        for name, hint in hints().items():
            given = getattr(self, name)
            _check_type(name, given, hint)
            if name in allowed:
                check_range(name, given, allowed[name])
        own(self)

    cls.__post_init__ = check  # type: ignore[attr-defined]
    return cls


NUMBERS: dict[Any, tuple[type, str]] = {int: (Integral, "a whole number"), float: (Real, "a number")}


def _check_type(name: str, given: Any, hint: Any) -> None:
    """Refuse what is no number, choice or tuple where the type is one; types of other kinds pass."""
    kinds = get_args(hint) if NoneType in get_args(hint) else (hint,)
    if given is None and NoneType in kinds:
        return
    (kind, *others) = [each for each in kinds if each is not NoneType]
    if others:
        return
    inner = get_args(kind)
    if kind in NUMBERS:
        number, word = NUMBERS[kind]
        if not isinstance(given, number) or isinstance(given, bool):
            msg = f"{name} takes {word}, got {given!r}; correct it"
            raise ConfigError(msg)
    elif get_origin(kind) is Literal:
        check_choice(name, given, inner)
    elif get_origin(kind) is tuple:
        several = len(inner) == 2 and inner[1] is Ellipsis
        if not isinstance(given, tuple | list) or not (several or len(given) == len(inner)):
            msg = f"{name} takes {'values' if several else f'{len(inner)} values'}, got {given!r}; correct it"
            raise ConfigError(msg)
        for each, of in zip(given, [inner[0]] * len(given) if several else inner, strict=True):
            _check_type(name, each, of)


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


def check_choice(name: str, given: Any, allowed: Sequence[Any]) -> None:
    """Refuse a value that is not allowed.

    Raises:
        ConfigError: naming the setting, what it got and what it takes.
    """
    if not any(type(given) is type(each) and given == each for each in allowed):  # 0 is not False
        msg = f"{name} must be one of {', '.join(map(str, allowed))}, got {given!r}"
        raise ConfigError(msg)


def ranges_of(cls: Any) -> dict[str, Range]:
    """The ranges of a dataclass' fields, by name."""
    return {each.name: each.metadata[RANGE] for each in fields(cls) if RANGE in each.metadata}
