"""One run, fitted and studied once for all tests that need a trained model: to be read, never written to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ldae.metrics.statistics import subject_bootstrap
from ldae.tasks.code_usage import code_usage
from ldae.tasks.edit.evaluate import manipulate
from ldae.tasks.longitudinal.evaluate import evaluate_interpolation
from ldae.tasks.probe import learning_curve
from ldae.tasks.probe.result import ProbeSettings
from ldae.training.recipe import STAGES
from ldae.volume import Volume, write_volume
from tests.command_line import run
from tests.heads import textured_head, write_heads
from tests.shared_folder import SharedFolder

SUBJECTS = 15
FP32 = ("--device", "cpu", "--precision", "fp32")
SMALLEST = (
    "preprocessing={shape: [16, 24, 16], voxel_size_mm: 9.0, centre_mm: [0.0, -17.0, 5.0]}",
    "compression.model={channels: [4, 4, 8], latent_channels: 3, residual_blocks: 1, groups: 4}",
    "denoiser.model.width=8",
    "sampling.steps=2",
    *(f"{stage}.optimisation.steps=3" for stage in STAGES),
    *(f"{stage}.optimisation.validate_every=3" for stage in STAGES),
)


@pytest.fixture(scope="session")
def tiny_run(shared_folder: SharedFolder) -> Path:
    """The run folder of `ldae fit all` and `ldae study` on a cohort of textured heads, shared among workers."""
    return shared_folder("tiny_run", _make_run)


def _make_run(folder: Path) -> None:
    manifest, effect = _write_cohort(folder)
    quick = ("--config", "quick", "--manifest", manifest)
    assert run("fit", "all", *quick, "--out", folder, *FP32, "--set", *SMALLEST) == 0
    with few_resamples():
        trained = ("--model", folder / "model", "--manifest", manifest)
        assert run("study", *trained, "--effect", effect, "--out", folder, *FP32) == 0


@contextmanager
def few_resamples() -> Iterator[None]:
    """Fifty resamples and two draws in a study instead of 1000 and ten."""
    with pytest.MonkeyPatch.context() as patch:
        defaults = ProbeSettings.__init__.__defaults__
        few = tuple(50 if value == 1000 else value for value in defaults)
        patch.setattr(ProbeSettings.__init__, "__defaults__", few)
        for function in (subject_bootstrap, code_usage, manipulate, evaluate_interpolation):
            patch.setitem(function.__kwdefaults__, "resamples", 50)
        patch.setitem(learning_curve.learning_curve.__kwdefaults__, "draws", 2)
        yield


def assert_complete(folder: Path, *, baselines: set[str]) -> dict:
    """A run folder holds every result and the report; returns its results."""
    results = json.loads((folder / "results.json").read_text())
    assert results["skipped"] == {}
    tasks = {"compression", "reconstruct", "code_usage", "probe", "manipulate", "interpolate"}
    measured = {"wall_seconds", "peak_memory_gib", "n_subjects", "n_scans", "n_test_subjects"}
    assert tasks | measured <= results.keys()
    assert {"ssim", "mse"} <= results["compression"].keys()
    assert {"steps", "ssim", "mse", "ssim_semantic_only", "mse_semantic_only"} <= results["reconstruct"].keys()
    diagnosis, age, edits = results["probe"]["diagnosis"], results["probe"]["age"], results["manipulate"]
    assert diagnosis["auc"]["low"] <= diagnosis["auc"]["value"] <= diagnosis["auc"]["high"]
    assert baselines == diagnosis["baselines"].keys() == diagnosis["differences"].keys()
    assert {"median", *baselines} == age["baselines"].keys()
    assert len(edits["steps"]) == len(edits["probability"]) == len(edits["ventricle_change_ml"])
    assert {"ldae", "ldae_residual", "voxel_linear", "copy_nearest", "ceiling"} <= results["interpolate"]["ssim"].keys()
    usage = {"verdict", "share", "shuffled_share", "gap", "effective_rank", "active_dimensions"}
    assert usage <= results["code_usage"].keys()
    assert (folder / "report.html").stat().st_size > 10_000
    return results


def _write_cohort(folder: Path) -> tuple[Path, Path]:
    """Subjects with up to three visits each; some of every diagnosis in every split."""
    rows = []
    for subject in range(SUBJECTS):
        for visit in range((2, 1, 1, 2, 3)[subject % 5]):
            scan = (f"sub-{subject:02d}", f"ses-{visit}", f"images/{subject}_{visit}.nii.gz", 12.0 * visit)
            known = (60 + 7 * subject % 17 + visit, "FM"[(subject + subject // 5) % 2], ("CN", "AD")[subject // 5 % 2])
            split = ("train", "train", "validation", "test", "test")[subject % 5]
            rows.append((*scan, *known, split, 100 * subject + visit))
    head = textured_head(0)
    effect = write_volume(
        Volume(np.where(head.data > 0, -0.1, 0).astype(np.float32), head.affine), folder / "effect.nii.gz"
    )
    return write_heads(folder, rows, "participant_id session_id image months age sex diagnosis split"), effect
