"""Solvers compared on a trained model: network evaluations against what is lost on the way there and back.

    python benchmarks/solvers.py --model runs/demo/model --manifest runs/demo/manifest.tsv [--scans 12] [--out FILE.json]

For test scans, one a subject: the rms error of the latent after inversion and sampling, the SSIM of the decoded image against
the real scan beside the compression ceiling, and how far an edit (every scan decoded under the code of another subject) is
from the edit that a fine reference makes. The rivals of BDIA (direct inversion,
Heun, DPM-Solver++, EDICT, BELM) live in this file only.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder, SamplingConfig
from ldae.data.manifest import read_manifest
from ldae.diffusion import Estimate, NoiseSchedule, Predict, invert_latents, sample_latents
from ldae.diffusion.ddim import filled
from ldae.metrics.images import compare_images
from ldae.networks import semantic_predict
from ldae.tasks.encode import encode_scans

State = tuple[Tensor, Tensor | None]
Walk = tuple[str, Callable[[Predict, Tensor], State], Callable[[Predict, Tensor, Tensor | None], Tensor]]

MIXING = 0.93
# Beyond so many steps only the cheap ones are compared.
MANY = 20


def edict(schedule: NoiseSchedule, steps: int) -> Walk:
    """Two coupled DDIM chains (Wallace et al. 2023); the second one's end is kept as the record."""
    grid = schedule.time_grid(steps)

    def factors(z: Tensor, t_from: int, t_to: int) -> tuple[Tensor, Tensor]:
        signal, sigma = schedule.signal_and_noise(filled(t_from, z), z.ndim)
        signal_to, sigma_to = schedule.signal_and_noise(filled(t_to, z), z.ndim)
        return signal_to / signal, sigma_to - signal_to / signal * sigma

    def invert(predict: Predict, z_0: Tensor) -> State:
        x = y = z_0
        for t_to, t_from in itertools.pairwise(grid):
            a, b = factors(z_0, t_from, t_to)
            y_inner = (y - (1 - MIXING) * x) / MIXING
            x_inner = (x - (1 - MIXING) * y_inner) / MIXING
            y = (y_inner - b * predict(x_inner, filled(t_from, z_0)).noise) / a
            x = (x_inner - b * predict(y, filled(t_from, z_0)).noise) / a
        return x, y - x

    def sample(predict: Predict, z_T: Tensor, record: Tensor | None) -> Tensor:
        x, y = z_T, z_T if record is None else z_T + record
        for t_from, t_to in zip(reversed(grid[1:]), reversed(grid[:-1]), strict=True):
            a, b = factors(z_T, t_from, t_to)
            x_inner = a * x + b * predict(y, filled(t_from, z_T)).noise
            y_inner = a * y + b * predict(x_inner, filled(t_from, z_T)).noise
            x = MIXING * x_inner + (1 - MIXING) * y_inner
            y = MIXING * y_inner + (1 - MIXING) * x
        return x

    return f"EDICT, {steps} steps", invert, sample


def belm(schedule: NoiseSchedule, steps: int) -> Walk:
    """Bidirectional explicit linear multistep, the variance-optimal two-step one (Wang et al. 2024)."""
    grid = schedule.time_grid(steps)

    def factors(index: int) -> tuple[float, float, float]:
        signals = [float(schedule.signal[grid[i]].double()) for i in (index - 1, index, index + 1)]
        ratios = [
            float(schedule.sigma[grid[i]].double()) / s
            for i, s in zip((index - 1, index, index + 1), signals, strict=True)
        ]
        h, former = ratios[0] - ratios[1], ratios[1] - ratios[2]
        return (
            signals[0] / signals[2] * h**2 / former**2,
            signals[0] / signals[1] * (former**2 - h**2) / former**2,
            signals[0] * h * (h + former) / former,
        )

    def start(predict: Predict, z: Tensor, t_from: int, t_to: int) -> Tensor:
        return predict(z, filled(t_from, z)).at(filled(t_to, z), schedule)

    def invert(predict: Predict, z_0: Tensor) -> State:
        below, here = z_0, start(predict, z_0, grid[0], grid[1])
        for index in range(1, steps):
            far, near, noise = factors(index)
            above = (below - near * here - noise * predict(here, filled(grid[index], z_0)).noise) / far
            below, here = here, above
        return here, below - start(predict, here, grid[-1], grid[-2])

    def sample(predict: Predict, z_T: Tensor, record: Tensor | None) -> Tensor:
        above, here = z_T, start(predict, z_T, grid[-1], grid[-2])
        here = here if record is None else here + record
        for index in range(steps - 1, 0, -1):
            far, near, noise = factors(index)
            below = far * above + near * here + noise * predict(here, filled(grid[index], z_T)).noise
            above, here = here, below
        return here

    return f"BELM, {steps} steps", invert, sample


