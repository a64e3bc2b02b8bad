"""Preprocessing of a cohort: bad scans, finished work, given masks, other programs, and a cluster."""

import json
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import SimpleITK

from ldae.data.manifest import Manifest, build_manifest, read_manifest, write_manifest
from ldae.errors import CohortError, VolumeError
from ldae.head import bias_field, preprocess, registration
from ldae.head.brain_tools import run_brain_tool
from ldae.head.preprocess import PreprocessConfig, preprocess_scan
from ldae.image_files import Reading, reading
from ldae.prepare.preprocess.cohort import preprocess_manifest
from ldae.prepare.preprocess.derivatives import finished_outcome, plan_jobs
from ldae.tasks.native.scan import NativeScan
from ldae.volume import Volume, read_volume, write_volume
from tests.command_line import run

Affine = npt.NDArray[np.float64]
Pose = Callable[..., Affine]
Head = Callable[..., Volume]

FAST = PreprocessConfig(voxel_size_mm=5.0, bias_correction=False)
STRIPPED = replace(FAST, already_stripped=True)


@pytest.fixture
def truth(pose: Pose) -> Affine:
    """Template to scan, for all heads here."""
    return pose((5.0, 0.0, 3.0), (0.9, 0.9, 0.9))


@pytest.fixture(autouse=True)
def known_registration(monkeypatch: pytest.MonkeyPatch, truth: Affine) -> None:
    """The true affine in place of a search, judged as any other; tests/head tests the search."""

    def found(scan: Volume, *_: object, **options: Any) -> registration.Registration:
        options.pop("already_stripped", None)
        return registration._judged(registration._clipped(scan), np.linalg.inv(truth), options["min_correlation"])

    for name in ("register", "refine"):
        monkeypatch.setattr(preprocess, name, found)


def manifest_of(path: Path, images: dict[str, str]) -> Manifest:
    """One session of each participant."""
    table = pd.DataFrame({"participant_id": list(images), "session_id": "01", "image": list(images.values())})
    return build_manifest(table, path)


@pytest.fixture
def stripped(tmp_path: Path, truth: Affine, synthetic_head: Head) -> Manifest:
    """One brain without a skull."""
    write_volume(synthetic_head(truth, skull=False), tmp_path / "a.nii.gz")
    return manifest_of(tmp_path / "manifest.tsv", {"sub-A": "a.nii.gz"})


def test_a_cohort_survives_its_bad_scan_and_is_not_done_twice(
    tmp_path: Path, truth: Affine, synthetic_head: Head
) -> None:
    raw = tmp_path / "raw"
    scan = synthetic_head(truth, skull=False)
    for name, gain in (("a", 1.0), ("b", 1.5)):
        write_volume(Volume(gain * scan.data, scan.affine), raw / f"{name}.nii.gz")
    (raw / "torn.nii.gz").write_bytes((raw / "a.nii.gz").read_bytes()[:2000])
    rows = [
        ("sub-A-1", "ses-M00", "a.nii.gz", 70.0, 29),
        ("sub-B", "02", "b.nii.gz", 81.5, 24),
        ("sub-C", "01", "torn.nii.gz", 64.0, 30),
    ]
    table = pd.DataFrame(rows, columns=["participant_id", "session_id", "image", "age", "score"])
    manifest = build_manifest(table, raw / "manifest.tsv")
    calls: list[tuple[int, int]] = []
    out = tmp_path / "out"
    report = preprocess_manifest(manifest, out, STRIPPED, progress=lambda *call: calls.append(call))

    assert report.finished == ("sub-A-1_ses-M00", "sub-B_02")
    assert list(report.failures) == ["sub-C_01"]
    assert "unreadable or truncated" in report.failures["sub-C_01"]
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        ".bidsignore",
        "README",
        "dataset_description.json",
        "desc-brain_mask.json",
        "manifest.tsv",
        *(
            f"{folder}/anat/{folder.replace('/', '_')}_{ending}"
            for folder in ("sub-A1/ses-M00", "sub-B/ses-02")
            for ending in (
                "desc-brain_mask.nii.gz",
                "from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.txt",
                "space-MNI152NLin2009aSym_desc-brain_mask.nii.gz",
                "space-MNI152NLin2009aSym_desc-preproc_T1w.json",
                "space-MNI152NLin2009aSym_desc-preproc_T1w.nii.gz",
                "space-MNI152NLin2009aSym_desc-preproc_overlay.png",
            )
        ),
    ]
    done = read_manifest(report.manifest)
    found = [(r.key, r.age, r.extra["score"]) for r in done.records]
    assert found == [("sub-A-1_ses-M00", 70.0, 29), ("sub-B_02", 81.5, 24)]
    assert (done.table["preprocess_quality"] > 0.75).all()
    image = read_volume(done.records[0].image)
    assert image.grid == STRIPPED.grid
    sidecar_path = Path(str(done.records[0].image).replace(".nii.gz", ".json"))
    sidecar = json.loads(sidecar_path.read_text())
    assert np.asarray(sidecar["AffineNativeToTemplate"]).shape == (4, 4)
    assert sidecar["Fingerprint"]["Config"]["voxel_size_mm"] == 5.0
    (source,) = sidecar["Sources"]
    assert not Path(source).is_absolute()
    assert (sidecar_path.parent / source).is_file()

    again = preprocess_manifest(manifest, out, STRIPPED)
    assert (again.finished, again.skipped) == ((), report.finished)
    assert read_manifest(again.manifest).sha256 == done.sha256
    job, other = plan_jobs(manifest, out, STRIPPED)[:2]
    assert finished_outcome(replace(job, config=replace(STRIPPED, voxel_size_mm=4.0))) is None
    assert finished_outcome(replace(job, image=other.image)) is None
    assert finished_outcome(job) is not None
    with reading(Reading(assume_ras=True, spacing=(2.0, 2.0, 2.0))):
        assert finished_outcome(job) is None
    sidecar_path.write_text("{")
    assert finished_outcome(job) is None
    mask = other.files["native_mask"]
    mask.write_bytes(mask.read_bytes()[:-1])
    assert finished_outcome(other) is None


