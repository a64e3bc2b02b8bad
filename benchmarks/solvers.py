"""Solvers compared on a trained model: network evaluations against what is lost on the way there and back.

    python benchmarks/solvers.py --model runs/demo/model --manifest runs/demo/manifest.tsv [--scans 12] [--out FILE.json]

For test scans, one a subject: the rms error of the latent after inversion and sampling, the SSIM of the decoded image against
the real scan beside the compression ceiling, and how far an edit (every scan decoded under the code of another subject) is
from the edit that a fine reference makes. EDICT and BELM, which lost to BDIA here, live in this file only.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder, SamplingConfig
from ldae.data.manifest import read_manifest
from ldae.diffusion import Estimate, NoiseSchedule, Predict, invert_latents, sample_latents
from ldae.diffusion.samplers import filled
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
        settings = [SamplingConfig("ddim", n, corrections) for corrections in (0, 1, 3)]
        settings += [SamplingConfig("direct", n), SamplingConfig("bdia", n)]
        settings += [SamplingConfig("dpm", n, 0), SamplingConfig("dpm", n, 3), SamplingConfig("heun", n, 1)]
        if n > MANY:
            settings = [SamplingConfig(solver, n) for solver in ("ddim", "direct", "bdia")]
        found += [packaged(schedule, each) for each in settings]
        if n > MANY:
            continue
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
    z_0 = torch.from_numpy(scans.latents)
    y = torch.stack([codes.semantic for codes in scans.codes])
    schedule = model.networks.schedule
    own, other = (
        Counted(
            semantic_predict(
                model.networks, each.to(model.device), model.config, replace(model.config.sampling, reuse=1)
            )
        )
        for each in (y, y.roll(1, 0))
    )
    fine = packaged(schedule, SamplingConfig("direct", 100, corrections=1))
    code, kept = fine[1](own, z_0)
    reference = fine[2](other, code, kept) - z_0
    ceiling = compare_images(model.decompress(z_0), scans.images).mean()
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
        image = compare_images(model.decompress(back), scans.images).mean()
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
