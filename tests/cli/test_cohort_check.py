"""`ldae cohort check` as its user meets it."""

from pathlib import Path

import numpy as np
import pytest

from ldae.volume import Volume, write_volume
from tests.command_line import run


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = ["participant_id\tsession_id\timage"]
    for i in range(3):
        radius = np.linalg.norm((np.indices((40, 40, 40)) - 19.5) * 4.0, axis=0)
        data = np.where(radius < 68, rng.normal(400, 60, radius.shape), 0.0)
        write_volume(Volume(data.astype(np.float32), np.diag([4.0, 4.0, 4.0, 1.0])), tmp_path / f"{i}.nii.gz")
        rows.append(f"p{i}\t01\t{i}.nii.gz")
    (tmp_path / "m.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "m.tsv"


def test_notices_exit_with_0_and_errors_with_1(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ("cohort", "check", "--manifest", manifest, "--no-anatomy")
    assert run(*check) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    (manifest.parent / "1.nii.gz").write_bytes(b"\x1f\x8b broken")
    assert run(*check, "--out", manifest.parent / "out") == 1
    shown = capsys.readouterr().out
    assert "unreadable" in shown
    assert "3 scans in" in shown
    assert (manifest.parent / "out" / "check.json").is_file()


def test_warnings_count_when_asked(manifest: Path) -> None:
    text = manifest.read_text().replace("0.nii.gz", f"../{manifest.parent.name}/../escaped.nii.gz")
    manifest.write_text(text)
    (manifest.parent / "0.nii.gz").rename(manifest.parent.parent / "escaped.nii.gz")
    check = ("cohort", "check", "--manifest", manifest, "--no-anatomy")
    assert run(*check) == 0
    assert run(*check, "--strict") == 2
