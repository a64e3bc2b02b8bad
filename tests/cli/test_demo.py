"""The whole of `ldae demo`, and every command on the model that it leaves."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ldae.cli import main
from ldae.training.experiment import STAGES
from ldae.volume import read_volume

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*arguments):
    """The exit code of a command run in this process."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What the wheel holds, unpacked outside the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def quick(wheel, tmp_path_factory):
    """A quick demo, finished by the wheel outside the repository."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    script = (
        "import ldae; from ldae.config import shipped_configs; assert 'site' in ldae.__file__, ldae.__file__; "
        "assert 'site' in str(shipped_configs()); from ldae.prepare.imports.study.column_map import load_map, shipped_maps; "
        "assert 'site' in str(shipped_maps()); load_map('adni'); from ldae.cli import main; "
        f"main(['demo', '--quick', '--out', {str(out)!r}, '--device', 'cpu', '--precision', 'fp32'])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=out.parent,
        env={**os.environ, "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return out


def test_what_the_package_reads_is_in_the_wheel(wheel):
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ldae").rglob("*") if path.is_file()}
    packed = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    assert {name for name in kept if "__pycache__" not in name} <= packed


def test_demo_leaves_everything_it_promises(quick):
    results = json.loads((quick / "results.json").read_text())
    assert {"wall_seconds", "peak_memory_gib", "n_subjects", "n_scans", "n_test_subjects"} <= results.keys()
    assert {"ssim", "mse"} <= results["compression"].keys()
    reconstruct = {"steps", "ssim", "mse", "ssim_semantic_only", "mse_semantic_only"}
    assert reconstruct <= results["reconstruct"].keys()
    diagnosis, age = results["probe"]["diagnosis"], results["probe"]["age"]
    assert diagnosis["auc"]["low"] <= diagnosis["auc"]["value"] <= diagnosis["auc"]["high"]
    compared = {"random_encoder", "latent_pca", "true_volumes", "demographics"}
    assert compared == diagnosis["baselines"].keys() == diagnosis["differences"].keys()
    assert {"median", *compared} == age["baselines"].keys()
    steps = results["manipulate"]["steps"]
    assert len(steps) == len(results["manipulate"]["probability"]) == len(results["manipulate"]["ventricle_change_ml"])
    assert {"ldae", "ldae_residual", "voxel_linear", "copy_nearest", "ceiling"} <= results["interpolate"]["ssim"].keys()
    assert {"verdict", "share", "shuffled_share", "gap", "effective_rank", "active_dimensions"} <= results[
        "diagnose"
    ].keys()
    assert results["skipped"] == {}
    assert (quick / "report.html").stat().st_size > 10_000
    assert (quick / "model" / "model.safetensors").is_file()


def test_demo_again_says_that_all_is_done(quick, capsys):
    before = (quick / "results.json").read_text()
    assert run("demo", "--quick", "--out", quick, "--device", "cpu", "--precision", "fp32") == 0
    assert "all done already" in capsys.readouterr().out
    (quick / "results.json").rename(quick / "results.kept")
    try:
        assert run("demo", "--quick", "--out", quick, "--device", "cpu", "--precision", "fp32") == 0
        printed = capsys.readouterr()
        assert [f"{stage}: done already (" in printed.out for stage in STAGES] == [True] * 3
        assert "missing session, change error: " in printed.out
        assert "ceiling" in printed.out
        assert "train longer" not in printed.err
    finally:
        (quick / "results.kept").replace(quick / "results.json")
    assert (quick / "results.json").read_text() == before
    assert run("demo", "--quick", "--out", quick, "--seed", "9") == 2
    assert "give another --out" in capsys.readouterr().err


def test_commands_work_on_the_demos_model(quick, tmp_path, capsys):
    model, manifest = ("--model", quick / "model"), ("--manifest", quick / "manifest.tsv")
    fp32 = ("--device", "cpu", "--precision", "fp32")
    assert run("encode", *model, *manifest, "--out", tmp_path / "codes", "--noise", "--baselines", *fp32) == 0
    codes = tmp_path / "codes" / "codes.parquet"
    np.testing.assert_allclose(
        pd.read_parquet(codes).iloc[:, 2:], pd.read_parquet(quick / "codes.parquet").iloc[:, 2:], atol=1e-4
    )
    for target in ("diagnosis", "age"):
        assert run("probe", "--codes", codes, *manifest, "--target", target, "--out", tmp_path / "probe") == 0
    assert (tmp_path / "probe" / "report.html").is_file()
    crossed = ("--protocol", "cv", "--folds", "3", "--repeats", "1", "--scans", "first", "--volumes", "age")
    arguments = ("--target", "sex", *crossed, "--out", tmp_path / "sex")
    assert run("probe", "--codes", codes, *manifest, *arguments) == 0
    assert run("probe", "--codes", codes, *manifest, "--target", "colour", "--out", tmp_path / "none") == 2
    assert not (tmp_path / "none").exists()
    pca, other = f"pca={tmp_path / 'codes' / 'latent_pca.npz'}@5", f"again={codes}"
    assert (
        run("probe", "--codes", codes, *manifest, "--target", "age", "--out", tmp_path / "b", "--baseline", other, pca)
        == 0
    )
    assert run("probe", "--codes", codes, *manifest, "--target", "age", "--out", tmp_path / "b", "--baseline", "x") == 2
    assert run("reconstruct", *model, *manifest, "--split", "test", "--out", tmp_path / "rec", *fp32) == 0
    image = next((tmp_path / "rec").glob("*.nii.gz"))
    assert read_volume(image).data.max() > 0
    assert run("diagnose", *model, *manifest, "--split", "test", "--out", tmp_path / "diagnose", *fp32) == 0
    diagnosed, studied = (
        json.loads((folder / "diagnose.json").read_text()) for folder in (tmp_path / "diagnose", quick / "tasks")
    )
    assert diagnosed["use"]["gap"]["value"] == pytest.approx(studied["use"]["gap"]["value"], abs=1e-4)
    probe = tmp_path / "probe" / "probe_diagnosis_model.json"
    nuisance = tmp_path / "probe" / "probe_age_model.json"
    truth = ("--effect", quick / "cohort" / "phantom_effect.nii.gz", "--counterfactual", "0.5")
    arguments = ("--split", "test", "--probe", probe, "--nuisance", nuisance, "--steps", "-1", "1", *truth)
    assert run("manipulate", *model, *manifest, *arguments, "--out", tmp_path / "edits", *fp32) == 0
    edited = list((tmp_path / "edits").glob("*_desc-step+0_T1w.nii.gz"))
    found = json.loads((tmp_path / "edits" / "manipulate.json").read_text())
    assert {"direction", nuisance.stem} == found["findings"]["probe_slopes"].keys()
    assert -1 <= found["effect_correlation"]["phantom_effect.nii.gz"] <= 1
    rows = pd.read_csv(tmp_path / "edits" / "counterfactuals.tsv", sep="\t")
    assert len(rows) == len(edited) == len(list((tmp_path / "edits").glob("*_desc-counterfactual_T1w.nii.gz")))
    reached = rows["step"][rows["reached"]].abs()
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    printed = " ".join(shown.out.split())
    assert f"the probe reaches 0.5 in {len(reached)} of {len(rows)} scans" in printed
    assert len(reached) == len(rows) or f"the other {len(rows) - len(reached)} do not within 6 steps" in printed
    assert f"{len(edited) * 3} images ({len(edited)} scans at 3 steps)" in printed
    beyond = (rows["after"] >= 0.5) == (rows["step"] > 0)
    assert beyond[rows["reached"]].all()
    person = rows["participant_id"].iloc[0]
    alone = ("--subject", person, "--probe", probe, "--steps", "1")
    assert run("manipulate", *model, *manifest, *alone, "--out", tmp_path / "one", *fp32) == 0
    assert {path.name.split("_ses")[0] for path in (tmp_path / "one").glob("*.nii.gz")} == {person}
    assert "nearest to their own" not in capsys.readouterr().out
    assert run("interpolate", "evaluate", *model, *manifest, "--split", "all", "--out", tmp_path / "int", *fp32) == 0
    table = pd.read_csv(quick / "manifest.tsv", sep="\t")
    counts = table.groupby("participant_id")["months"].agg(["count", "min", "max"])
    subject = counts[counts["count"] > 1].index[0]
    middle = counts.loc[subject, ["min", "max"]].mean()
    arguments = ("--subject", subject, "--months", f"{middle}")
    assert run("interpolate", "subject", *model, *manifest, *arguments, "--out", tmp_path / "months", *fp32) == 0
    assert len(list((tmp_path / "months").glob("*.nii.gz"))) == 1
    assert (
        run("interpolate", "subject", *model, *manifest, "--subject", "nobody", "--months", "3", "--out", tmp_path) == 2
    )
    scan = quick / table["image"].iloc[0]
    assert run("sample", *model, "--count", "2", "--like", scan, "--out", tmp_path / "samples", *fp32) == 0
    assert len(list((tmp_path / "samples").glob("*.nii.gz"))) == 2
    few = ("--components", "2", "--decoder", "1", "--sparse", "8")
    assert run("discover", *model, *manifest, *few, "--out", tmp_path / "found", *fp32) == 0
    found = json.loads((tmp_path / "found" / "discover.json").read_text())
    assert [len(found["directions"][kind]) for kind in ("principal", "decoder")] == [2, 1]
    assert (tmp_path / "found" / "principal-01.png").stat().st_size > 10_000
    assert run("report", quick, "--out", tmp_path / "again.html") == 0
    assert "Traceback" not in capsys.readouterr().err


def test_study_of_a_model_that_is_there(quick, tmp_path, capsys):
    arguments = ("--model", quick / "model", "--manifest", quick / "manifest.tsv", "--out", tmp_path / "study")
    assert run("study", *arguments, "--device", "cpu", "--precision", "fp32") == 0
    study, demo = (json.loads((path / "results.json").read_text()) for path in (tmp_path / "study", quick))
    assert study["reconstruct"] == demo["reconstruct"]
    assert (tmp_path / "study" / "report.html").is_file()
