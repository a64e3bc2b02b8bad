"""Quality control of a phantom cohort: sound as it is made, then with every kind of fault planted at once."""

import gzip
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from ldae.data.manifest import read_manifest
from ldae.errors import CohortError
from ldae.head.findings import ERROR, NOTICE, Severity, group_findings
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from ldae.prepare.check import scan
from ldae.prepare.check.cohort import CheckReport, check_cohort
from ldae.prepare.check.scan import ScanToExamine, examine
from ldae.prepare.check.table import scan_keys
from ldae.volume import Volume, read_volume, write_volume


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight phantoms, one session each."""
    folder = tmp_path_factory.mktemp("phantoms")
    return synthesise_cohort(folder / "cohort", PhantomConfig(n_subjects=8, voxel_size_mm=5.0, max_sessions=1, seed=3))


@pytest.fixture
def table(cohort: Path, tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """A copy to spoil: its folder and its table."""
    shutil.copytree(cohort.parent, tmp_path / "c")
    return tmp_path / "c", pd.read_csv(cohort, sep="\t", dtype=str, keep_default_na=False)


def check(folder: Path, frame: pd.DataFrame, **options: object) -> CheckReport:
    frame.to_csv(folder / "m.tsv", sep="\t", index=False)
    return check_cohort(folder / "m.tsv", **options)  # type: ignore[arg-type]


def test_a_sound_cohort_has_notices_at_most(cohort: Path) -> None:
    report = check_cohort(cohort)
    assert [finding.code for finding in report.findings if finding.severity < NOTICE] == []
    assert report.likeness is not None
    assert report.spread["ventricle_spread"] > 0.06
    assert {measurements["modality"] for measurements in report.measurements.values()} == {"T1w"}
    assert {measurements["shows"] for measurements in report.measurements.values()} == {"brain"}


def test_headers_alone_show_what_they_can(table: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "read_volume", None)
    folder, frame = table
    (folder / frame["image"][0]).unlink()
    (folder / frame["image"][1]).write_bytes(b"no image")
    report = check(folder, frame, fast=True)
    found = {finding.code: finding.scans for finding in report.findings if finding.severity == ERROR}
    keys = scan_keys(frame)
    assert found == {"missing-file": (keys[0],), "text-file": (keys[1],)}
    assert all(report.measurements[key]["spacing_mm"] == [5.0] * 3 for key in keys[2:])


def test_every_fault_is_found_and_none_stops_the_others(table: tuple[Path, pd.DataFrame]) -> None:
    folder, frame = table
    images = [folder / name for name in frame["image"]]
    sound = read_volume(images[0])

    def add(name: str, image: str, **cells: str) -> None:
        frame.loc[len(frame)] = frame.iloc[0].to_dict() | {"participant_id": name, "image": image, **cells}

    def plant(name: str, data: np.ndarray) -> None:
        nibabel.save(nibabel.Nifti1Image(data, sound.affine, dtype=data.dtype), folder / f"{name}.nii.gz")
        add(name, f"{name}.nii.gz")

    truncated = images[1].read_bytes()
    (folder / "truncated.nii.gz").write_bytes(truncated[: len(truncated) // 2])
    add("truncated", "truncated.nii.gz")
    (folder / "text.nii.gz").write_text("<html>404</html>")
    add("text", "text.nii.gz")
    add("nowhere", "nowhere.nii.gz")
    plant("hole", np.where(sound.data > sound.data.mean(), np.nan, sound.data))
    plant("zero", np.zeros(sound.data.shape, np.int16))
    plant("series", np.zeros((*sound.data.shape, 4), np.int16))
    # The same voxels in another file, with other axes; then the same brain, scaled, moved, and coarser.
    flipped = Volume(sound.data[::-1].transpose(2, 0, 1), sound.affine)
    affine = sound.affine @ np.array([[0, -1.0, 0, sound.data.shape[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    write_volume(Volume(np.ascontiguousarray(flipped.data), affine), folder / "same.nii")
    add("same", "same.nii")
    another = read_volume(images[-1])
    shifted = np.array(another.affine)
    shifted[:3, 3] += (1.0, -1.0, 0.5)
    noise = np.random.default_rng(0).normal(0.0, 0.02 * another.data.max(), another.data.shape)
    noisy = np.where(another.data > 0, np.clip(another.data + noise, 1e-3, None), 0.0)
    write_volume(Volume((300 * noisy).astype(np.float32), shifted), folder / "twin ünï.nii.gz")
    add("twin", "twin ünï.nii.gz")

    report = check(folder, frame)
    serious = [finding for finding in report.findings if finding.severity < NOTICE]
    by_subject = {finding.scans[0].split("_")[0]: finding.code for finding in serious if len(finding.scans) == 1}
    assert by_subject == {
        "truncated": "unreadable",
        "text": "text-file",
        "nowhere": "missing-file",
        "hole": "non-finite",
        "zero": "constant",
        "series": "four-dimensional",
    }
    pairs = {finding.code: set(finding.subjects) for finding in report.findings if len(finding.subjects) == 2}
    assert pairs == {
        "same-voxels": {frame["participant_id"][0], "same"},
        "same-brain": {frame["participant_id"][len(images) - 1], "twin"},
    }
    assert len(report.measurements) == len(frame)


def test_a_damaged_file_is_one_finding_and_a_check_that_fails_another(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(range(256)) * 4))
    (finding,) = examine(ScanToExamine("a", tmp_path / "a.nii.gz")).findings
    assert (finding.severity, finding.code, finding.scans) == (ERROR, "unreadable", ("a",))
    image = read_manifest(cohort).records[0].image
    monkeypatch.setattr("ldae.prepare.check.scan.check_intensities", lambda data: 1 / 0)
    (finding,) = examine(ScanToExamine("a", image)).findings
    assert (finding.severity, finding.code, finding.scans) == (ERROR, "not-examined", ("a",))
    assert "ZeroDivisionError" in finding.message


@pytest.mark.slow
def test_processes_change_nothing(cohort: Path) -> None:
    one, two = (check_cohort(cohort, workers=workers, anatomy=False) for workers in (1, 2))
    assert one.findings == two.findings
    for measurements in (*one.measurements.values(), *two.measurements.values()):
        measurements.pop("seconds")
    assert one.measurements == two.measurements
    assert one.likeness is None


class Deadly:
    """Ends the process that it is sent to."""

    name = "deadly.nii.gz"

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


@pytest.mark.slow
def test_a_killed_process_costs_one_scan(table: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, frame = table
    frame = frame.iloc[:4].reset_index(drop=True)
    frame.loc[0, "image"] = Deadly.name
    monkeypatch.setattr(
        "ldae.prepare.check.cohort.ScanToExamine",
        lambda key, image, *rest: ScanToExamine(key, Deadly() if image.name == Deadly.name else image, *rest),
    )
    report = check(folder, frame, anatomy=False, workers=2)
    lost = [finding.scans for finding in report.findings if finding.code == "not-examined"]
    assert lost == [(f"{frame['participant_id'][0]}_{frame['session_id'][0]}",)]
    assert sum("seconds" in measurements for measurements in report.measurements.values()) == 3


def test_mixtures_of_heads_brains_and_resolutions(table: tuple[Path, pd.DataFrame]) -> None:
    folder, frame = table
    path = folder / frame["image"][0]
    scan = read_volume(path)
    air = np.hypot(*np.random.default_rng(0).normal(0, 0.03, (2, *scan.data.shape)))
    write_volume(Volume(np.where(scan.data > 0, scan.data, air).astype(np.float32), scan.affine), path)
    coarse = read_volume(folder / frame["image"][1])
    affine = np.array(coarse.affine)
    affine[:3, :3] *= 1.9
    write_volume(Volume(coarse.data, affine), folder / frame["image"][1])
    codes = {finding.code: finding.scans for finding in check(folder, frame, anatomy=False).findings}
    keys = scan_keys(frame)
    assert codes["mixed-skull"][0] == keys[0]
    assert codes["mixed-resolution"] == (keys[1],)


def test_repeated_rows_are_both_examined(table: tuple[Path, pd.DataFrame]) -> None:
    folder, frame = table
    frame.loc[len(frame)] = frame.iloc[0]
    report = check(folder, frame, anatomy=False)
    assert len(report.measurements) == len(frame)
    assert {"manifest", "duplicate-path", "same-voxels"} <= {finding.code for finding in report.findings}
    with pytest.raises(CohortError, match="workers must be at least 1, got 0"):
        check(folder, frame, workers=0)


def test_files_hold_everything(table: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    folder, frame = table
    frame["sex"] = "X"
    report = check(folder, frame, anatomy=False)
    json_path, tsv_path = report.write(tmp_path / "out")
    content = json.loads(json_path.read_text())
    rows = pd.read_csv(tsv_path, sep="\t", keep_default_na=False)
    assert content["counts"]["error"] == report.count(Severity.ERROR) == (rows["severity"] == "error").sum()
    assert set(content["measurements"]) == set(report.measurements)
    groups = group_findings(report.findings)
    assert groups[0].severity == ERROR
    assert len(groups[0].scans) == len(frame)
