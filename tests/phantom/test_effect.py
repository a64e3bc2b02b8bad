"""The truth that edits are held against: what severity alone does to an image."""

import dataclasses

import numpy as np
import pytest

from ldae.atlas import load_template
from ldae.errors import CohortError
from ldae.phantom.cohort import PhantomConfig, draw_cohort, synthesise_cohort
from ldae.phantom.population import PopulationConfig, anatomical_state, with_severity
from ldae.volume import read_volume


def test_more_severity_is_the_same_subject_with_more_disease() -> None:
    population = PopulationConfig()
    offsets = np.array([0.3, -0.2, 0.1, 0.4, -0.5, 0.2])
    moved = with_severity(anatomical_state(population, 72.0, 0.2, offsets), 0.6, population)
    expected = dataclasses.asdict(anatomical_state(population, 72.0, 0.8, offsets))
    assert dataclasses.asdict(moved) == pytest.approx(expected)


def test_cohort_holds_its_effect_where_disease_acts(tmp_path) -> None:
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


def test_subjects_who_change_little_can_be_left_out_and_keep_their_anatomy() -> None:
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
