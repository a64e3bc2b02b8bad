"""The report as Markdown, for notebooks, issues and supplements: the same sections, pictures as files beside it."""

import re
from collections.abc import Sequence
from pathlib import Path

from ldae.io.files import write_bytes, write_text
from ldae.report.blocks import (
    Absence,
    Beside,
    Block,
    Interactive,
    LinkedPicture,
    Listing,
    Picture,
    Section,
    Table,
    Text,
    Viewer,
)

__all__ = ["write_markdown"]

ENDINGS = {"image/png": ".png", "image/svg+xml": ".svg"}


def write_markdown(title: str, lead: str, notice: str, sections: Sequence[Section], out: Path) -> Path:
    """Write a report as Markdown.

    Args:
        title: of the document.
        lead: below it.
        notice: that must be seen.
        sections: in order.
        out: the file; pictures go to a folder of its name with `_files` behind.

    Returns:
        The file written.
    """
    pictures = _Pictures(out)
    parts = [f"# {_plain(title)}", f"**{_plain(notice)}**", _plain(lead)]
    for section in sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [_render(block, pictures) for block in section.blocks]
    return write_text(out, "\n\n".join(part for part in parts if part) + "\n")


class _Pictures:
    """Pictures written beside the document, numbered in order."""

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f"{out.stem}_files")
        self.count = 0

    def write(self, picture: Picture) -> str:
        self.count += 1
        path = self.folder / f"figure-{self.count:02d}{ENDINGS[picture.media_type]}"
        write_bytes(path, picture.data)
        return f"{self.folder.name}/{path.name}"


def _render(block: Block, pictures: _Pictures) -> str:
    if isinstance(block, Text):
        text = _plain(block.text)
        return text if block.tone == "plain" else f"> **{text}**" if block.tone == "warning" else f"> {text}"
    if isinstance(block, Absence):
        return f"*{_plain(block.reason)}*"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Viewer):  # its sections are among the pictures
        return ""
    if isinstance(block, Interactive):
        return _render(block.picture, pictures)
    if isinstance(block, Picture):
        return f"{_plain(block.caption)}\n\n![{_plain(block.alt)}]({pictures.write(block)})"
    if isinstance(block, LinkedPicture):
        return f"{_plain(block.caption)}\n\n![{_plain(block.alt)}]({block.uri})"
    if isinstance(block, Listing):
        return f"{_plain(block.summary)}:\n\n```\n{block.text.rstrip()}\n```"
    assert isinstance(block, Beside)
    return "\n\n".join(_render(each, pictures) for each in [*block.left, *block.right])


def _table(table: Table) -> str:
    rows = ["| " + " | ".join(_cell(column) for column in table.columns) + " |", "|---" * len(table.columns) + "|"]
    for row in table.rows:
        cells = [f"**{_cell(each.text)}**" if each.best else _cell(each.text) for each in row.cells]
        rows.append("| " + " | ".join([_cell(row.name), *cells]) + " |")
    return f"{_plain(table.caption)}\n\n" + "\n".join(rows)


def _plain(text: str) -> str:
    """Text in which nothing is markup, on one line."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))


def _cell(text: str) -> str:
    return _plain(text) or " "
