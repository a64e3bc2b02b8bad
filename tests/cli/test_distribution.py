import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_works_outside_the_repository(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        ROOT,
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    out = tmp_path / "run"
    script = (
        "import ldae, sys; from ldae.config import shipped_configs; assert 'site' in ldae.__file__, ldae.__file__; "
        "assert 'site' in str(shipped_configs()); from ldae.cli import main; "
        f"main(['demo', '--quick', '--subjects', '12', '--out', {str(out)!r}])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert (out / "report.html").is_file()


def test_the_phantom_study_script_runs(tmp_path):
    environment = {
        **os.environ,
        "OUT": str(tmp_path / "study"),
        "SUBJECTS": "24",
        "VOXEL_SIZE": "6",
        "CONFIG": "quick",
        "DEVICE": "cpu",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    finished = subprocess.run(
        ["bash", str(ROOT / "scripts" / "phantom_study.sh")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    assert list((tmp_path / "study").rglob("report.html"))
