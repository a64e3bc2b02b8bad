"""Kill commands at random moments (SIGKILL), run them again, and compare what they leave with an undisturbed run.

    python benchmarks/reliability/kill.py WORK --points 20 --out benchmarks/results/kill.json

For each command one undisturbed run tells how long it takes and what it leaves. Then, so many times: the command starts in a new
place, its process group is killed at a random moment of that time, and the same command runs again to its end. It passes if that
run ends with exit code 0, leaves the same results (models, codes, images, metrics; not times), and no temporary file. `twice_s`
is what was spent twice: both runs minus the undisturbed one. It holds the second start of the program, some ten seconds.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from ldae.base.files import write_json

VOLATILE = ("wall_seconds", "peak_memory_gib", "seconds", "peak_gib", "memory_gib", "plan", "inputs", "path", "created")
OF_ONE_RUN = ("clock.json", "inputs.json", "record.json")
LEFT_BEHIND = (".writing-*", ".*-writing", ".*-former", "*.partial*")


def arguments(command: str, work: Path, out: Path) -> list[str]:
    """The command line of each command."""
    model, manifest = work / "base" / "model", work / "base" / "manifest.tsv"
    return {
        "demo --quick": ["demo", "--quick", "--out", out],
        "fit all": ["fit", "all", "--config", "quick", "--manifest", manifest, "--out", out],
        "cohort preprocess": ["cohort", "preprocess", work / "raw" / "manifest.tsv", "--out", out, "--voxel-size", "3"],
        "encode": ["encode", manifest, "--model", model, "--out", out, "--noise"],
        "study": ["study", "--model", model, "--manifest", manifest, "--out", out],
    }[command]


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process group of its own."""
    line = [sys.executable, "-m", "ldae", *map(str, words)]
    with log.open("ab") as output:
        return subprocess.Popen(line, stdout=output, stderr=output, start_new_session=True)


def content(out: Path) -> dict[str, object]:
    """What a run left, without times: files by name, their content as arrays or plain values."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if name.startswith("cache") or not path.is_file() or path.name in OF_ONE_RUN:
            continue
        if path.suffix == ".safetensors":
            found[name] = load_file(path)
        elif path.suffix == ".parquet":
            found[name] = {key: np.asarray(value) for key, value in pd.read_parquet(path).items()}
        elif path.name.endswith(".nii.gz"):
            found[name] = {"data": np.asarray(nibabel.load(path).dataobj)}
        elif path.suffix == ".npz":
            found[name] = dict(np.load(path))
        elif path.suffix == ".tsv":
            found[name] = path.read_text()
        elif path.suffix == ".json":
            found[name] = stable(json.loads(path.read_text()))
    return found


def stable(value: object) -> object:
    """Plain values without times."""
    if isinstance(value, dict):
        return {key: stable(each) for key, each in value.items() if key not in VOLATILE}
    return [stable(each) for each in value] if isinstance(value, list) else value


def differences(first: object, second: object, where: str = "") -> list[str]:
    """Places where two contents differ by more than rounding."""
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return [f"{where}: {sorted(map(str, first.keys() ^ second.keys()))[:3]}"]
        return [line for key in first for line in differences(first[key], second[key], f"{where}/{key}")]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [
            line
            for i, pair in enumerate(zip(first, second, strict=True))
            for line in differences(*pair, f"{where}/{i}")
        ]
    if isinstance(first, np.ndarray) and first.dtype.kind == "f":
        return (
            []
            if first.shape == second.shape and np.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True)
            else [where]
        )
    if isinstance(first, np.ndarray):
        return [] if np.array_equal(first, second) else [where]
    if isinstance(first, float) and isinstance(second, float):
        return [] if np.isclose(first, second, rtol=1e-4, atol=1e-5) else [f"{where}: {first} {second}"]
    return [] if first == second else [f"{where}: {first} {second}"]


def trial(command: str, work: Path, moment: float, whole: float, expected: dict[str, object]) -> dict[str, object]:
    """Kill a command at a moment, run it again, and compare."""
    out, log = work / "trial", work / "trial.log"
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)
    process, killed = start(arguments(command, work, out), log), False
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        killed = True
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    begun = time.monotonic()
    code = start(arguments(command, work, out), log).wait()
    again = time.monotonic() - begun
    wrong = differences(expected, content(out)) if code == 0 else [log.read_text()[-300:]]
    left = [path.name for pattern in LEFT_BEHIND for path in out.rglob(pattern)]
    return {
        "killed": killed,
        "at_s": round(moment, 1),
        "twice_s": round(moment + again - whole, 1),
        "code": code,
        "wrong": wrong[:5],
        "left": left,
    }


def main() -> None:
    """Print a line for each kill, and exit with 1 if any went wrong."""
    commands = ("demo --quick", "fit all", "cohort preprocess", "encode", "study")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for what is made; a base that is there is used again")
    parser.add_argument("--points", type=int, default=20, help="kills of each command (default: 20)")
    parser.add_argument("--only", choices=commands, help="one command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    work, base = options.work, options.work / "base"
    work.mkdir(parents=True, exist_ok=True)
    if not (base / "results.json").is_file():
        assert start(["demo", "--quick", "--out", base], work / "base.log").wait() == 0, work / "base.log"
    if not (work / "raw" / "manifest.tsv").is_file():
        raw = ["cohort", "synth", "--raw", "--subjects", "2", "--max-sessions", "1", "--voxel-size", "3", "--out"]
        assert start([*raw, work / "raw"], work / "base.log").wait() == 0, work / "base.log"
    rng = np.random.default_rng(options.seed)
    results: dict[str, object] = {}
    failed = 0
    for command in commands if options.only is None else (options.only,):
        out = work / "undisturbed"
        shutil.rmtree(out, ignore_errors=True)
        begun = time.monotonic()
        assert start(arguments(command, work, out), work / "base.log").wait() == 0, work / "base.log"
        whole, expected = time.monotonic() - begun, content(out)
        assert expected, out
        trials = []
        for moment in rng.uniform(0.05, 1.0, options.points) * whole:
            trials.append(trial(command, work, float(moment), whole, expected))
            bad = bool(trials[-1]["code"] or trials[-1]["wrong"] or trials[-1]["left"])
            failed += bad
            print(f"{command}: {'FAILED' if bad else 'passed'} {trials[-1]}", flush=True)
        results[command] = {"undisturbed_s": round(whole, 1), "files": len(expected), "trials": trials}
        print(f"{command}: {whole:.0f} s undisturbed, {len(trials)} kills", flush=True)
    if options.out:
        write_json(options.out, results)
    print(f"{failed} of {options.points * len(results)} went wrong")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
