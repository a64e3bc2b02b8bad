"""Laws of the phantom: same seed same bytes, truth moves with disease, and nothing foreign is overwritten."""

import dataclasses
import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ldae.atlas import load_template, template_grid
from ldae.data.manifest import read_manifest
from ldae.errors import CohortError, ConfigError
from ldae.phantom import cohort as phantom
from ldae.phantom.anatomy.deformation import ShapeConfig, draw_shape, exponential, structure_displacement
from ldae.phantom.anatomy.lattice import sample_at
from ldae.phantom.anatomy.tissue import RigidMotion, SubjectMap, map_subject, render
from ldae.phantom.cohort import PhantomConfig, cohort_grid, draw_cohort, synthesise_cohort
from ldae.phantom.population import AnatomicalState, PopulationConfig, anatomical_state, draw_subject, with_severity
from ldae.phantom.pose import RawConfig
from ldae.phantom.scan import scan_subject
from ldae.phantom.scanner import ScannerConfig, acquire, bias_field, draw_scan, draw_site
from ldae.prepare.imports.bids import import_bids
from ldae.volume import read_volume
from tests.phantom.folder_bytes import bytes_of

CONFIG = PhantomConfig(n_subjects=3, voxel_size_mm=6.0, seed=3, max_sessions=3, save_displacement=True)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "alone"
    synthesise_cohort(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def plain_head() -> SubjectMap:
    """The template's own head on the 6 mm grid."""
    config = ShapeConfig(amplitudes_mm=(0.0, 0.0), axis_scale_sd=0.0)
    return map_subject(template_grid(6.0), draw_shape(config, 1.0, np.random.default_rng(0)), load_template(1.0))


def test_layout_is_bids_whose_import_gives_the_generators_own_manifest(cohort, tmp_path):
    manifest = pd.read_csv(cohort / "manifest.tsv", sep="\t")
    columns = ["participant_id", "session_id", "image", "age", "sex", "diagnosis", "months", "site"]
    assert list(manifest.columns) == columns
    assert set(manifest["diagnosis"]) <= {"CN", "MCI", "AD"}
    assert set(manifest["sex"]) <= {"F", "M"}
    assert manifest["participant_id"].nunique() == CONFIG.n_subjects
    baseline = manifest.groupby("participant_id").first()
    assert (baseline["months"] == 0).all()
    assert baseline["age"].between(55, 90).all()
    assert json.loads((cohort / "dataset_description.json").read_text())["BIDSVersion"]
    on_disk = {str(p.relative_to(cohort)) for p in cohort.rglob("*_T1w.nii.gz")}
    assert on_disk == set(manifest["image"])
    # The import knows the rules of BIDS.
    report = import_bids(cohort, tmp_path / "imported.tsv")
    assert report.skipped == ()
    assert len(report.taken) > CONFIG.n_subjects
    made, imported = (
        [dataclasses.replace(record, image=record.image.resolve()) for record in read_manifest(path).records]
        for path in (cohort / "manifest.tsv", report.manifest)
    )
    assert imported == made


def test_images_are_stripped_brains_in_template_space(cohort):
    template = load_template(6.0)
    for path in cohort.rglob("*_T1w.nii.gz"):
        volume = read_volume(path)
        assert volume.grid == cohort_grid(CONFIG)
        inside = volume.data > 0
        assert inside.sum() - inside[1:-1, 1:-1, 1:-1].sum() < 0.005 * inside.sum()
        assert (volume.data[~inside] == 0).all()
        assert 0.7 < inside.sum() / (template.brain_mask.data > 0.5).sum() < 1.2
        both = inside & (template.brain_mask.data > 0.5)
        assert np.corrcoef(volume.data[both], template.t1.data[both])[0, 1] > 0.6


def test_truth_has_a_row_for_each_scan(cohort):
    manifest = pd.read_csv(cohort / "manifest.tsv", sep="\t")
    truth = pd.read_csv(cohort / "phantom_truth.tsv", sep="\t")
    keys = ["participant_id", "session_id", "age"]
    pd.testing.assert_frame_equal(manifest[keys], truth[keys])
    names = ["ventricles_ml", "hippocampus_left_ml", "hippocampus_right_ml", "gm_ml", "wm_ml", "brain_ml"]
    assert (truth[names] > 0).all(axis=None)
    np.testing.assert_allclose(truth["brain_ml"], truth["gm_ml"] + truth["wm_ml"], atol=0.01)
    # Within a person only time passes: disease goes on, ventricles widen, hippocampi shrink.
    for _, visits in truth.groupby("participant_id"):
        assert (visits["severity"].diff().dropna() > 0).all()
        assert (visits["ventricle_mm"].diff().dropna() > 0).all()
        assert (visits["hippocampus_left_mm"].diff().dropna() > 0).all()


@pytest.mark.slow
def test_workers_do_not_change_a_byte(cohort, tmp_path):
    calls = []
    manifest = synthesise_cohort(tmp_path / "two", CONFIG, workers=2, progress=lambda *state: calls.append(state))
    assert bytes_of(manifest.parent) == bytes_of(cohort)
    assert calls == [(n, CONFIG.n_subjects) for n in (1, 2, 3)]
    assert list(tmp_path.iterdir()) == [tmp_path / "two"]


def test_a_finished_cohort_is_left_alone_and_not_overwritten_by_another(cohort):
    saved = cohort / "phantom_config.json"
    text = saved.read_text()
    for earlier in ({}, {"shape": None}):
        saved.write_text(json.dumps(json.loads(text) | earlier))
        before = {p: p.stat().st_mtime_ns for p in cohort.rglob("*")}
        assert synthesise_cohort(cohort, CONFIG) == cohort / "manifest.tsv"
        assert {p: p.stat().st_mtime_ns for p in cohort.rglob("*")} == before
    saved.write_text(text)
    before = bytes_of(cohort)
    with pytest.raises(CohortError, match="seed"):
        synthesise_cohort(cohort, dataclasses.replace(CONFIG, seed=4))
    assert bytes_of(cohort) == before


def test_foreign_folders_are_refused_and_another_cohort_is_replaced_by_force(tmp_path):
    other = dataclasses.replace(CONFIG, n_subjects=1, max_sessions=1)
    synthesise_cohort(tmp_path / "cohort", other)
    manifest = synthesise_cohort(tmp_path / "cohort", dataclasses.replace(other, seed=other.seed + 1), force=True)
    assert len(read_manifest(manifest)) == 1
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CohortError, match="not empty"):
        synthesise_cohort(tmp_path, CONFIG)
    with pytest.raises(CohortError, match="is a file"):
        synthesise_cohort(tmp_path / "notes.txt", CONFIG)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "phantom_config.json").write_text("{")
    with pytest.raises(CohortError, match="damaged"):
        synthesise_cohort(tmp_path / "damaged", CONFIG)
    with pytest.raises(CohortError, match="workers"):
        synthesise_cohort(tmp_path / "out", CONFIG, workers=0)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_the_subjects_that_are_missing(tmp_path, monkeypatch):
    settings = dataclasses.replace(CONFIG, n_subjects=2, max_sessions=1, save_displacement=False)
    whole = synthesise_cohort(tmp_path / "whole", settings)
    made = []

    def counted(*arguments):
        made.append(arguments[-1][0].participant_id)
        return scan_subject(*arguments)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "scan_subject", counted)
    with pytest.raises(KeyboardInterrupt):
        synthesise_cohort(tmp_path / "out", dataclasses.replace(settings, seed=5), progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthesise_cohort(tmp_path / "out", settings, progress=interrupt)
    assert not (tmp_path / "out").exists()
    again = synthesise_cohort(tmp_path / "out", settings)
    assert made[1:] == ["sub-0001", "sub-0002"], "each once, after one of other settings"
    assert bytes_of(again.parent) == bytes_of(whole.parent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_dead_worker_leaves_no_cohort(tmp_path, monkeypatch):
    def killed(_, jobs, lost, **options):
        return [lost(jobs[0], BrokenProcessPool("killed"))]

    monkeypatch.setattr(phantom, "run_each", killed)
    with pytest.raises(CohortError, match="fewer workers"):
        synthesise_cohort(tmp_path / "out", CONFIG, workers=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_subjects": 0}, r"n_subjects must be between 1 and 99999, got 0"),
        ({"n_subjects": 2.5}, "n_subjects takes a whole number, got 2.5"),
        ({"n_subjects": True}, "n_subjects takes a whole number, got True"),
        ({"voxel_size_mm": 0.5}, "voxel_size_mm"),
        ({"voxel_size_mm": float("nan")}, "voxel_size_mm"),
        ({"seed": -1}, "seed"),
        ({"max_sessions": 7}, "max_sessions"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        (PopulationConfig, "prevalence", (0.5, 0.5, 0.5)),
        (PopulationConfig, "prevalence", (-1.0, 1.0, 1.0)),
        (PopulationConfig, "age_sd_years", -1.0),
        (PopulationConfig, "age_range_years", (90.0, 50.0)),
        (PopulationConfig, "age_range_years", (50.0,)),
        (PopulationConfig, "single_session", 2.0),
        (PopulationConfig, "n_sites", 0),
        (PopulationConfig, "asymmetry", float("nan")),
        (ScannerConfig, "noise_sd", -1.0),
        (ScannerConfig, "ghost_probability", 2.0),
        (ScannerConfig, "gain_sd", float("nan")),
        (RawConfig, "max_rotation_deg", 120.0),
        (RawConfig, "max_translation_mm", -1.0),
        (RawConfig, "margin_mm", (25.0, 4.0)),
        (RawConfig, "max_in_plane_ratio", 0.5),
        (RawConfig, "bias_sd", float("nan")),
    ],
)
def test_impossible_settings_of_a_part_are_refused(part, setting, value):
    with pytest.raises(ConfigError, match=setting):
        part(**{setting: value})


def test_a_subject_does_not_depend_on_the_others():
    few, many = (draw_cohort(PhantomConfig(n_subjects=n, seed=1)) for n in (5, 50))
    assert few == many[:5]
    assert draw_cohort(PhantomConfig(n_subjects=5, seed=2)) != few


def test_the_cohort_is_as_configured():
    subjects = draw_cohort(PhantomConfig(n_subjects=400, max_sessions=4))
    baseline = pd.DataFrame([dataclasses.asdict(s.sessions[0]) for s in subjects])
    shares = baseline["diagnosis"].value_counts(normalize=True)
    np.testing.assert_allclose([shares[d] for d in ("CN", "MCI", "AD")], [0.40, 0.25, 0.35], atol=0.01)
    age = baseline.groupby("diagnosis")["age"].mean()
    assert age["AD"] > age["CN"] + 2
    assert {len(s.sessions) for s in subjects} == {1, 2, 3, 4}
    stages = {"CN": 0, "MCI": 1, "AD": 2}
    courses = [[stages[e.diagnosis] for e in s.sessions] for s in subjects]
    assert all(course == sorted(course) for course in courses)
    assert any(course[0] == 1 and course[-1] == 2 for course in courses)


def test_time_bends_the_course():
    population = PopulationConfig()
    subject = draw_subject(population, index=0, group=1, max_sessions=6, rng=np.random.default_rng(1))
    assert len(subject.sessions) >= 3
    rates = np.diff([s.severity for s in subject.sessions]) / np.diff([s.months for s in subject.sessions])
    assert (np.diff(rates) > 0).all()


def test_true_volumes_are_monotone_in_severity_and_age(plain_head):
    states = [anatomical_state(PopulationConfig(), 72.0, severity) for severity in (0.0, 0.4, 0.8, 1.2, 1.6)]
    volumes = pd.DataFrame([render(plain_head, state).volumes_ml for state in states])
    assert volumes["ventricles_ml"].is_monotonic_increasing
    for name in ("hippocampus_left_ml", "hippocampus_right_ml", "gm_ml", "brain_ml"):
        assert volumes[name].is_monotonic_decreasing, name
    assert volumes["ventricles_ml"].iloc[-1] > 1.3 * volumes["ventricles_ml"].iloc[0]
    # And in age.
    states = [anatomical_state(PopulationConfig(), age, 0.0) for age in range(50, 95, 5)]
    for field in dataclasses.fields(AnatomicalState):
        assert (np.diff([getattr(state, field.name) for state in states]) > 0).all(), field.name


def test_ventricles_grow_in_the_image(plain_head):
    template = load_template(6.0)
    near = template.ventricles.data > 0.3
    config = ScannerConfig()
    means = []
    for severity in (0.0, 0.7, 1.4):
        rng = np.random.default_rng(0)
        scan = draw_scan(config, draw_site(config, rng), rng)
        head = render(plain_head, anatomical_state(PopulationConfig(), 72.0, severity), scan.motion)
        image = acquire(head, plain_head.grid, scan, config, white_matter_darkening=0.0, rng=rng)
        means.append(image[near].mean() / np.median(image[image > 0]))
    assert means[0] > 1.02 * means[1] > 1.02**2 * means[2]


def test_no_change_is_the_template(plain_head):
    points = np.random.default_rng(0).uniform(-60, 60, (500, 3)).astype(np.float32)
    assert not structure_displacement(AnatomicalState(), points, load_template(1.0)).any()
    head = render(plain_head, AnatomicalState(), RigidMotion())
    template = load_template(6.0)
    for ours, theirs in ((head.grey, template.grey_matter), (head.white, template.white_matter)):
        assert np.abs(ours - theirs.data).max() < 0.12
        assert ours.sum() == pytest.approx(theirs.data.sum(), rel=0.01)
    ventricles_ml = template.ventricles.data.sum() * template.grid.voxel_volume_ml
    assert head.volumes_ml["ventricles_ml"] == pytest.approx(ventricles_ml, rel=0.02)
    assert head.displacement_mm is None
    field = render(plain_head, AnatomicalState(), keep_displacement=True).displacement_mm
    assert np.nanmax(np.abs(field)) < 1e-3
    assert np.isfinite(field).any()
    assert (bias_field(plain_head.grid, np.zeros(9)) == 1).all()
    assert (bias_field(plain_head.grid, np.full(9, 0.1)) > 0).all()


def test_displacement_points_inward_where_ventricles_widen(plain_head):
    field = render(plain_head, AnatomicalState(ventricle_mm=3.0), keep_displacement=True).displacement_mm
    lengths = np.linalg.norm(field, axis=-1)
    x = plain_head.grid.world_coordinates()[0]
    beside = (load_template(6.0).ventricles.data > 0.1) & (np.abs(x) > 12) & (lengths > 0.5)
    # Backward map: beside the ventricle the image looks towards the midline.
    assert (field[beside][:, 0] * np.sign(x[beside]) < 0).mean() > 0.6
    assert 1.0 < np.nanmax(lengths) < 3.5


def test_flow_has_an_inverse():
    rng = np.random.default_rng(0)
    i, j, k = np.meshgrid(*[np.linspace(0, np.pi, n) for n in (20, 24, 18)], indexing="ij")
    bump = (np.sin(i) * np.sin(j) * np.sin(k))[..., None] ** 2
    velocity = (bump * rng.normal(0, 1.0, 3)).astype(np.float32)
    there, back = exponential(velocity), exponential(-velocity)
    identity = np.moveaxis(np.indices(there.shape[:3], dtype=np.float32), 0, -1).reshape(-1, 3)
    moved = identity + there.reshape(-1, 3)
    returned = moved + sample_at(back, moved)
    assert np.abs(there).max() > 0.5
    assert np.abs(returned - identity).max() < 0.05
    assert not exponential(np.zeros_like(velocity)).any()


def test_interpolation_is_exact_on_linear_functions_and_a_rotation_keeps_distances():
    rng = np.random.default_rng(0)
    indices = np.moveaxis(np.indices((7, 5, 6), dtype=np.float32), 0, -1)
    matrix = rng.normal(size=(3, 4)).astype(np.float32)
    points = rng.uniform(0, 4, (100, 3)).astype(np.float32)
    np.testing.assert_allclose(sample_at(indices @ matrix, points), points @ matrix, rtol=1e-4, atol=1e-4)
    points = np.random.default_rng(0).uniform(-70, 70, (50, 3)).astype(np.float32)
    assert np.abs(RigidMotion().move(points) - points).max() < 1e-4
    moved = RigidMotion((1.0, -0.5, 0.8), (1.0, 2.0, -1.0)).move(points)
    before, after = (np.linalg.norm(p[1:] - p[:-1], axis=1) for p in (points, moved))
    np.testing.assert_allclose(after, before, rtol=1e-3)


def test_a_head_keeps_its_shape_at_every_voxel_size():
    shape = draw_shape(ShapeConfig(), 0.92, np.random.default_rng(0))
    state = AnatomicalState(ventricle_mm=3.0, hippocampus_left_mm=1.0, cortex_mm=0.3)
    heads = [map_subject(template_grid(v), shape, load_template(1.0)) for v in (6.0, 4.0)]
    coarse, fine = (render(head, state).volumes_ml for head in heads)
    assert coarse == pytest.approx(fine, rel=0.01)


def test_motion_ghosts_leave_the_background_empty(plain_head):
    config = ScannerConfig(ghost_probability=1.0, noise_sd=0.0)
    rng = np.random.default_rng(0)
    scan = draw_scan(config, draw_site(config, rng), rng)
    still = dataclasses.replace(scan, ghost=0.0)
    head = render(plain_head, AnatomicalState())
    how = {"white_matter_darkening": 0.0}
    images = [acquire(head, plain_head.grid, s, config, rng=np.random.default_rng(0), **how) for s in (scan, still)]
    assert scan.ghost > 0
    assert ((images[0] > 0) == (images[1] > 0)).all()
    assert (images[0] >= images[1]).all()
    assert images[0].sum() > images[1].sum()


def test_more_severity_is_the_same_subject_with_more_disease():
    population = PopulationConfig()
    offsets = np.array([0.3, -0.2, 0.1, 0.4, -0.5, 0.2])
    moved = with_severity(anatomical_state(population, 72.0, 0.2, offsets), 0.6, population)
    expected = dataclasses.asdict(anatomical_state(population, 72.0, 0.8, offsets))
    assert dataclasses.asdict(moved) == pytest.approx(expected)


def test_cohort_holds_its_effect_where_disease_acts(tmp_path):
    config = PhantomConfig(n_subjects=3, voxel_size_mm=5.0, max_sessions=1, seed=4)
    synthesise_cohort(tmp_path / "cohort", config)
    effect = read_volume(tmp_path / "cohort" / "phantom_effect.nii.gz")
    template = load_template(5.0)
    ventricles = template.ventricles.resample_to(effect.grid).data > 0.5
    brain = template.brain_mask.resample_to(effect.grid).data > 0.5
    # Fluid takes the place of brighter tissue around the ventricles; far outside the brain nothing happens.
    assert effect.data[ventricles].mean() < 3 * effect.data[brain].mean() < 0
    assert np.abs(effect.data[~brain]).mean() < 0.1 * np.abs(effect.data[brain]).mean()
    assert len(draw_cohort(config)) == 3


def test_subjects_who_change_little_can_be_left_out_and_keep_their_anatomy():
    everyone = {each.participant_id: each for each in draw_cohort(PhantomConfig(n_subjects=400, seed=3))}
    chosen = draw_cohort(PhantomConfig(n_subjects=6, seed=3, min_motion_mm=2.0))
    assert len(chosen) == 6
    for subject in chosen:
        assert subject == everyone[subject.participant_id]
        assert len(subject.sessions) >= 3
        walls = [session.state.ventricle_mm for session in subject.sessions]
        assert abs(walls[-1] - walls[0]) >= 2.0
    with pytest.raises(CohortError, match="lower --min-motion"):
        draw_cohort(PhantomConfig(n_subjects=1, seed=3, min_motion_mm=2.0, max_sessions=2))
