"""The first check of a GPU: what works, how exact it is, how fast, and how near the plan. Parts end on their own and fail alone.

    python benchmarks/gpu_check.py [--out runs/gpu] [--device auto] [--tiny] [--parts tests parity training inference demo]

Each part runs in a process of its own with a time limit and prints as it goes. Writes OUT/check.json and OUT/check.md. `--tiny`
takes the networks of `quick` instead of those of `paper`, to rehearse on a CPU.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from compiled import passes

from ldae.base.hardware import GIB, autocast, choose_device, choose_precision, release_memory
from ldae.config import load_experiment
from ldae.errors import ConfigError
from ldae.networks import Networks
from ldae.training.compression import PerceptualConfig
from ldae.training.cost import CARDS, count_step, measure_step
from ldae.training.plan import Place, plan_stage
from ldae.training.recipe import STAGES, build_stage, scan_shapes

SECONDS = {"parity": 90, "training": 150, "tests": 90, "inference": 120, "demo": 150}
"""Time limit of each part, in the order in which they run: ten minutes in all."""
ROOT = Path(__file__).parents[1]
LIMITS = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest relative difference from the CPU in fp32."""


def parity(device: torch.device, config: str) -> list[dict[str, Any]]:
    """Each network on the device against the CPU in fp32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    here, there = passes(config, 1, torch.device("cpu")), passes(config, 1, device)
    rows = []
    with torch.no_grad():
        for name, (function, inputs) in here.items():
            expected = function(*inputs).double()
            for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                other, given = there[name]
                with autocast(device, dtype):
                    found = other(*given).double().cpu()
                error = float((found - expected).norm() / expected.norm())
                rows.append(
                    {"network": name, "precision": precision, "error": error, "passed": error <= LIMITS[precision]}
                )
                print(rows[-1], flush=True)
    return rows


def training(device: torch.device, config: str) -> list[dict[str, Any]]:
    """One step of each stage with as many scans as fit: speed, share of the card's stated speed, memory against the plan."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    card = next((each for key, each in CARDS.items() if key in name.lower()), None)
    dtype = choose_precision("auto", device)
    experiment = load_experiment(config)
    # Its weights cannot be had without a network.
    loss = replace(experiment.compression.loss, perceptual=PerceptualConfig())
    experiment = replace(experiment, compression=replace(experiment.compression, loss=loss))
    rows = []
    for stage_name in STAGES:
        release_memory()
        stage = build_stage(stage_name, experiment, Networks(experiment.autoencoder))
        shapes = scan_shapes(experiment, stage)
        plan = plan_stage(stage_name, stage, shapes, (0, 0), Place(device, dtype, card=card))
        scans = plan.at_once
        if device.type == "cuda":
            room = torch.cuda.get_device_properties(device).total_memory / GIB * 0.9
            stage.optimisation = replace(stage.optimisation, accumulate=scans)
            one = plan_stage(stage_name, stage, shapes, (0, 0), Place(device, dtype, card=card)).memory_gib
            slope = max((plan.memory_gib - one) / max(scans - 1, 1), 1e-6)
            scans = max(1, min(scans, int((room - one) / slope) + 1))
            planned = one + slope * (scans - 1)
        else:
            planned = plan.memory_gib
        while True:
            try:
                seconds, memory = measure_step(stage, shapes, device, dtype, scans)
                break
            except ConfigError:
                if scans == 1:
                    raise
                scans //= 2
        flops = count_step(stage, shapes, dtype, scans).flops
        row = {
            "stage": stage_name,
            "scans_at_once": scans,
            "seconds": seconds,
            "scans_per_second": scans / seconds,
            "tera_flops": flops / seconds / 1e12,
            "share_of_stated_speed": None if card is None else flops / seconds / 1e12 / card.tera,
            "memory_gib": memory,
            "planned_gib": planned,
        }
        rows.append(row)
        print(row, flush=True)
        del stage
    return rows


def run(*words: str) -> float:
    """Seconds of a command, which must go well."""
    start = time.perf_counter()
    subprocess.run(words, cwd=ROOT, check=True)
    return time.perf_counter() - start


def do(part: str, options: argparse.Namespace) -> Any:
    """The result of a part, in this process."""
    device, config = choose_device(options.device), "quick" if options.tiny else "paper"
    if part == "parity":
        return parity(device, config)
    if part == "training":
        return training(device, config)
    python = sys.executable
    if part == "tests":
        return {"seconds": run(python, "-m", "pytest", "-m", "gpu", "-q", "tests")}
    if part == "demo":
        words = ("demo", "--quick", "--out", str(options.out / "demo"), "--device", device.type)
        return {"seconds": run(python, "-m", "ldae", *words)}
    record = options.out / "throughput.json"
    config, voxels = ("phantom_5mm", "demo_voxel") if options.tiny else ("paper", "paper_voxel")
    few = ("--batch", "1", "--repeats", "1", "--baseline-batch", "1", "--baseline-steps", "2") if options.tiny else ()
    most = () if options.tiny else ("--batch", "8", "--repeats", "3", "--baseline-batch", "2")
    words = ("--untrained", "--no-scaling", "--config", config, "--baseline", voxels, *few, *most)
    run(python, "benchmarks/throughput.py", "--device", device.type, *words, "--out", str(record))
    found = json.loads(record.read_text(encoding="utf-8"))
    return {name: found[name] for name in ("ratio_at_default", "ratio_at_equal_steps", "ours", "voxel_space")}


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [f"# {found['device']}, torch {found['torch']}", "", "| part | result | seconds |", "|---|---|---|"]
    for part, each in found["parts"].items():
        lines.append(f"| {part} | {each['outcome']} | {each['seconds']:.0f} |")
    for part in ("parity", "training"):
        rows = found["parts"].get(part, {}).get("result") or []
        if rows:
            lines += ["", f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
        for row in rows:
            cells = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row.values())
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the parts, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--tiny", action="store_true", help="small networks, to rehearse")
    parser.add_argument("--parts", nargs="+", choices=list(SECONDS), default=list(SECONDS))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.here:
        (part,) = options.parts
        (options.out / f"{part}.json").write_text(json.dumps(do(part, options)), encoding="utf-8")
        return 0
    device = choose_device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "tiny": options.tiny, "parts": {}}
    for part in options.parts:
        print(f"== {part}, at most {SECONDS[part]} s", flush=True)
        start, file = time.perf_counter(), options.out / f"{part}.json"
        file.unlink(missing_ok=True)
        words = [
            sys.executable,
            __file__,
            "--here",
            "--parts",
            part,
            "--out",
            str(options.out),
            "--device",
            device.type,
        ]
        process = subprocess.Popen([*words, *(["--tiny"] if options.tiny else [])], start_new_session=True)
        try:
            code = process.wait(SECONDS[part])
            outcome = "passed" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started
            process.wait()
            outcome = "took too long"
        result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if part == "parity" and result and not all(row["passed"] for row in result):
            outcome = "differs from the CPU"
        found["parts"][part] = {"outcome": outcome, "seconds": time.perf_counter() - start, "result": result}
        (options.out / "check.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        (options.out / "check.md").write_text(table(found), encoding="utf-8")
    print((options.out / "check.md").read_text(encoding="utf-8"))
    return 0 if all(each["outcome"] == "passed" for each in found["parts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