def miss_gain(schedule: NoiseSchedule, low: int, high: int) -> float:
    """Movement of the noisier latent for a miss of 1 at the cleaner one."""
    a, b = schedule.signal, schedule.sigma
    return float(a[low] * a[high] + b[low] * b[high]) if schedule.variance_preserving else 1.0


def direct(schedule: NoiseSchedule, steps: int, corrections: int = 0) -> Walk:
    """DDIM with its miss at every step recorded (Ju et al. 2024, direct inversion)."""
    grid = schedule.time_grid(steps)

    def invert(predict: Predict, z_0: Tensor) -> State:
        z, estimate, record = z_0, predict(z_0, filled(grid[0], z_0)), []
        for low, high in itertools.pairwise(grid):
            here, there = filled(low, z), filled(high, z)
            found = estimate.at(there, schedule)
            estimate = predict(found, there)
            for _ in range(corrections):
                found = found + miss_gain(schedule, low, high) * (z - estimate.at(here, schedule))
                estimate = predict(found, there)
            record.append(z - estimate.at(here, schedule))
            z = found
        return z, torch.stack(record[::-1])

    def sample(predict: Predict, z_T: Tensor, record: Tensor | None) -> Tensor:
        z = z_T
        for step, (high, low) in enumerate(itertools.pairwise(reversed(grid))):
            z = predict(z, filled(high, z)).at(filled(low, z), schedule)
            z = z if record is None else z + record[step]
        return z

    return f"direct, {steps} steps", invert, sample


def heun(schedule: NoiseSchedule, steps: int, corrections: int = 1) -> Walk:
    """Heun's method in z / a over b / a (Karras et al. 2022, algorithm 1), inverted by fixed points."""
    grid = schedule.time_grid(steps)

    def step(predict: Predict, z: Tensor, start: int, stop: int) -> Tensor:
        here, there = filled(start, z), filled(stop, z)
        first = predict(z, here)
        end = first.at(there, schedule)
        if not bool(schedule.signal[start] > 0):
            return end
        second = predict(end, there)
        (a, b), (a_here, b_here) = (schedule.signal_and_noise(t, z.ndim) for t in (there, here))
        return end + 0.5 * (b - a * b_here / a_here) * (second.noise - first.noise)

    def invert(predict: Predict, z_0: Tensor) -> State:
        z = z_0
        for low, high in itertools.pairwise(grid):
            found = step(predict, z, low, high)
            for _ in range(corrections):
                found = found + miss_gain(schedule, low, high) * (z - step(predict, found, high, low))
            z = found
        return z, None

    def sample(predict: Predict, z_T: Tensor, record: Tensor | None) -> Tensor:
        z = z_T
        for high, low in itertools.pairwise(reversed(grid)):
            z = step(predict, z, high, low)
        return z

    return f"heun, {steps} steps, {corrections} corrections", invert, sample


