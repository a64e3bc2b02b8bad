"""Scans as files or as a BIDS folder become one manifest, whatever state they are in."""

import numpy as np
import pandas as pd
import pytest

from ldae.atlas import load_template
from ldae.contract import Preprocessing
from ldae.data.manifest import read_manifest, write_manifest
from ldae.errors import CohortError, ManifestError, VolumeError
from ldae.prepare.preprocess import intake
from ldae.prepare.preprocess.cohort import PreprocessReport
from ldae.prepare.preprocess.derivatives import Outcome
from ldae.prepare.preprocess.intake import open_scans, read_scans
from ldae.volume import Volume, write_volume


def contract() -> Preprocessing:
    """Of a model at 3 mm."""
    return Preprocessing(voxel_size_mm=3.0)


def brain(seed: int, shift_mm: float = 0.0) -> Volume:
    """The template's, noisy, in template space or somewhere else."""
    template = load_template(3.0)
    inside = template.brain_mask.data > 0.5
    noise = np.random.default_rng(seed).standard_normal(inside.shape)
    affine = template.grid.affine.copy()
    affine[1, 3] += shift_mm
    return Volume(np.where(inside, np.maximum(400 * template.t1.data + 4 * noise, 1), 0).astype(np.float32), affine)


@pytest.fixture
def registered(monkeypatch, tmp_path):
    """In place of preprocessing: every scan goes well, but for those of subject `bad`; collects what was asked."""
    asked = []

    def preprocess(manifest, out, config, *, workers, progress):
        asked.append(
            (out.name, config.voxel_size_mm, config.already_stripped, [r.participant_id for r in manifest.records])
        )
        outcomes = []
        for record in manifest.records:
            if record.participant_id == "sub-bad":
                outcomes.append(Outcome(record.key, failure="registration failed"))
            else:
                image = write_volume(brain(0), tmp_path / f"made_{record.stem}.nii.gz")
                outcomes.append(Outcome(record.key, image, warnings=("1 voxel far beyond all others",)))
        return PreprocessReport(None, tuple(outcomes))

    monkeypatch.setattr(intake, "preprocess_manifest", preprocess)
    return asked


def test_a_manifest_is_taken_as_it_is(tmp_path, registered):
    write_volume(brain(1, 40.0), tmp_path / "a.nii.gz")
    rows = pd.DataFrame({"participant_id": ["a"], "session_id": ["1"], "image": ["a.nii.gz"]})
    opened = open_scans([write_manifest(rows, tmp_path / "m.tsv")], tmp_path / "out", contract=contract)
    assert [record.image for record in opened.manifest.records] == [tmp_path / "a.nii.gz"]
    assert (opened.preprocessed, opened.failures, registered) == (0, {}, [])


def test_files_are_examined_and_raw_ones_preprocessed(tmp_path, registered):
    files = [
        write_volume(brain(1), tmp_path / "sub-fine_T1w.nii.gz"),
        write_volume(brain(2, 40.0), tmp_path / "sub-raw_T1w.nii.gz"),
        write_volume(brain(3, 40.0), tmp_path / "sub-bad_T1w.nii.gz"),
        write_volume(Volume(np.ones((9, 9, 9)), np.eye(4)), tmp_path / "sub-flat_T1w.nii.gz"),
    ]
    opened = open_scans(files, tmp_path / "out", contract=contract)
    images = {record.participant_id: record.image for record in opened.manifest.records}
    assert images == {"sub-fine": files[0], "sub-raw": tmp_path / "made_sub-raw_ses-1.nii.gz"}
    assert registered == [("brain", 3.0, True, ["sub-raw", "sub-bad"])]
    assert opened.preprocessed == 2
    assert opened.warnings == {"sub-raw_1": ("1 voxel far beyond all others",)}
    assert {key.partition("_")[0]: reason.partition(";")[0] for key, reason in opened.failures.items()} == {
        "sub-bad": "registration failed",
        "sub-flat": "all voxels have one value, 1",
    }


def test_a_raw_scan_of_another_contrast_is_refused_once_it_is_registered(tmp_path, registered, monkeypatch):
    def refuse(*_):
        msg = "looks T2w, not T1w"
        raise VolumeError(msg)

    monkeypatch.setattr(intake, "check_prepared", refuse)
    raw = write_volume(brain(2, 40.0), tmp_path / "sub-raw_T1w.nii.gz")
    with pytest.raises(CohortError, match="none of 1 scans can be used; sub-raw_1: looks T2w"):
        open_scans([raw], tmp_path / "out", contract=contract)


def test_a_bids_folder_needs_no_manifest(tmp_path, registered):
    for subject in ("01", "02"):
        folder = tmp_path / "bids" / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        write_volume(brain(int(subject)), folder / f"sub-{subject}_T1w.nii.gz")
    opened = open_scans([tmp_path / "bids"], tmp_path / "out", contract=contract)
    assert opened.manifest.subjects == ("sub-01", "sub-02")
    assert opened.preprocessed == 0
    with pytest.raises(CohortError, match=r"holds no sub-|no subject|sub-X"):
        open_scans([tmp_path / "out"], tmp_path / "other", contract=contract)


def test_another_modality_must_be_in_template_space(tmp_path):
    raw = write_volume(brain(2, 40.0), tmp_path / "sub-raw_T2w.nii.gz")
    with pytest.raises(CohortError, match="only T1w is preprocessed; give T2w brains in it"):
        open_scans([raw], tmp_path / "out", contract=lambda: Preprocessing(modality="T2w"))


def test_image_files_are_a_manifest(tmp_path):
    names = ("sub-01_ses-2_T1w.nii.gz", "head.nii", "none.nii")
    for name in names:
        (tmp_path / name).touch()
    first, second, third = read_scans([tmp_path / name for name in names]).records
    assert third.key == "sub-none_1"
    assert (first.key, first.image) == ("sub-01_ses-2", tmp_path / names[0])
    assert (second.key, second.image) == ("head_1", tmp_path / names[1])
    table = tmp_path / "m.tsv"
    table.write_text("participant_id\tsession_id\timage\na\t1\thead.nii\n")
    assert read_scans([table]).records == read_manifest(table).records
    with pytest.raises(ManifestError, match=r"lost.nii.gz: no such image file; check the path"):
        read_scans([tmp_path / "lost.nii.gz"])
    with pytest.raises(ManifestError, match="one manifest, or image files"):
        read_scans([tmp_path / "a.tsv", tmp_path / "b.tsv"])
