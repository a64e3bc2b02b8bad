"""One run, fitted and studied once for all tests that need a trained model: to be read, never written to."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ldae.cli import main
from ldae.data.manifest import write_manifest
from ldae.tasks.probe import learning_curve
from ldae.tasks.probe.result import ProbeSettings
from ldae.training.experiment import STAGES
from ldae.volume import Volume, write_volume
from tests.heads import textured_head
from tests.shared_folder import SharedFolder

SUBJECTS = 18
FP32 = ("--device", "cpu", "--precision", "fp32")
SMALLEST = (
    "preprocessing={shape: [24, 32, 24], voxel_size_mm: 6.0, centre_mm: [0.0, -17.0, 5.0]}",
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


def _make_run(run: Path) -> None:
    manifest, effect = _write_cohort(run)
    _call("fit", "all", "--config", "quick", "--manifest", manifest, "--out", run, *FP32, "--set", *SMALLEST)
    with pytest.MonkeyPatch.context() as patch:
        # A hundred resamples and two draws instead of 1000 and ten.
        defaults = ProbeSettings.__init__.__defaults__
        few = tuple(100 if value == 1000 else value for value in defaults)
        patch.setattr(ProbeSettings.__init__, "__defaults__", few)
        patch.setitem(learning_curve.learning_curve.__kwdefaults__, "draws", 2)
        _call("study", "--model", run / "model", "--manifest", manifest, "--effect", effect, "--out", run, *FP32)


def assert_complete(run: Path, *, baselines: set[str]) -> dict:
    """A run folder holds every result and the report; returns its results."""
    results = json.loads((run / "results.json").read_text())
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
    assert (run / "report.html").stat().st_size > 10_000
    return results


def _call(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 0


def _write_cohort(run: Path) -> tuple[Path, Path]:
    """Subjects with up to three visits each; some of every diagnosis in every split."""
    rows = []
    for subject in range(SUBJECTS):
        for visit in range((2, 2, 1, 1, 2, 3)[subject % 6]):
            image = run / "images" / f"{subject}_{visit}.nii.gz"
            write_volume(textured_head(100 * subject + visit), image)
            rows.append(
                {
                    "participant_id": f"sub-{subject:02d}",
                    "session_id": f"ses-{visit}",
                    "image": image.relative_to(run).as_posix(),
                    "age": 60 + 7 * subject % 17 + visit,
                    "sex": "FM"[(subject + subject // 6) % 2],
                    "diagnosis": ("CN", "AD")[subject // 6 % 2],
                    "months": 12.0 * visit,
                    "split": ("train", "train", "train", "validation", "test", "test")[subject % 6],
                }
            )
    head = textured_head(0)
    effect = write_volume(
        Volume(np.where(head.data > 0, -0.1, 0).astype(np.float32), head.affine), run / "effect.nii.gz"
    )
    return write_manifest(pd.DataFrame(rows), run / "manifest.tsv"), effect
