"""Blocks that a report is made of: text, tables, charts, pictures. The templates know how each looks."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from PIL import Image

from ldae.report.plots.chart import Chart, draw_svg

__all__ = [
    "Absence",
    "Beside",
    "Block",
    "Cell",
    "ChartFigure",
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
    """Paragraph of plain text; a note stands apart, a warning stands out."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Absence:
    """Reason, as a sentence, why something cannot be shown."""

    kind: ClassVar[str] = "absence"
    reason: str


@dataclass(frozen=True)
class Cell:
    """Table cell.

    Attributes:
        text: as it is shown.
        sources: place of each of its numbers, as file#pointer, to the number unrounded (None where the place is
            in no JSON file); none for words.
        best: the best value of its column.
        prose: a sentence instead of a number.
    """

    text: str
    sources: Mapping[str, Any] = field(default_factory=dict)
    best: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Row:
    """Table row: its header and a cell for each further column; a reference row is out of competition, and set apart."""

    name: str
    cells: Sequence[Cell]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """Table with a caption; the first column holds the names of the rows."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Picture:
    """Image that travels inside the document, drawn when it is rendered.

    Attributes:
        draw: returns the file's bytes.
        alt: content in words, for readers who cannot see it.
        caption: above it.
        media_type: of the file.
    """

    kind: ClassVar[str] = "picture"
    draw: Callable[[], bytes]
    alt: str
    caption: str
    media_type: Literal["image/png", "image/svg+xml"] = "image/png"

    @property
    def uri(self) -> str:
        """The image as a data URI, as small as a browser takes it: SVG as text, pixels as WebP, a third of a PNG."""
        if self.media_type == "image/svg+xml":
            return f"data:{self.media_type},{quote(b' '.join(self.draw().split()), safe=' =:/(),;.-')}"
        packed = BytesIO()
        Image.open(BytesIO(self.draw())).convert("RGB").save(packed, "WEBP", quality=90)
        return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"


@dataclass(frozen=True)
class LinkedPicture:
    """Image beside the document, for documents with more images than a file should hold.

    Attributes:
        path: relative to the document, with forward slashes.
        alt: content in words, for readers who cannot see it.
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
class ChartFigure:
    """Chart: interactive where scripts run, a still picture elsewhere; alt and caption as of :class:`Picture`."""

    kind: ClassVar[str] = "interactive"
    chart: Chart
    alt: str
    caption: str

    @property
    def picture(self) -> Picture:
        """The chart as a still picture."""
        return Picture(partial(draw_svg, self.chart), self.alt, self.caption, "image/svg+xml")


@dataclass(frozen=True)
class ViewedScan:
    """Scan in a volume viewer.

    Attributes:
        name: of the scan.
        frames: the scan, then every volume that can stand beside it, as one 4D NIfTI, gzipped, base64.
        captions: of each volume beside it.
    """

    name: str
    frames: str
    captions: Sequence[str]


@dataclass(frozen=True)
class Viewer:
    """Volumes in three planes with linked crosshairs; shown only where scripts run.

    Attributes:
        caption: above it.
        choices: names of the synthetic volumes.
        start: index of the first one shown.
        slider: the choices are steps on a scale.
        change: name of the difference that the overlay shows.
        limit: intensity at which the overlay's colours end.
        reference: frame that the overlay is the difference to.
        scans: to choose from.
    """

    kind: ClassVar[str] = "viewer"
    caption: str
    choices: Sequence[str]
    start: int
    slider: bool
    change: str
    limit: float
    reference: int
    scans: Sequence[ViewedScan]


@dataclass(frozen=True)
class Listing:
    """Text of a file under a summary line, folded away unless it is open."""

    kind: ClassVar[str] = "listing"
    summary: str
    text: str
    open: bool = False


@dataclass(frozen=True)
class Beside:
    """Blocks in columns where the page is wide enough."""

    kind: ClassVar[str] = "beside"
    columns: Sequence[Sequence["Block"]]


Block = Text | Absence | Table | Picture | LinkedPicture | ChartFigure | Viewer | Listing | Beside


@dataclass(frozen=True)
class Section:
    """Part of a report: a stable name for links, a heading, and blocks in order."""

    anchor: str
    title: str
    blocks: Sequence[Block] = ()


def walk(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks in reading order, those in columns too."""
    for block in blocks:
        if isinstance(block, Beside):
            for column in block.columns:
                yield from walk(column)
        else:
            yield block
