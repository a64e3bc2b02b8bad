"""The methods paragraph tells this run's counts, and nothing that the run cannot know."""

import re
from pathlib import Path

import pandas as pd

from ldae.report.blocks import Listing, Table
from ldae.report.run_folder import open_run
from ldae.report.sections.paper import paragraph, publication


def test_counts_are_those_of_the_cohort_table(run: Path) -> None:
    words = paragraph(open_run(run))
    table = pd.read_csv(run / "manifest.tsv", sep="\t", dtype={"participant_id": str})
    for split, rows in table.groupby("split"):
        first = rows.drop_duplicates("participant_id")
        women = f"{(first['sex'] == 'F').sum()} of {first['sex'].notna().sum()} women"
        age = f"{first['age'].mean():.1f} (SD {first['age'].std():.1f})"
        assert f"{split} ({len(first)} subjects, {len(rows)} scans; age at first scan {age}" in words
        assert women in words
    assert "simulated" in words
    assert "SHA-256 0123456789abcdef" in words
    assert "seed 0" in words


def test_what_the_code_is_stands_there(run: Path) -> None:
    folder = open_run(run)
    words = paragraph(folder)
    assert "The semantic code of 128 dimensions" in words
    assert "The encoder is left-right symmetric" in words
    assert "whitened over the training scans (to the power 0.5)" in words
    encoder = {"whitening": 0.5, "whitening_of": "within"}
    provenance = {"config": dict(folder.config) | {"representation": {"semantic_encoder": encoder}}}
    words = paragraph(type(folder)(folder.path, {**folder.documents, "run.json": provenance}))
    assert "whitened over what differs between training scans of one subject (to the power 0.5)" in words
    published = {"semantic_encoder": {"slices": {"backbone": {"widths": [96, 768]}}, "volume": None, "whitening": 0.0}}
    config = dict(folder.config) | {"representation": published}
    provenance = dict(folder.documents["run.json"]) | {"config": config}
    words = paragraph(type(folder)(folder.path, {**folder.documents, "run.json": provenance}))
    assert "The semantic code of 768 dimensions" in words
    assert "symmetric" not in words
    assert "whitened" not in words


def test_what_is_missing_or_damaged_is_left_out(run: Path) -> None:
    folder = open_run(run)
    documents = dict(folder.documents)
    documents["representation/stage.json"] = {"steps": 10, "plan": {}}
    documents["tasks/probe_age.json"] = {"counts": {}}
    documents["results.json"] = {}
    words = paragraph(type(folder)(folder.path, documents))
    assert "None" not in words
    assert "The cohort held" not in words
    assert "were trained in turn" not in words
    # A model from elsewhere claims no training.
    elsewhere = {name: each for name, each in folder.documents.items() if name != "run.json"}
    words = paragraph(type(folder)(folder.path, elsewhere))
    assert "were trained in turn" not in words
    assert "resampled to" not in words


def test_checklist_names_every_item_once_and_leaves_the_authors_theirs(run: Path) -> None:
    section = publication(open_run(run))
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert len({row.name for row in table.rows}) == len(table.rows) == 27
    assert {row.reference for row in table.rows} == {True, False}
    assert all(row.reference == (row.cells[2].text == "to be reported by the authors") for row in table.rows)
    listing = next(block for block in section.blocks if isinstance(block, Listing))
    assert listing.text == paragraph(open_run(run))
    for column, last in ((0, 27), (1, 42)):
        parts = [part for row in table.rows for part in re.findall(r"(\d+)(?:-(\d+))?", row.cells[column].text)]
        numbers = {number for first, end in parts for number in range(int(first), int(end or first) + 1)}
        assert numbers == set(range(1, last + 1))
