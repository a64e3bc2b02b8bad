"""Raw phantom heads: what a scanner stores, and the truth beside it."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.affines import apply_affine

from ldae.atlas import load_template
from ldae.data.manifest import read_manifest
from ldae.errors import CohortError
from ldae.phantom.anatomy.deformation import ShapeConfig, draw_shape
from ldae.phantom.anatomy.surroundings import HeadTissue, TemplateHead
from ldae.phantom.cohort import PhantomConfig, draw_cohort, synthesise_cohort
from ldae.phantom.population import AnatomicalState
from ldae.phantom.pose import HeadShape, RawConfig, best_affine, draw_native_grid, draw_pose
from ldae.phantom.raw import RawHead, raw_scan
from ldae.phantom.scan import scan_subject
from ldae.phantom.scanner import ScannerConfig, draw_scan, draw_site
from ldae.volume import Volume, read_volume
from tests.command_line import run
from tests.phantom.folder_bytes import bytes_of

FAR = RawConfig(max_rotation_deg=45.0, max_translation_mm=60.0)
CONFIG = PhantomConfig(n_subjects=2, voxel_size_mm=5.0, seed=1, max_sessions=1, raw=FAR, save_displacement=True)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "alone"
    synthesise_cohort(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def scans(cohort) -> list[tuple[Path, Volume, dict, Volume]]:
    """File, image, truth and brain mask of each scan."""
    found = []
    for path in sorted(cohort.glob("sub-*/ses-*/anat/*_T1w.nii.gz")):
        truth = cohort / "derivatives" / "truth" / path.relative_to(cohort)
        known = json.loads(truth.with_name(truth.name.replace("_T1w.nii.gz", "_desc-truth.json")).read_text())
        mask = read_volume(truth.with_name(truth.name.replace("_T1w", "_desc-brain_mask")))
        found.append((path, read_volume(path), known, mask))
    return found


def test_the_manifest_names_scans_and_no_truth(cohort, scans):
    manifest = read_manifest(cohort / "manifest.tsv")
    named = {Path(record.image).resolve() for record in manifest.records}
    assert named == {path.resolve() for path, *_ in scans}
    description = json.loads((cohort / "derivatives" / "truth" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert "native space" in (cohort / "README").read_text()


def test_scans_are_stored_as_scanners_store_them(scans):
    for path, volume, known, mask in scans:
        image = nibabel.load(path)
        assert image.get_data_dtype() == np.int16
        assert image.dataobj.slope == pytest.approx(known["IntensitySlope"], rel=1e-6)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        assert "".join(nibabel.aff2axcodes(image.affine)) == known["StorageOrder"]
        np.testing.assert_allclose(image.header.get_zooms(), known["VoxelSizeMm"], rtol=1e-4)
        assert mask.grid == volume.grid
    assert len({known["StorageOrder"] for _, _, known, _ in scans}) > 1


def test_the_whole_brain_is_in_the_image_and_air_around_the_head(scans):
    for _, volume, _, mask in scans:
        brain = mask.data > 0
        assert brain.sum() == brain[1:-1, 1:-1, 1:-1].sum()
        assert 1000 < brain.sum() * volume.grid.voxel_volume_ml < 2300
        # Noise, but no head, in some of the image's corners, and bright tissue outside the brain.
        corners = [volume.data[c] for c in itertools.product((0, -1), repeat=3)]
        assert min(corners) < 0.2 * np.median(volume.data[brain])
        assert (volume.data[~brain] > np.median(volume.data[brain])).sum() > 0.1 * brain.sum()


def test_the_true_affine_lands_on_the_template(scans):
    template = load_template(4.0)
    inside = template.brain_mask.data > 0.5
    for _, volume, known, mask in scans:
        affine = np.array(known["AffineNativeToTemplate"])
        assert known["AffineResidualRmsMm"] < 6.0
        landed = Volume(mask.data, affine @ mask.affine).resample_to(template.grid).data > 0.5
        assert 2 * (landed & inside).sum() / (landed.sum() + inside.sum()) > 0.92
        image = Volume(volume.data, affine @ volume.affine).resample_to(template.grid).data
        assert np.corrcoef(image[inside], template.t1.data[inside])[0, 1] > 0.4


def test_the_displacement_agrees_with_the_affine(scans):
    path, _, known, mask = scans[0]
    field = nibabel.load(str(path).replace("_T1w", "_desc-truth_displacement")).get_fdata()
    brain = mask.data > 0
    native = np.moveaxis(mask.grid.world_coordinates(), 0, -1)[brain]
    affine = np.array(known["AffineNativeToTemplate"])
    left = native + field[brain] - apply_affine(affine, native)
    rms = float(np.sqrt((left**2).sum(axis=1).mean()))
    assert rms == pytest.approx(known["AffineResidualRmsMm"], rel=0.15)


def test_a_scan_does_not_depend_on_what_was_scanned_before(cohort, scans, tmp_path):
    for subject in reversed(draw_cohort(CONFIG)):
        scan_subject(tmp_path, CONFIG, (subject, None))
    made = bytes_of(tmp_path)
    assert len(made) == 5 * len(scans)
    before = bytes_of(cohort)
    assert made == {name: before[name] for name in made}


def test_a_rigid_head_gives_back_its_pose():
    rigid = ShapeConfig(amplitudes_mm=(0.0, 0.0), axis_scale_sd=0.0)
    rng = np.random.default_rng(2)
    shape = HeadShape.from_lattice(draw_shape(rigid, 1.0, rng))
    head = RawHead(shape, load_template(1.0), TemplateHead(HeadTissue()))
    scanner = ScannerConfig()
    scan = draw_scan(scanner, draw_site(scanner, rng), rng)
    raw = raw_scan(head, AnatomicalState(), FAR, scan, scanner, voxel_size_mm=5.0, rng=rng)
    assert raw.residual_mm < 0.01
    np.testing.assert_allclose(raw.affine_native_to_template @ raw.pose, np.eye(4), atol=0.01)


@given(st.integers(0, 2**32), st.floats(0, 90), st.floats(0, 200), st.booleans())
def test_pose_and_grid_stay_within_their_limits(seed, degrees, millimetres, reorder):
    config = RawConfig(max_rotation_deg=degrees, max_translation_mm=millimetres, any_storage_order=reorder)
    rng = np.random.default_rng(seed)
    pose = draw_pose(config, rng)
    rotation = pose[:3, :3]
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    angle = np.rad2deg(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
    assert angle <= degrees + 1e-3
    centre = np.array([0.0, -17.0, 5.0])
    assert np.linalg.norm(rotation @ centre + pose[:3, 3] - centre) <= millimetres + 1e-6
    head = rng.normal(0, 60, (200, 3))
    grid = draw_native_grid(config, 2.0, head, rng)
    assert min(grid.spacing) > 1.99
    assert max(grid.spacing) < 3.0 * config.max_in_plane_ratio + 1e-6
    voxels = apply_affine(np.linalg.inv(grid.affine), head)
    assert (voxels > -1e-6).all()
    assert (voxels < np.array(grid.shape)).all()
    if not reorder:
        assert nibabel.aff2axcodes(grid.affine) == ("R", "A", "S")


def test_shape_has_an_inverse_far_outside_the_brain():
    shape = HeadShape.from_lattice(draw_shape(ShapeConfig(), 0.9, np.random.default_rng(3)))
    points = np.random.default_rng(0).uniform((-90, -130, -200), (90, 100, 100), (300, 3)).astype(np.float32)
    there = shape.from_template(points)
    assert np.abs(shape.to_template(there) - points).max() < 0.01
    assert np.abs(there - points).max() > 1.0


def test_the_affine_of_matched_points_is_exact():
    rng = np.random.default_rng(0)
    points, affine = rng.normal(size=(40, 3)), np.eye(4)
    affine[:3] += rng.normal(0, 0.3, (3, 4))
    np.testing.assert_allclose(best_affine(points, apply_affine(affine, points)), affine, atol=1e-10)


def test_a_head_has_layers():
    # From the brain's surface to the left: fluid, dark bone, bright scalp, air.
    x = np.arange(-110.0, -60.0, 0.5, dtype=np.float32)
    points = np.stack([x, np.full_like(x, -15.0), np.full_like(x, 20.0)], axis=1)
    signal = TemplateHead(HeadTissue()).signal(points)
    air, scalp, skull = signal[0], int(signal.argmax()), signal[signal.argmax() :]
    assert air == 0.0
    assert signal[scalp] > 0.8
    assert skull.min() < 0.2
    thinner = TemplateHead(HeadTissue(scalp_mm=3.5, skull_mm=5.0)).signal(points)
    assert (thinner > 0.1).sum() < (signal > 0.1).sum()


def test_a_cohort_of_brains_does_not_name_the_option(tmp_path):
    brains = PhantomConfig(n_subjects=1, voxel_size_mm=6.0, max_sessions=1)
    synthesise_cohort(tmp_path / "plain", brains)
    saved = json.loads((tmp_path / "plain" / "phantom_config.json").read_text())
    assert not {"raw", "anatomy"} & saved.keys()
    with pytest.raises(CohortError, match="raw"):
        synthesise_cohort(tmp_path / "plain", replace(brains, raw=RawConfig()))


def test_limits_of_raw_heads_may_be_given(tmp_path):
    options = ["--subjects", "1", "--max-sessions", "1", "--voxel-size", "6", "--workers", "1", "--max-rotation", "0"]
    assert run("cohort", "synth", "--raw", "--out", tmp_path / "out", *options) == 0
    saved = json.loads((tmp_path / "out" / "phantom_config.json").read_text())
    assert saved["raw"]["max_rotation_deg"] == 0.0
    assert saved["raw"]["max_translation_mm"] == 20.0