def test_nothing_raw_is_overwritten(stripped: Manifest, tmp_path: Path) -> None:
    stripped.write(stripped.path)
    before = stripped.path.read_bytes()
    with pytest.raises(CohortError, match="lists the raw scans and would be overwritten"):
        preprocess_manifest(read_manifest(stripped.path), tmp_path, STRIPPED)
    assert stripped.path.read_bytes() == before
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "dataset_description.json").write_text('{"Name": "mine", "BIDSVersion": "1.10.0"}')
    with pytest.raises(CohortError, match="is a data set of its own"):
        preprocess_manifest(stripped, raw, STRIPPED)
    assert [path.name for path in raw.iterdir()] == ["dataset_description.json"]
    with pytest.raises(CohortError, match="is a file"):
        preprocess_manifest(stripped, tmp_path / "a.nii.gz", STRIPPED)


@pytest.mark.slow
def test_processes_report_what_fails_in_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_volume(Volume(np.ones((8, 8, 8)), np.eye(4)), tmp_path / "flat.nii.gz")
    write_volume(Volume(rng.uniform(size=(1, 8, 8)), np.eye(4)), tmp_path / "slice.nii.gz")
    (tmp_path / "torn.nii.gz").write_bytes(b"no image")
    manifest = manifest_of(tmp_path / "m.tsv", {name: f"{name}.nii.gz" for name in ("flat", "slice", "torn")})
    failures = r"none of 3 scans.*flat_01.*all voxels have one value.*slice_01.*torn_01.*unreadable"
    with pytest.raises(CohortError, match=failures):
        preprocess_manifest(manifest, tmp_path / "out", STRIPPED, workers=2)


def test_a_cohort_without_one_good_scan_is_an_error(tmp_path: Path) -> None:
    write_volume(Volume(np.ones((8, 8, 8)), np.eye(4)), tmp_path / "flat.nii.gz")
    two = manifest_of(tmp_path / "m.tsv", dict.fromkeys(("p-1", "p1"), "flat.nii.gz"))
    with pytest.raises(CohortError, match=r"p-1_01 and p1_01 would both be written"):
        preprocess_manifest(two, tmp_path / "out")
    with pytest.raises(CohortError, match=r"none of 1 scans.*all voxels have one value"):
        preprocess_manifest(two.select([True, False]), tmp_path / "out")
    with pytest.raises(VolumeError, match="voxel_size_mm"):
        PreprocessConfig(voxel_size_mm=-1.0)


