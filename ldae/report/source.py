"""A JSON file that numbers of the report come from, read with pointers to where each of them stands."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ldae.report.blocks import Cell
from ldae.report.wording import fixed

__all__ = ["Source", "pointer", "read_json"]


@dataclass(frozen=True, eq=False)
class Source:
    """JSON file, or the absence of one.

    Attributes:
        name: path inside the folder that is reported.
        content: of the file; None if it is missing or damaged.
    """

    name: str
    content: Any

    def get(self, *keys: str | int) -> Any:
        """The value behind names and indices, or None if there is none."""
        value: Any = self.content
        for key in keys:
            if isinstance(value, Mapping):
                value = value.get(str(key))
            elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
                value = value[key]
            else:
                return None
        return value

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
        value = self.get(*keys)
        text = form(value) if form and value is not None else fixed(value, digits, unit, signed=signed)
        return Cell(text, () if value is None else (pointer(self.name, *keys),), best)

    def interval(self, *keys: str | int, digits: int = 3, unit: str = "") -> Cell:
        """Lower and upper end of an interval as a table cell."""
        value = self.get(*keys)
        if not isinstance(value, Mapping):
            return Cell("not computed")
        text = f"{fixed(value.get('low'), digits)} to {fixed(value.get('high'), digits, unit)}"
        return Cell(text, tuple(pointer(self.name, *keys, end) for end in ("low", "high")))

    def p_value(self, *keys: str | int) -> Cell:
        """A p value as a table cell."""
        value, cell = self.get(*keys), self.cell(*keys)
        return Cell("< 0.001", cell.sources, prose=True) if isinstance(value, float) and value < 0.001 else cell


def pointer(document: str, *keys: str | int) -> str:
    """Place of a number of the report: the file and the JSON pointer (RFC 6901) into it."""
    return quote(document) + "#" + "".join("/" + quote(str(k).replace("~", "~0").replace("/", "~1")) for k in keys)


def read_json(path: Path) -> Any:
    """Content of a JSON file, or None if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
