"""A cohort encoded in parts, as on the nodes of a cluster."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path
from unittest.mock import ANY

import pytest

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.launch import launch
from tests.command_line import run
from tests.heads import write_heads
from tests.tiny_run import FP32

ROOT = Path(__file__).parents[2]
# Runs the tasks of an array in turn, as SLURM runs them at once; which of them come before others, it does not check.
SBATCH = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do
    [[ "$1" == --array=* ]] && array="${1#--array=}"
    shift
done
: "${array:=$(sed -n 's/^#SBATCH --array=//p' "$1")}"
count="${array#1-}"
for task in $(seq "$count"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$count bash "$@" >&2 || failed=1
done
echo 7
exit "${failed:-0}"
"""


@pytest.fixture
def cohort(tiny_model, tmp_path):
    """Arguments of `encode` for six scans and a tiny model."""
    rows = [(f"sub-{i}", "ses-1", f"{i}.nii.gz", i) for i in range(6)]
    manifest = write_heads(tmp_path, rows, "participant_id session_id image")
    model = tiny_model.save_pretrained(tmp_path / "model")
    return (manifest, "--model", model, "--batch-size", "1", "--device", "cpu", "--precision", "fp32")


def contents(folder):
    return {
        path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"
    }


def test_parts_are_put_together_by_the_command_without_them(cohort, tmp_path, capsys):
    assert run("encode", *cohort, "--out", tmp_path / "whole") == 0
    for part in ("2/4", "1/4", "3/4"):
        assert run("encode", *cohort, "--out", tmp_path / "out", "--part", part) == 0
    assert "the same command without --part writes the table" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".encoding"]
    kept = sorted((tmp_path / "out" / ".encoding" / "codes").iterdir())
    assert len(kept) == 5, "the part of nobody is left to the last call"
    assert run("encode", *cohort, "--out", tmp_path / "out") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    image = tmp_path / "0.nii.gz"
    for given in (["--part", "0/4"], ["--part", "5/4"], ["--part", "half"], ["--part", "1/4", "--slices"]):
        assert run("encode", *cohort, "--out", tmp_path / "out", *given) == 2
    assert run("encode", image, *cohort[1:], "--out", tmp_path / "out", "--part", "1/2") == 2
    assert "takes a manifest" in capsys.readouterr().err


@pytest.mark.slow
def test_devices_share_the_scans_of_a_manifest(cohort, tmp_path, capfd):
    whole, shared = (("encode", *cohort, "--noise", "--out", tmp_path / name) for name in ("whole", "shared"))
    assert run(*whole) == 0
    assert run(*shared, "--devices", "2") == 0
    assert "codes of 6 scans" in capfd.readouterr().out
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")
    noise = [(tmp_path / name / "noise.safetensors").read_bytes() for name in ("whole", "shared")]
    assert noise[0] == noise[1]
    image = tmp_path / "0.nii.gz"
    assert run("encode", image, *cohort[1:], "--out", tmp_path / "image", "--devices", "2") == 2
    assert "--devices 2: takes a manifest" in capfd.readouterr().err


@pytest.mark.slow
def test_devices_share_samples(cohort, tmp_path, capfd):
    words = ("sample", *cohort[1:], "--count", "3")
    for devices in (1, 2):
        assert run(*words, "--devices", devices, "--out", tmp_path / str(devices), "--json") == 0
        told = json.loads(capfd.readouterr().out)
        assert [each for each in told["messages"] if "3 images in" in each], "told once, by the first"
        assert told["files"] == {"folder": str(tmp_path / str(devices))}
    assert len(list((tmp_path / "1").rglob("*_T1w.nii.gz"))) == 3
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.slow
def test_devices_share_a_study(tiny_run, tmp_path, monkeypatch):
    def launch_few(command, processes):
        return launch([sys.executable, "-m", "tests.few_resamples", *command[3:]], processes)

    monkeypatch.setattr(sys.modules["ldae.cli.main"], "launch", launch_few)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums over another number of threads are rounded otherwise
    words = ("study", tiny_run / "manifest.tsv", "--model", tiny_run / "model", *FP32, "--out")
    assert launch_few(["python", "-m", "ldae", *map(str, words), str(tmp_path / "1")], 1) == 0
    assert run(*words, tmp_path / "2", "--devices", "2") == 0
    one, two = (sorted((tmp_path / name / "tasks").iterdir()) for name in "12")
    for first, second in zip((*one, tmp_path / "1/codes.parquet"), (*two, tmp_path / "2/codes.parquet"), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in "12"]
    measured = {"wall_seconds": ANY, "peak_memory_gib": ANY}
    assert results[0] | measured == results[1] | measured


@pytest.mark.slow
def test_the_slurm_script_gives_what_one_machine_gives(cohort, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {"sbatch": SBATCH, "ldae": f'#!/bin/sh\nexec "{sys.executable}" -m ldae "$@"\n'}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = ["scripts/slurm_parts.sh", "encode", *map(str, cohort), "--noise", "--out", str(tmp_path / "far")]

    def submit(*options: str) -> str:
        command = ["sbatch", "--parsable", *options, *words]
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout

    job = submit("--array=1-3")
    assert not (tmp_path / "far" / "codes.parquet").exists()
    submit("--array=1", f"--dependency=afterany:{job.strip()}")
    assert run("encode", *cohort, "--noise", "--out", tmp_path / "near") == 0
    for name in ("codes.parquet", "encode.json", "noise.safetensors"):
        assert (tmp_path / "far" / name).read_bytes() == (tmp_path / "near" / name).read_bytes(), name


@pytest.mark.slow
def test_a_killed_worker_costs_its_scan_and_the_same_command_completes(cohort, tmp_path, capsys):
    images = sorted(tmp_path.glob("*.nii.gz"))

    def encode(name, workers):
        return run("encode", *images, *cohort[1:], "--out", tmp_path / name, "--workers", workers)

    def kill_one():
        while not (children := active_children()):
            time.sleep(0.05)
        os.kill(children[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert encode("killed", 2) == 1
    killer.join()
    said = " ".join(capsys.readouterr().out.split())
    assert "left out" in said
    assert "its process ended" in said
    assert "use fewer --workers" in said
    assert [encode("killed", 2), encode("alone", 1)] == [0, 0]
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


def test_the_last_call_finds_all_that_the_parts_did(cohort, tmp_path, monkeypatch):
    options = ("encode", *cohort, "--noise", "--round-trip", "--out", tmp_path / "out")
    for part in ("1/2", "2/2"):
        assert run(*options, "--part", part) == 0
    monkeypatch.setattr(LatentDiffusionAutoencoder, "with_noise", None)
    monkeypatch.setattr(LatentDiffusionAutoencoder, "encode_prepared", None)
    assert run(*options) == 0


def test_a_device_takes_a_part_of_a_part(cohort, tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    taken = []
    monkeypatch.setattr("ldae.tasks.encode.encode_part", lambda *given, **_: taken.append(given[3]) or {})
    assert run("encode", *cohort, "--out", tmp_path / "out") == 2, "torchrun"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "ldae")
    assert run("encode", *cohort, "--out", tmp_path / "out", "--part", "1/10") == 0
    assert taken == [(11, 20)]
