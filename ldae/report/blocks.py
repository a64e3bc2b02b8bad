"""What a report is made of: sections of text, tables and pictures. The template knows how each block looks."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

__all__ = ["Absence", "Beside", "Block", "Cell", "Listing", "Picture", "Row", "Section", "Table", "Text"]


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: plain, without markup.
        tone: a note stands apart, a warning stands out.
    """

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Absence:
    """Something that cannot be shown.

    Attributes:
        reason: a sentence for the reader.
    """

    kind: ClassVar[str] = "absence"
    reason: str


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
        text: as it is shown.
        sources: where its numbers stand, as file#pointer; none for words.
        best: whether it is the best of its column.
        prose: whether it holds a sentence instead of a figure.
    """

    text: str
    sources: tuple[str, ...] = ()
    best: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Row:
    """A table row.

    Attributes:
        name: its header.
        cells: one for each further column.
        reference: whether it is out of competition, and set apart.
    """

    name: str
    cells: Sequence[Cell]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a caption.

    Attributes:
        caption: what it shows.
        columns: headers, the row names' first.
        rows: in order.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Picture:
    """An image that travels inside the document.

    Attributes:
        data: the file's bytes.
        media_type: of the file.
        alt: what it shows, for who cannot see it.
        caption: above it.
    """

    kind: ClassVar[str] = "picture"
    data: bytes
    media_type: Literal["image/png", "image/svg+xml"]
    alt: str
    caption: str

    @property
    def uri(self) -> str:
        """The image as a data URI."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Listing:
    """Text of a file, folded away.

    Attributes:
        summary: the line that is always seen.
        text: the rest.
        open: whether it is unfolded at first.
    """

    kind: ClassVar[str] = "listing"
    summary: str
    text: str
    open: bool = False


@dataclass(frozen=True)
class Beside:
    """Blocks in two columns where the page is wide enough.

    Attributes:
        left: first column.
        right: second column.
    """

    kind: ClassVar[str] = "beside"
    left: Sequence["Block"]
    right: Sequence["Block"]


Block = Text | Absence | Table | Picture | Listing | Beside


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        anchor: its name inside the document.
        title: its heading.
        blocks: in order.
    """

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
