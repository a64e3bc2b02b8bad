"""A tiny cohort and quick runs on it."""

import pytest

from ldae.config import load_experiment
from ldae.data.manifest import read_manifest
from ldae.training.cost import Cost
from ldae.training.experiment import STAGES, Experiment
from ldae.training.fit import FitSettings
from tests.heads import write_heads

OVERRIDES = [
    "preprocessing={shape: [16, 24, 16], voxel_size_mm: 10.0, centre_mm: [0.0, -17.0, 5.0]}",
    "compression.loss.perceptual.kind=spectral",
    "sampling.steps=3",
    *[f"{stage}.optimisation.steps=8" for stage in STAGES],
    *[f"{stage}.optimisation.checkpoint_every=2" for stage in STAGES],
    *[f"{stage}.optimisation.validate_every=4" for stage in STAGES],
    "denoiser.model.dropout=0.2",
]


@pytest.fixture
def overrides():
    """What makes the quick configuration quicker still."""
    return OVERRIDES


@pytest.fixture
def cohort(tmp_path):
    """Six subjects, one of them for validation and one for testing."""
    splits = ["train"] * 4 + ["validation", "test"]
    rows = [(f"sub-{seed}", "ses-1", f"{seed}.nii.gz", split, seed) for seed, split in enumerate(splits)]
    return read_manifest(write_heads(tmp_path, rows, "participant_id session_id image split"))


@pytest.fixture
def uncounted(monkeypatch):
    """No step is counted before training: that takes as long as the few steps themselves."""
    monkeypatch.setattr("ldae.training.plan.count_step", lambda *_: Cost(10**9, 0.1, 0.01))


@pytest.fixture
def fit():
    """Trains the quick configuration: (manifest, run folder, overrides, settings) to experiment and records."""
    return fit_quickly


def fit_quickly(manifest, run, *overrides, until="representation", **settings):
    experiment = Experiment(
        load_experiment("quick", [*OVERRIDES, *overrides]),
        manifest,
        FitSettings(run, device="cpu", precision="fp32", **settings),
    )
    return experiment, experiment.fit(until)