def dpm(schedule: NoiseSchedule, steps: int, sweeps: int) -> Walk:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), inverted by sweeps over the grid (after Hong et al. 2024)."""
    grid = schedule.time_grid(steps)
    a, b = schedule.signal.double(), schedule.sigma.double()
    log_snr = [math.log(a[t] / b[t]) if a[t] > 0 and b[t] > 0 else math.inf for t in grid]

    def slope(index: int) -> float:
        """Factor of x_i - x_{i+1} in the step down from `grid[index]`; 0 is a DDIM step."""
        if index == steps or not all(map(math.isfinite, log_snr[index - 1 : index + 2])):
            return 0.0
        h, former = log_snr[index - 1] - log_snr[index], log_snr[index] - log_snr[index + 1]
        return float(a[grid[index - 1]]) * (1.0 - math.exp(-h)) * h / (2.0 * former)

    def invert(predict: Predict, z_0: Tensor) -> State:
        path, found = [z_0], [predict(z_0, filled(grid[0], z_0))]
        for t in grid[1:]:
            path.append(found[-1].at(filled(t, z_0), schedule))
            found.append(predict(path[-1], filled(t, z_0)))
        found.pop(0)
        for _ in range(sweeps):
            for i in range(1, steps + 1):
                reached = found[i - 1].at(filled(grid[i - 1], z_0), schedule)
                if i < steps:
                    reached = reached + slope(i) * (found[i - 1].clean - found[i].clean)
                path[i] = path[i] + miss_gain(schedule, grid[i - 1], grid[i]) * (path[i - 1] - reached)
                found[i - 1] = predict(path[i], filled(grid[i], z_0))
        return path[-1], None

    def sample(predict: Predict, z_T: Tensor, record: Tensor | None) -> Tensor:
        z, former = z_T, None
        for index in range(steps, 0, -1):
            estimate = predict(z, filled(grid[index], z))
            z = estimate.at(filled(grid[index - 1], z), schedule)
            z = z if former is None else z + slope(index) * (estimate.clean - former)
            former = estimate.clean
        return z

    return f"dpm, {steps} steps" + (f", {sweeps} corrections" if sweeps else ""), invert, sample


def packaged(schedule: NoiseSchedule, sampling: SamplingConfig) -> Walk:
    """A solver of the package."""

    def invert(predict: Predict, z_0: Tensor) -> State:
        return invert_latents(predict, z_0, schedule=schedule, sampling=sampling)

    def sample(predict: Predict, z_T: Tensor, record: Tensor | None) -> Tensor:
        return sample_latents(predict, z_T, schedule=schedule, sampling=sampling, record=record)

    return str(sampling), invert, sample


class Counted:
    """Counts network evaluations."""

    def __init__(self, predict: Predict) -> None:
        self.predict = predict
        self.calls = 0

    def __call__(self, z: Tensor, t: Tensor) -> Estimate:
        """One evaluation."""
        self.calls += 1
        return self.predict(z, t)

    def taken(self) -> int:
        """Evaluations since the last time it was asked."""
        calls, self.calls = self.calls, 0
        return calls


def walks(schedule: NoiseSchedule, steps: list[int]) -> list[Walk]:
    """Everything that is compared."""
    found: list[Walk] = []
    for n in steps:
        corrections = (0,) if n > MANY else (0, 1, 3)
        settings = [*(SamplingConfig("ddim", n, each) for each in corrections), SamplingConfig("bdia", n)]
        found += [*(packaged(schedule, each) for each in settings), direct(schedule, n)]
        if n > MANY:
            continue
        found += [dpm(schedule, n, 0), dpm(schedule, n, 3), heun(schedule, n)]
        if not schedule.config.ends_in_pure_noise:
            found += [edict(schedule, n), belm(schedule, n)]
    return found


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())


@torch.inference_mode()
def compare(model: LatentDiffusionAutoencoder, manifest: Path, count: int, steps: list[int]) -> dict[str, Any]:
    """All figures."""
    records: dict[str, Any] = {}
    for record in read_manifest(manifest).in_split("test").records:
        records.setdefault(record.participant_id, record)
    scans = encode_scans(model, list(records.values())[:count])
    z_0, images = scans.latents(), scans.images()
    y = torch.stack([codes.semantic for codes in scans.codes])
    schedule = model.networks.schedule
    own, other = (
        Counted(semantic_predict(model.networks, each.to(model.device), model.config)) for each in (y, y.roll(1, 0))
    )
    fine = direct(schedule, 100, corrections=1)
    code, kept = fine[1](own, z_0)
    reference = fine[2](other, code, kept) - z_0
    ceiling = compare_images(model.decompress(z_0), images).mean()
    rows = []
    for name, invert, sample in walks(schedule, steps):
        own.taken(), other.taken()
        start = time.perf_counter()
        z_T, record = invert(own, z_0)
        encode = own.taken()
        back = sample(own, z_T, record)
        decode = own.taken()
        seconds = time.perf_counter() - start
        edit = sample(other, z_T, record) - back
        image = compare_images(model.decompress(back), images).mean()
        rows.append(
            {
                "solver": name,
                "encode_evaluations": encode,
                "decode_evaluations": decode,
                "round_trip_rms": rms(back - z_0),
                "ssim": image["ssim"],
                "below_ceiling": ceiling["ssim"] - image["ssim"],
                "edit_error": rms(edit - reference) / rms(reference),
                "noise_code_rms": rms(z_T),
                "record_rms": None if record is None else rms(record),
                "latents_kept": 1 if record is None else 1 + record.numel() // z_T.numel(),
                "seconds": seconds,
            }
        )
        print(line(rows[-1]), flush=True)
    return {
        "model": model.fingerprint(),
        "scans": len(scans),
        "precision": str(model.dtype).removeprefix("torch."),
        "ceiling": ceiling,
        "torch": torch.__version__,
        "schedule": asdict(schedule.config),
        "rows": rows,
    }


def line(row: dict[str, Any]) -> str:
    """One row of the Markdown table."""
    return (
        f"| {row['solver']} | {row['encode_evaluations']} + {row['decode_evaluations']} | {row['latents_kept']} | "
        f"{row['round_trip_rms']:.1e} | {row['ssim']:.4f} ({-row['below_ceiling']:+.4f}) | {row['edit_error']:.2f} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained model")
    parser.add_argument("--manifest", type=Path, required=True, help="cohort table with a frozen split")
    parser.add_argument(
        "--scans", type=int, default=12, help="first scans of so many test subjects (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        nargs="+",
        default=[5, 10, 20, 50],
        help="numbers of steps to compare (default: 5 10 20 50)",
    )
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="of the networks (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="JSON to write all figures to; without it they are printed only"
    )
    options = parser.parse_args()
    model = LatentDiffusionAutoencoder.from_pretrained(options.model, precision=options.precision)
    print("| solver | evaluations | latents kept | round trip, rms | SSIM (against the ceiling) | edit error |")
    print("|---|---|---|---|---|---|")
    found = compare(model, options.manifest, options.scans, options.steps)
    print(f"\nceiling: SSIM {found['ceiling']['ssim']:.4f}; {found['scans']} test scans, {found['precision']}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
