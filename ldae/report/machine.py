"""The report for machines: its sections as JSON after a published schema, every number unrounded beside its text."""

import json
from collections.abc import Sequence
from typing import Any

from ldae.report.blocks import Absence, Block, Cell, ChartFigure, Listing, Picture, Section, Table, Text, Viewer, walk
from ldae.report.plots.chart import draw_plotly
from ldae.report.templating import asset

__all__ = ["machine_report", "report_schema"]

VERSION = 1


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report."""
    return dict(json.loads(asset(f"schema/report-{VERSION}.schema.json")))


def machine_report(title: str, lead: str, notice: str, sections: Sequence[Section]) -> dict[str, Any]:
    """The report as JSON holds it."""
    return {
        "format": "ldae-report",
        "version": VERSION,
        "title": title,
        "lead": lead,
        "notice": notice,
        "sections": [
            {
                "anchor": section.anchor,
                "title": section.title,
                "blocks": [{"kind": block.kind, **_plain(block)} for block in walk(section.blocks)],
            }
            for section in sections
        ],
    }


def _plain(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            return {"text": block.text, "tone": block.tone}
        case Absence():
            return {"reason": block.reason}
        case Table():
            rows = [
                {"name": row.name, "reference": row.reference, "cells": [_cell(each) for each in row.cells]}
                for row in block.rows
            ]
            return {"caption": block.caption, "columns": list(block.columns), "rows": rows}
        case Picture():
            return {"caption": block.caption, "alt": block.alt, "media_type": block.media_type}
        case ChartFigure():
            return {"caption": block.caption, "alt": block.alt, "chart": draw_plotly(block.chart)}
        case Viewer():
            scans = [{"name": scan.name, "captions": list(scan.captions)} for scan in block.scans]
            return {"caption": block.caption, "choices": list(block.choices), "scans": scans}
        case Listing():
            return {"summary": block.summary, "text": block.text}
    msg = f"a report has no block of kind {block.kind!r} outside columns"
    raise AssertionError(msg)


def _cell(cell: Cell) -> dict[str, Any]:
    sources, values = list(cell.sources), list(cell.sources.values())
    return {"text": cell.text, "best": cell.best, "sources": sources, "values": values}
