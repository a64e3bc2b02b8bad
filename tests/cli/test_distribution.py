import os
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

from ldae.cli.main import build_parser

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
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ldae").rglob("*") if path.is_file()}
    packed = {
        path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()
    }
    assert {name for name in kept if "__pycache__" not in name} <= packed, "what the package reads is in the wheel"
    out = tmp_path / "run"
    script = (
        "import ldae, sys; from ldae.config import shipped_configs; assert 'site' in ldae.__file__, ldae.__file__; "
        "assert 'site' in str(shipped_configs()); from ldae.prepare.study_map import load_map, shipped_maps; "
        "assert 'site' in str(shipped_maps()); load_map('adni'); from ldae.cli import main; "
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


def test_every_line_of_the_phantom_study_is_a_command(tmp_path):
    recorder = tmp_path / "ldae"
    recorder.write_text(f'#!/bin/sh\nprintf "%s\\037" "$@" >> {tmp_path}/lines\necho >> {tmp_path}/lines\n')
    recorder.chmod(0o755)
    out = str(tmp_path / "study")
    environment = {
        **os.environ,
        "LDAE": str(recorder),
        "OUT": out,
        "SUBJECTS": "24",
        "VOXEL_SIZE": "6",
        "CONFIG": "quick",
    }
    subprocess.run(["bash", ROOT / "scripts" / "phantom_study.sh"], env=environment, check=True)
    lines = [line.removesuffix("\037").split("\037") for line in (tmp_path / "lines").read_text().splitlines()]
    parser, _ = build_parser()
    commands = [parser.parse_args(line).command for line in lines]
    assert commands[:4] == ["cohort", "cohort", "fit", "encode"]
    assert commands[-2:] == ["study", "report"]
    # What a line reads, a line before it wrote: `fit` and `encode` name files in their folder, the others the file itself.
    written = {Path(out) / "cohort"}
    for line in lines[1:]:
        given = {name: Path(value) for name, value in pairwise(line) if name.startswith("--")}
        read = [given[name] for name in ("--manifest", "--model", "--codes") if name in given]
        assert all(path in written or path.parent in written for path in read), line
        written |= {given["--out"]} if "--out" in given else set()
