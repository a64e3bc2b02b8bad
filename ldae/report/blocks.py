"""What a report is made of: sections of text, tables and pictures. The template knows how each block looks."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import quote

__all__ = [
    "Absence",
    "Beside",
    "Block",
    "Cell",
    "Interactive",
    "LinkedPicture",
    "Listing",
    "Picture",
    "Row",
    "Section",
    "Table",
    "Text",
    "ViewedScan",
    "Viewer",
    "walk",
]


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
class LinkedPicture:
    """An image that lies beside the document, for documents with more images than a file should hold.

    Attributes:
        path: relative to the document, with forward slashes.
        alt: what it shows, for who cannot see it.
        caption: above it.
    """

    kind: ClassVar[str] = "linked"
    path: str
    alt: str
    caption: str

    @property
    def uri(self) -> str:
        """The path as a relative URI."""
        return quote(self.path)


@dataclass(frozen=True)
class Interactive:
    """A picture that becomes a chart with values to point at, where scripts run.

    Attributes:
        picture: what is seen without scripts.
        chart: the same as Plotly's JSON.
    """

    kind: ClassVar[str] = "interactive"
    picture: Picture
    chart: Mapping[str, Any]


@dataclass(frozen=True)
class ViewedScan:
    """A scan in a volume viewer.

    Attributes:
        name: whose it is.
        original: NIfTI, gzipped, base64.
        synthetic: all that can stand beside it, as one 4D NIfTI, gzipped, base64.
        change: what is laid over each of them, likewise.
        captions: what is said of each of them.
    """

    name: str
    original: str
    synthetic: str
    change: str
    captions: Sequence[str]


@dataclass(frozen=True)
class Viewer:
    """Volumes to be walked through, with linked crosshairs in three planes; nothing is seen of it without scripts.

    Attributes:
        caption: what it shows.
        choices: names of what can stand beside the original.
        start: index of the one that is seen first.
        slider: whether the choices are steps on a scale.
        change: what the overlay is the difference of.
        limit: where the overlay's colours end.
        scans: to choose from.
    """

    kind: ClassVar[str] = "viewer"
    caption: str
    choices: Sequence[str]
    start: int
    slider: bool
    change: str
    limit: float
    scans: Sequence[ViewedScan]


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


Block = Text | Absence | Table | Picture | LinkedPicture | Interactive | Viewer | Listing | Beside


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


def walk(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks in reading order, those in columns too."""
    for block in blocks:
        if isinstance(block, Beside):
            yield from walk(block.left)
            yield from walk(block.right)
        else:
            yield block
