"""`ldae cohort import` as its user sees it: what is printed, and the exit code."""

import pytest

from tests.command_line import run


@pytest.fixture
def heads(tmp_path):
    for name in ("01/anat/sub-01_T1w", "01/anat/sub-01_run-1_T1w", "02/anat/sub-02_T1w"):
        path = tmp_path / "bids" / f"sub-{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "bids"


def test_bids_prints_what_was_passed_over(heads, tmp_path, capsys):
    bids = ("cohort", "import", "bids", heads, "--out", tmp_path / "m.tsv")
    assert run(*bids) == 0
    shown = capsys.readouterr().out
    assert "m.tsv, 2 scan(s)" in shown
    assert "left out: 1 x passed over: the last run" in shown
    assert "(taken: sub-01/anat/sub-01_run-1_T1w.nii.gz)" in shown
    for number in range(3, 10):
        (heads / f"sub-0{number}").mkdir()
    assert run(*bids, "--prefer", "run-1", "--strict") == 2
    assert run(*bids, "--prefer", "run-1") == 1
    shown = capsys.readouterr().out
    assert "CHECK: 7 x a subject without a usable T1w" in shown
    assert "  and 2 more" in shown
    assert "report: " in shown


def test_a_table_is_imported_by_a_map(heads, tmp_path, capsys):
    table = tmp_path / "people.csv"
    table.write_text("id,age\n01,60\n02,61\n", encoding="utf-8")
    options = ("--map", "generic", "--images", heads / "sub-02", "--out", tmp_path / "m.tsv")
    assert run("cohort", "import", "table", table, *options) == 0
    assert "a subject of the tables without an image" in capsys.readouterr().out
    assert run("cohort", "import", "table", table, table, *options) == 0
