"""The Dockerfile, without docker: it copies files that exist, and its RUN steps work on those files alone."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Instructions and their arguments, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def copied() -> list[tuple[str, str]]:
    return [
        (source, target)
        for name, rest in instructions()
        if name == "COPY"
        for *sources, target in [rest.split()]
        for source in sources
    ]


def test_it_copies_files_that_exist_and_that_docker_is_shown() -> None:
    steps = instructions()
    assert {name for name, _ in steps} == {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENTRYPOINT"}
    assert steps[-1] == ("ENTRYPOINT", '["ldae"]')
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    for source, _ in copied():
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in shown, source
    arguments = {name for kind, rest in steps if kind == "ARG" for name in [rest.partition("=")[0]]}
    used = {name for kind, rest in steps if kind == "RUN" for name in re.findall(r"\$([A-Z_]+)", rest)}
    assert used == arguments


@pytest.mark.slow
def test_its_run_steps_install_a_command_from_what_it_copies(tmp_path: Path) -> None:
    root, programs, site = tmp_path / "root", tmp_path / "bin", tmp_path / "site"
    programs.mkdir()
    for source, target in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, root / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            root.mkdir(exist_ok=True)
            shutil.copy(ROOT / source, root)
    python, place = shlex.quote(sys.executable), shlex.quote(str(site))
    # pip without the packages of others, which are here already.
    scripts = {
        "pip": f'echo "$@" >> {shlex.quote(str(tmp_path))}/calls; case "$*" in *" ."*) exec {python} -m pip install -q '
        f"--no-deps --no-build-isolation --target {place} . ;; esac",
        "ldae": f"cd / && PYTHONPATH={place} exec {python} -m ldae",
    }
    for name, script in scripts.items():
        extra = ' "$@"' if name == "ldae" else ""
        (programs / name).write_text(f"#!/bin/sh\n{script}{extra}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "TORCH_INDEX": "INDEX"}
    for script in (rest for name, rest in instructions() if name == "RUN"):
        subprocess.run(["sh", "-ec", script], cwd=root, env=environment, check=True, timeout=600)
    first, second = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert re.search(r" torch==\d+\.\d+\.\d+ --index-url INDEX$", first)
    assert second.endswith(".[dicom,excel] -c constraints.txt")
    for path in ("configs/quick.yaml", "maps/adni.yaml", "weights/ldae-t1-3mm/model.safetensors"):
        assert (site / "ldae" / path).is_file(), path
