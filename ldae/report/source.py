"""A JSON file that numbers of the report come from, read with pointers to where each of them stands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ldae.base.files import read_json
from ldae.report.blocks import Cell
from ldae.report.wording import fixed

__all__ = ["RENAMED", "Source", "json_or_none", "pointer", "value_of"]

RENAMED = {
    "code_usage": "diagnose",
    "metrics": "figures",
    "trained_subjects": "fitted_subjects",
    "trained_scans": "fitted_scans",
    "tested_subjects": "asked_subjects",
    "tested_scans": "asked_scans",
}
"""Keys of today, and what earlier versions wrote in their place."""


def value_of(mapping: Mapping[str, Any], key: str) -> Any:
    """Value under a key of today, or under that of earlier versions.

    Raises:
        KeyError: if there is neither.
    """
    return mapping[key if key in mapping else RENAMED.get(key, key)]


@dataclass(frozen=True, eq=False)
class Source:
    """JSON file, or the absence of one.

    Attributes:
        name: path inside the folder that is reported.
        content: of the file; None if it is missing or damaged.
    """

    name: str
    content: Any

    def _follow(self, keys: tuple[str | int, ...]) -> tuple[Any, list[str | int]]:
        """The value behind some keys, or None, with the keys as the file spells them."""
        value: Any = self.content
        found: list[str | int] = []
        for key in keys:
            spelt = key
            if isinstance(value, Mapping):
                spelt = str(key) if str(key) in value else RENAMED.get(str(key), str(key))
                value = value.get(spelt)
            elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
                value = value[key]
            else:
                return None, found
            found.append(spelt)
        return value, found

    def get(self, *keys: str | int) -> Any:
        """The value behind names and indices, or None if there is none."""
        return self._follow(keys)[0]

    def cell(
        self,
        *keys: str | int,
        digits: int = 3,
        unit: str = "",
        signed: bool = False,
        form: Callable[[Any], str] | None = None,
        best: bool = False,
    ) -> Cell:
        """A value as a table cell: a number with so many digits and its unit, or in a form of its own."""
        value, found = self._follow(keys)
        text = form(value) if form and value is not None else fixed(value, digits, unit, signed=signed)
        return Cell(text, {} if value is None else {pointer(self.name, *found): value}, best)

    def interval(self, *keys: str | int, digits: int = 3, unit: str = "") -> Cell:
        """Lower and upper end of an interval as a table cell."""
        value, found = self._follow(keys)
        if not isinstance(value, Mapping):
            return Cell("not computed")
        if reason := value.get("reason"):
            return Cell(f"none: {reason}", {pointer(self.name, *found, "reason"): reason}, prose=True)
        text = f"{fixed(value.get('low'), digits)} to {fixed(value.get('high'), digits, unit)}"
        return Cell(text, {pointer(self.name, *found, end): value.get(end) for end in ("low", "high")})

    def estimate(self, *keys: str | int, digits: int = 3, signed: bool = False, best: bool = False) -> list[Cell]:
        """A value and its interval as two table cells."""
        value = self.cell(*keys, "value", digits=digits, signed=signed, best=best)
        return [value, self.interval(*keys, digits=digits)]

    def p_value(self, *keys: str | int) -> Cell:
        """A p value as a table cell."""
        value, cell = self.get(*keys), self.cell(*keys)
        return Cell("< 0.001", cell.sources, prose=True) if isinstance(value, float) and value < 0.001 else cell


def pointer(document: str, *keys: str | int) -> str:
    """Place of a number of the report: the file and the JSON pointer (RFC 6901) into it."""
    return quote(document) + "#" + "".join("/" + quote(str(k).replace("~", "~0").replace("/", "~1")) for k in keys)


def json_or_none(path: Path) -> Any:
    """Content of a JSON file, or None if it is missing or damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
