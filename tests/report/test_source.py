"""Run folders of earlier versions, whose results have other keys, are read as those of today."""

import json
import shutil
from pathlib import Path

import pytest

from ldae.report import write_probe_report, write_report
from ldae.report.source import RENAMED, Source, value_of

RENAMED_FILES = {"diagnose": "code_usage"}
STORED = Path(__file__).parents[1] / "data" / "run_format_1"


def renamed(value):
    """The same with keys of today."""
    today = {former: key for key, former in RENAMED.items()}
    if isinstance(value, dict):
        return {today.get(key, key): renamed(each) for key, each in value.items()}
    return [renamed(each) for each in value] if isinstance(value, list) else value


def test_a_stored_run_of_before_is_reported_as_one_of_today(tmp_path):
    former, today = tmp_path / "former", tmp_path / "today"
    shutil.copytree(STORED, former)
    for path in STORED.rglob("*.json"):
        copy = today / path.relative_to(STORED).with_stem(RENAMED_FILES.get(path.stem, path.stem))
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(json.dumps(renamed(json.loads(path.read_text()))))
    for write, part, pointer in (
        (write_report, ".", "results.json#/diagnose/share/value"),
        (write_probe_report, "tasks", "probe_age.json#/scored/codes/figures/mae/value"),
    ):
        text, expected = (write(folder / part).read_text(encoding="utf-8") for folder in (former, today))
        found = [word in text for word in (pointer, "There is no chart by noise level")]
        assert found == [True, False]
        for key, name in RENAMED.items():
            text = text.replace(f"/{name}", f"/{key}")
        # The page names its folder.
        different = [pair for pair in zip(text.split("<"), expected.split("<"), strict=True) if pair[0] != pair[1]]
        assert all("former" in pair[0] for pair in different), different[:3]


def test_keys_of_today_come_first_and_pointers_name_what_the_file_holds():
    assert value_of({"metrics": 1, "figures": 2}, "metrics") == 1
    assert value_of({"figures": 2}, "metrics") == 2
    with pytest.raises(KeyError):
        value_of({}, "metrics")
    cell = Source("p.json", {"scored": {"figures": {"auc": 0.5}}}).cell("scored", "metrics", "auc")
    assert list(cell.sources) == ["p.json#/scored/figures/auc"]
