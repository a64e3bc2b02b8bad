"""The whole of `ldae demo`, by the wheel."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ldae import from_pretrained
from ldae.io.model_names import DEFAULT_MODEL
from ldae.training.experiment import STAGES
from tests.cli.test_tasks import WITHOUT_TRUTH
from tests.command_line import run
from tests.tiny_run import assert_complete

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


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
        "assert 'site' in str(shipped_configs()); from ldae.prepare.imports.study_map import load_map, shipped_maps; "
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
    assert_complete(quick, baselines={*WITHOUT_TRUTH, "true_volumes"})
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
        assert "Missing session" in printed.out  # a table wraps its cells
        assert "ceiling" in printed.out
        assert "train longer" not in printed.err
    finally:
        (quick / "results.kept").replace(quick / "results.json")
    assert (quick / "results.json").read_text() == before
    assert run("demo", "--quick", "--out", quick, "--seed", "9") == 2
    assert "--seed was 0, is 9" in capsys.readouterr().err


def test_demo_of_the_model_of_this_package(tmp_path):
    out = tmp_path / "run"
    assert run("demo", "--pretrained", "--subjects", "24", "--out", out, "--device", "cpu", "--precision", "fp32") == 0
    results = assert_complete(out, baselines={*WITHOUT_TRUTH, "latent_pca_symmetric", "true_volumes"})
    assert results["model"] == from_pretrained(DEFAULT_MODEL, device="cpu").fingerprint()
    assert not any((out / stage).exists() for stage in STAGES)


def test_study_of_a_model_that_is_there(quick, tmp_path, capsys):
    arguments = ("--model", quick / "model", "--manifest", quick / "manifest.tsv", "--out", tmp_path / "study")
    assert run("study", *arguments, "--device", "cpu", "--precision", "fp32") == 0
    study, demo = (json.loads((path / "results.json").read_text()) for path in (tmp_path / "study", quick))
    # Latents are compressed in batches of another size, which round otherwise.
    assert study["reconstruct"].keys() == demo["reconstruct"].keys()
    for name in ("ssim", "ssim_brain", "mse", "ssim_semantic_only", "ssim_semantic_mean", "round_trip_rms"):
        assert study["reconstruct"][name] == pytest.approx(demo["reconstruct"][name], rel=1e-5, abs=1e-6), name
    for name, interval in demo["reconstruct"]["intervals"].items():
        found = study["reconstruct"]["intervals"][name]
        assert found["reason"] == interval["reason"]
        ends = [end for end in ("value", "low", "high") if interval[end] is not None]
        assert [found[end] for end in ends] == pytest.approx([interval[end] for end in ends], rel=1e-5, abs=1e-6), name
    assert (tmp_path / "study" / "report.html").is_file()
    assert run("report", quick, "--out", tmp_path / "again.html") == 0
    assert (tmp_path / "again.html").is_file()