def test_what_is_written_tells_where_the_scan_was(stripped: Manifest, tmp_path: Path) -> None:
    report = preprocess_manifest(stripped, tmp_path / "out", STRIPPED)
    (outcome,) = report.outcomes
    assert outcome.image is not None
    sidecar = json.loads(Path(str(outcome.image).replace(".nii.gz", ".json")).read_text())
    raw, mask = read_volume(tmp_path / "a.nii.gz"), read_volume(outcome.image.parent / sidecar["NativeBrainMask"])
    assert mask.grid == raw.grid
    assert (raw.data[mask.data > 0] > 0).mean() > 0.95
    assert (mask.data[raw.data > 0.1 * raw.data.max()] > 0).mean() > 0.95
    # ITK's transform maps template points (LPS) to the scan's.
    transform = SimpleITK.ReadTransform(str(outcome.image.parent / sidecar["Transform"]))
    affine = np.asarray(sidecar["AffineNativeToTemplate"])
    point = np.array([10.0, -20.0, 30.0])
    x, y, z = transform.TransformPoint((-point[0], -point[1], point[2]))
    np.testing.assert_allclose(affine @ [-x, -y, z, 1.0], [*point, 1.0], atol=1e-6)
    # What the native-space results read is what is written here.
    native = NativeScan.of(outcome.image)
    nothing = Volume(np.zeros(STRIPPED.grid.shape, np.float32), STRIPPED.grid.affine)
    np.testing.assert_array_equal(native.add(nothing).data, raw.data)
    low, high = sidecar["IntensityWindow"]
    assert 0 <= low < high <= raw.data.max()
    quality = sidecar["Quality"]
    assert quality["Score"] == pytest.approx(quality["Correlation"] * quality["Coverage"] * quality["Overlap"])


def test_a_given_mask_takes_the_place_of_brain_extraction(
    stripped: Manifest,
    tmp_path: Path,
    truth: Affine,
    synthetic_head: Head,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bias_field, "ITERATIONS", (10, 10, 10))
    brain = read_volume(tmp_path / "a.nii.gz")
    mask = Volume((brain.data > 0.02 * brain.data.max()).astype(np.float32), brain.affine)
    for name in ("sub-A_01_mask.nii.gz", "mask.nii.gz"):
        write_volume(mask, tmp_path / "masks" / name)
    head = synthetic_head(truth)
    write_volume(head, tmp_path / "a.nii.gz")
    config = replace(FAST, bias_correction=True)  # the head has a bias field
    scan = preprocess_scan(head, config, brain_mask=mask)
    assert scan.quality.correlation > 0.9
    np.testing.assert_array_equal(scan.native_mask.data > 0, mask.data > 0)

    by_pattern = str(tmp_path / "masks" / "{participant_id}_{session_id}_mask.nii.gz")
    report = preprocess_manifest(stripped, tmp_path / "out", config, brain_masks=by_pattern)
    assert report.finished == ("sub-A_01",)
    table = stripped.table.assign(mask="masks/mask.nii.gz")
    by_column = preprocess_manifest(build_manifest(table, stripped.path), tmp_path / "out", config, brain_masks="mask")
    assert by_column.skipped == ("sub-A_01",)  # the same content under another name
    empty = Volume(np.zeros_like(mask.data), mask.affine)
    write_volume(empty, tmp_path / "masks" / "sub-A_01_mask.nii.gz")
    with pytest.raises(CohortError, match="marks nothing of the scan's field of view"):
        preprocess_manifest(stripped, tmp_path / "out", config, brain_masks=by_pattern)
    for pattern, complaint in (("masks/{name}.nii.gz", "only {participant_id}"), ("no.nii.gz", "no such brain mask")):
        with pytest.raises(CohortError, match=complaint):
            preprocess_manifest(stripped, tmp_path / "out", config, brain_masks=pattern)


