"""The report as JSON follows its schema, and its numbers are those of the run."""

import json
from pathlib import Path

import jsonschema
import pytest

from ldae.report import report_schema
from tests import command_line


@pytest.fixture(scope="module")
def report(run: Path) -> dict:
    """What the command line writes."""
    assert command_line.run("report", run, "--format", "json", "--out", run / "report.json") == 0
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


def test_schema_is_one_and_refuses_what_is_not_a_report(report: dict) -> None:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(report, schema)
    for broken in ({**report, "version": 2}, {**report, "sections": [{"anchor": "a", "title": "b", "blocks": [{}]}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_numbers_are_unrounded_and_from_where_they_say(run: Path, report: dict) -> None:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    cells = {
        source: value
        for section in report["sections"]
        for block in section["blocks"]
        if block["kind"] == "table"
        for row in block["rows"]
        for cell in row["cells"]
        for source, value in zip(cell["sources"], cell["values"], strict=True)
    }
    assert cells["results.json#/probe/diagnosis/auc/value"] == results["probe"]["diagnosis"]["auc"]["value"]
    assert cells["results.json#/reconstruct/ssim"] == results["reconstruct"]["ssim"]
    assert all(value is not None for source, value in cells.items() if source.split("#")[0].endswith(".json"))


def test_every_section_of_the_page_is_there(report: dict) -> None:
    anchors = [section["anchor"] for section in report["sections"]]
    assert anchors[:2] == ["findings", "key-figures"]
    assert len(set(anchors)) == len(anchors) == 14
    kinds = {block["kind"] for section in report["sections"] for block in section["blocks"]}
    assert {"text", "table", "picture", "interactive", "viewer", "listing"} <= kinds
