"""Manifests with broken rules: all are reported, and what is usable is kept."""

from pathlib import Path

import pytest

from ldae.errors import ManifestError
from ldae.prepare.check.lenient_manifest import read_leniently

HEAD = "participant_id\tsession_id\timage\tage\tsex\tsplit\n"


def write(path: Path, *rows: str, head: str = HEAD) -> Path:
    path.write_text(head + "\n".join(rows) + "\n", encoding="utf-8-sig")
    return path


def test_a_sound_manifest_is_read_whole_and_two_splits_are_left_to_the_checks_of_the_table(tmp_path: Path) -> None:
    rows = ("p1\t01\ta.nii.gz\t70.5\tfemale\ttrain", "p1\t02\tb.nii.gz\t71\tF\ttest")
    table, findings = read_leniently(write(tmp_path / "m.tsv", *rows))
    assert findings == []
    assert table.loc[0, ["participant_id", "age", "sex"]].tolist() == ["p1", 70.5, "F"]
    assert table["split"].tolist() == ["train", "test"]


def test_bad_cells_go_missing_and_the_rest_stays(tmp_path: Path) -> None:
    table, findings = read_leniently(
        write(
            tmp_path / "m.tsv",
            "p1\t01\ta.nii.gz\told\tF\ttrain",
            "p 2\t01\tb.dcm\t-3\tX\tholdout",
            "\t01\tc.nii.gz\t50\tM\ttest",
        )
    )
    assert {finding.code for finding in findings} == {"manifest"}
    assert len(findings) == 7
    assert table["age"].isna().tolist() == [True, True, False]
    assert table["image"].tolist() == ["a.nii.gz", None, "c.nii.gz"]
    assert table["participant_id"].tolist() == ["p1", "p 2", "line-4"]
    assert findings[0].scans == ("p1_01",)
    assert all(finding.remedy and finding.message.startswith("line") for finding in findings)


def test_repeated_sessions_are_reported_beside_bad_cells(tmp_path: Path) -> None:
    rows = ("p1\t01\ta.nii.gz\t70\tF\ttrain", "p1\t01\tb.nii.gz\t70\tF\ttrain")
    _, clean = read_leniently(write(tmp_path / "m.tsv", *rows))
    assert [finding.scans for finding in clean] == [("p1_01",)]
    _, bad = read_leniently(write(tmp_path / "n.tsv", *rows, "p3\t01\tc.nii.gz\told\tF\ttrain"))
    assert sum("appears twice" in finding.message for finding in bad) == 1


@pytest.mark.parametrize("content", ["", "participant_id\tsession_id\timage\n", "id,file\n1,2\n"])
def test_what_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.tsv").write_text(content)
    with pytest.raises(ManifestError):
        read_leniently(tmp_path / "m.tsv")