def test_programs_on_the_path_are_called_as_they_want_to_be(
    stripped: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    scan = read_volume(tmp_path / "a.nii.gz")
    for name, program, script in (
        ("synthstrip", "mri_synthstrip", 'test "$1 $3" = "-i -m" && cp "$2" "$4"'),
        ("hd-bet", "hd-bet", 'test "$1 $3" = "-i -o" && cp "$2" "$4"'),
        ("bet", "bet", 'test "$*" = "$1 $2 -R -m -n" && test $FSLOUTPUTTYPE = NIFTI_GZ && cp "$1" "$2_mask.nii.gz"'),
    ):
        with pytest.raises(CohortError, match=f"no program '{program}' on the PATH; install it"):
            run_brain_tool(name, scan)
        path = programs / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        mask = run_brain_tool(name, scan)
        np.testing.assert_array_equal(mask.data, scan.data > 0)
        assert mask.grid == scan.grid
    path.write_text("#!/bin/sh\necho no licence found >&2\nexit 3\n")
    with pytest.raises(CohortError, match="bet failed with exit code 3 and left no mask: no licence found"):
        run_brain_tool("bet", scan)
    with pytest.raises(CohortError, match="brain_extraction must be template, synthstrip"):
        PreprocessConfig(brain_extraction="magic")  # type: ignore[arg-type]
    with pytest.raises(CohortError, match="has nothing to do"):
        PreprocessConfig(brain_extraction="bet", already_stripped=True)


def test_normalised_images_have_the_brains_percentiles_at_zero_and_one(stripped: Manifest, tmp_path: Path) -> None:
    scan = read_volume(tmp_path / "a.nii.gz")
    plain, normal = (preprocess_scan(scan, replace(STRIPPED, normalise=flag)) for flag in (False, True))
    brain = plain.brain_mask.data > 0
    np.testing.assert_array_equal(normal.image.data > 0, brain)
    low, high = plain.window
    np.testing.assert_allclose(
        normal.image.data[brain], np.maximum((plain.image.data[brain] - low) / (high - low), 1e-4), rtol=1e-5
    )


def test_parts_leave_the_manifest_to_the_command_without_them(
    stripped: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.concat([stripped.table.assign(participant_id=f"sub-{i}") for i in range(3)])
    write_manifest(table, stripped.path)
    options = ["--out", tmp_path / "out", "--voxel-size", "5", "--already-stripped", "--no-bias-correction"]
    for part, done in (("2/2", "1 scans done now, 0"), ("1/2", "2 scans done now, 0")):
        assert run("cohort", "preprocess", stripped.path, *options, "--part", part) == 0
        assert done in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out" / "manifest.tsv").exists()
    assert run("cohort", "preprocess", stripped.path, *options) == 0
    assert "0 scans done now, 3 done before" in " ".join(capsys.readouterr().out.split())
    assert len(read_manifest(tmp_path / "out" / "manifest.tsv")) == 3


# What `known_registration` does here, in the processes of a cluster, and in those that take a killed one's place.
PRELOAD = """
import numpy as np
from ldae.head import preprocess, registration

def found(scan, *_, min_correlation, **options):
    return registration._judged(registration._clipped(scan), np.load({path!r}), min_correlation)

preprocess.register = preprocess.refine = found
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_leaves_the_same_files(stripped: Manifest, tmp_path: Path, truth: Affine) -> None:
    from distributed import LocalCluster

    brain = read_volume(tmp_path / "a.nii.gz")
    names = [f"sub-{i}" for i in range(5)]
    for i, name in enumerate(names):
        write_volume(Volume(brain.data ** (1 + 0.05 * i), brain.affine), tmp_path / f"{name}.nii.gz")
    manifest = manifest_of(stripped.path, {name: f"{name}.nii.gz" for name in names})
    near = preprocess_manifest(manifest, tmp_path / "near", STRIPPED)
    np.save(tmp_path / "known.npy", np.linalg.inv(truth))
    preload = tmp_path / "known.py"
    preload.write_text(PRELOAD.format(path=str(tmp_path / "known.npy")))
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None, preload=str(preload)) as cluster:
        processes = [worker.pid for worker in cluster.workers.values()]

        def kill_one(done: int, _: int) -> None:
            if done == 1:
                os.kill(processes[0], signal.SIGKILL)

        address = cluster.scheduler_address
        far = preprocess_manifest(manifest, tmp_path / "far", STRIPPED, scheduler=address, progress=kill_one)
    assert far.failures == {}
    assert far.finished == near.finished
    contents = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "far", tmp_path / "near")
    ]
    assert contents[0] == contents[1]
    with pytest.raises(CohortError, match="no Dask scheduler answers"):
        preprocess_manifest(stripped, tmp_path / "far", STRIPPED, scheduler="nonsense://nowhere:1")


def test_the_command_leaves_a_page_with_the_worst_first(
    stripped: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brain = read_volume(tmp_path / "a.nii.gz")
    cut = brain.data.copy()
    cut[: cut.shape[0] // 4] = 0.0
    write_volume(Volume(cut, brain.affine), tmp_path / "half & half.nii.gz")
    (tmp_path / "torn.nii.gz").write_bytes(b"not an image")
    images = {"sub-A": "a.nii.gz", "sub-B": "half & half.nii.gz", "sub-C": "torn.nii.gz"}
    manifest_of(tmp_path / "three.tsv", images).write(tmp_path / "three.tsv")
    out = tmp_path / "out"
    options = ["--voxel-size", "5", "--already-stripped", "--no-bias-correction"]
    assert run("cohort", "preprocess", "--manifest", tmp_path / "three.tsv", "--out", out, *options) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "failed sub-C_01" in said
    page = (out / "quality.html").read_text()
    first, second = page.index("sub-B_01:"), page.index("sub-A_01:")
    assert first < second
    assert "sub-B/ses-01/anat/sub-B_ses-01_space-MNI152NLin2009aSym_desc-preproc_overlay.png" in page
    assert "Failed: 1 of 3 scans" in page
    assert "http" not in page.split("</style>")[1].split("<script>")[0]
