"""Scans a second for encoding and decoding, ours beside the same method in voxel space, in one run.

    python benchmarks/throughput.py [--models runs/bench] [--out benchmarks/results/throughput.json] [--device auto]

Without trained models in the folder they are trained first, by their shipped configs, on a phantom cohort: that takes several
times as long as the measurement. Each setting is measured end to end: scan to both codes, codes to scan. The SSIM is that of the
same scans, against the real ones. The first config of ours is measured at every setting, further ones at 5 and 10 steps.
`ratio_over_voxel_space` is taken at our fastest setting, of whichever config, whose SSIM is at least the baseline's; if none
is, it is null, and `ratio_at_default` is what there is. With --untrained only speed is measured.
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from roofline import machine_rates, roofline
from torch import Tensor

from ldae.autoencoder import AutoencoderConfig, LatentDiffusionAutoencoder, Networks, SamplingConfig
from ldae.base.hardware import PeakMemory, choose_device, release_memory
from ldae.config import load_experiment
from ldae.data.manifest import Manifest, read_manifest
from ldae.data.splits import assign_splits
from ldae.metrics.images import compare_images
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from ldae.training.experiment import Experiment
from ldae.training.fit import FitSettings

STEPS = (10, 20, 50, 100)
BASELINE_STEPS = 100


def trained(name: str, folder: Path, manifest: Manifest, device: str) -> LatentDiffusionAutoencoder:
    """A model of a shipped config, trained by the recipe unless it is there."""
    model = folder / name / "model"
    if not (model / "config.json").is_file():
        settings = FitSettings(run=folder / name, device=device)  # type: ignore[arg-type]
        experiment = Experiment(load_experiment(name), manifest, settings)
        records = experiment.fit()
        facts = {f"{stage} steps": str(record.steps) for stage, record in records.items()}
        facts |= {f"{stage} seconds": f"{record.seconds:.0f}" for stage, record in records.items()}
        experiment.model().save_pretrained(model, facts=facts)
    return LatentDiffusionAutoencoder.from_pretrained(model, device=device)  # type: ignore[arg-type]


def untrained(name: str, device: str) -> LatentDiffusionAutoencoder:
    """Random weights: as fast as any."""
    config = load_experiment(name).autoencoder
    torch.manual_seed(0)
    return LatentDiffusionAutoencoder(config, Networks(config), device=device)  # type: ignore[arg-type]


def cohort(folder: Path, subjects: int) -> Manifest:
    """The phantoms that both models are trained on."""
    voxel_size = load_experiment("phantom_5mm").preprocessing.voxel_size_mm
    path = synthesise_cohort(folder / "cohort", PhantomConfig(n_subjects=subjects, voxel_size_mm=voxel_size), workers=2)
    split = folder / "manifest.tsv"
    if not split.is_file():
        assign_splits(read_manifest(path), fractions=(0.6, 0.1, 0.3), seed=0).write(split)
    return read_manifest(split)


class Bench:
    """One model on some scans.

    Args:
        model: what runs.
        images: scans on its grid, (N, 1, D, H, W) in [0, 1].
        scored: how many of them, from the first on, SSIM is measured on; 0 measures none.
    """

    def __init__(self, model: LatentDiffusionAutoencoder, images: Tensor, scored: int = 0) -> None:
        self.model = model
        self.images = images
        self.scored = scored

    def synchronise(self) -> float:
        """The time, once all that was asked for is done."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def round_trip(self, sampling: SamplingConfig, images: Tensor) -> tuple[np.ndarray, dict[str, float]]:
        """Scans through both codes and back, and the seconds of each part."""
        marks = [self.synchronise()]
        z_0 = self.model.compress(images)
        marks.append(self.synchronise())
        semantic = self.model.semantic(images)
        marks.append(self.synchronise())
        found = self.model.invert(z_0, semantic, sampling)
        marks.append(self.synchronise())
        latents = self.model.sample_latents(found.noise, semantic, sampling, record=found.record)
        marks.append(self.synchronise())
        decoded = self.model.decompress(latents)
        marks.append(self.synchronise())
        parts = ("compress", "semantic encoder", "invert", "sample", "decompress")
        return decoded, dict(zip(parts, np.diff(marks).tolist(), strict=True))

    def measure(self, sampling: SamplingConfig, *, batch: int, repeats: int) -> dict[str, Any]:
        """Medians over repeats, after one that warms up unless there is to be one only."""
        batch = min(batch, len(self.images))
        chosen = self.images[:batch]
        if repeats > 1:
            self.round_trip(sampling, chosen)
        release_memory()
        seconds, parts, decoded = [], [], np.empty(0)
        with PeakMemory(self.model.device) as memory:
            for _ in range(repeats):
                decoded, taken = self.round_trip(sampling, chosen)
                parts.append(taken)
                seconds.append(sum(taken.values()))
        found = {
            "sampling": asdict(sampling),
            "setting": str(sampling),
            "batch": batch,
            "repeats": repeats,
            "seconds_per_scan": statistics.median(seconds) / batch,
            "spread_seconds_per_scan": [min(seconds) / batch, max(seconds) / batch],
            "scans_per_second": batch / statistics.median(seconds),
            "parts_seconds_per_scan": {
                name: statistics.median(each[name] for each in parts) / batch for name in parts[0]
            },
            "peak_memory_gib": memory.peak_gib,
        }
        if 0 < self.scored <= batch:
            real = chosen[: self.scored, 0].numpy()
            found["ssim"] = compare_images(decoded[: self.scored], real).mean()["ssim"]
        print(row(found), flush=True)
        return found


def row(found: dict[str, Any]) -> str:
    """One line of the table."""
    ssim = f"SSIM {found['ssim']:.4f}" if "ssim" in found else ""
    return (
        f"{found['setting']:32s} batch {found['batch']:2d}  {found['scans_per_second']:9.4f} scans/s  "
        f"{found['peak_memory_gib']:6.2f} GiB  {ssim}"
    )


def scaling(
    config: AutoencoderConfig, device: str, sampling: SamplingConfig, factors: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Cost against the size of the volume, with random weights."""
    found = []
    for factor in factors:
        cell = config.compression.downsampling
        shape = tuple(max(cell, round(n * factor / cell) * cell) for n in config.preprocessing.shape)
        sized = replace(config, preprocessing=replace(config.preprocessing, shape=shape))
        model = LatentDiffusionAutoencoder(sized, Networks(sized), device=device)  # type: ignore[arg-type]
        result = Bench(model, torch.rand(1, 1, *shape)).measure(sampling, batch=1, repeats=2)
        found.append({"shape": shape, "voxels": int(np.prod(shape)), **result})
    return found


def compare(sides: dict[str, Bench], baseline: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides, and the ratio."""
    first, *others = sides
    ours = sides[first]
    default = ours.model.config.sampling
    steps = {5, *(n for n in STEPS if n < options.baseline_steps), options.baseline_steps} - {default.steps}
    settings = [default, *(replace(default, steps=n) for n in sorted(steps))]
    settings.append(replace(default, solver="ddim", steps=10))
    rows = [ours.measure(each, batch=options.batch, repeats=options.repeats) for each in settings]
    single = [ours.measure(default, batch=n, repeats=options.repeats) for n in (1, 2, 4, 8) if n < options.batch]
    further = [
        {"config": name, **sides[name].measure(replace(default, steps=n), batch=options.batch, repeats=options.repeats)}
        for name in others
        for n in (5, 10)
    ]
    base = baseline.measure(
        SamplingConfig("ddim", steps=options.baseline_steps),
        batch=options.baseline_batch,
        repeats=options.baseline_repeats,
    )
    ratios = {
        "ratio_at_default": rows[0]["scans_per_second"] / base["scans_per_second"],
        "ratio_at_equal_steps": next(
            each["scans_per_second"] for each in rows if each["sampling"]["steps"] == options.baseline_steps
        )
        / base["scans_per_second"],
        "ratio_at_batch_one": (single or rows)[0]["scans_per_second"] / base["scans_per_second"],
        "ratio_over_voxel_space": None,
    }
    if baseline.scored:
        # Reuse of features is an approximation, so it has to earn its place like any other setting.
        measured = [{"config": first, **each} for each in rows] + further
        equal = [each for each in measured if each["ssim"] >= base["ssim"]]
        if equal:
            fastest = max(equal, key=lambda each: float(each["scans_per_second"]))
            ratios["ratio_over_voxel_space"] = fastest["scans_per_second"] / base["scans_per_second"]
            ratios["ratio_taken_at"] = f"{fastest['config']}, {fastest['setting']}"
    return {"ours": rows, "ours_by_batch": single, "ours_further": further, "voxel_space": base, **ratios}


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("runs/bench"), help="where models are, or are trained")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/throughput.json"))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--config", nargs="+", default=["phantom_5mm", "demo_patches"], help="ours, the first at every setting"
    )
    parser.add_argument("--baseline", default="demo_voxel")
    parser.add_argument("--untrained", action="store_true", help="random weights: speed alone")
    parser.add_argument("--train", action="store_true", help="train what is missing, and stop")
    parser.add_argument("--subjects", type=int, default=160)
    parser.add_argument("--scans", type=int, default=3, help="test scans that both sides are scored on")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baseline-batch", type=int, default=3)
    parser.add_argument("--baseline-repeats", type=int, default=1)
    parser.add_argument("--baseline-steps", type=int, default=BASELINE_STEPS)
    parser.add_argument("--compile", action="store_true", help="compile the passes of both sides first")
    parser.add_argument("--no-scaling", action="store_true", help="leave out cost against volume size")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write the record."""
    options = parse()
    names = [*options.config, options.baseline]
    models: list[LatentDiffusionAutoencoder]
    if options.untrained:
        models = [untrained(name, options.device) for name in names]
        images = torch.rand(options.batch, 1, *models[0].config.preprocessing.shape)
        scored = 0
    else:
        manifest = cohort(options.models, options.subjects)
        models = [trained(name, options.models, manifest, options.device) for name in names]
        if options.train:
            return
        first = {r.participant_id: r for r in reversed(manifest.in_split("test").records)}
        scans = [models[0].prepare_record(record).data for record in list(first.values())[: options.batch]]
        images = torch.from_numpy(np.stack(scans))[:, None]
        scored = options.scans
    if options.compile:
        for model in models:
            networks = model.networks
            for part in (networks.denoiser.encoder, networks.denoiser.decoder, networks.gradient_estimator.decoder):
                part.compile()
    start = time.perf_counter()
    # The baseline's scans are few, as each takes minutes; ours are scored on the same.
    benches = {name: Bench(model, images, scored) for name, model in zip(names, models, strict=True)}
    baseline = benches.pop(options.baseline)
    record: dict[str, Any] = {
        "what": "scan to both codes and back; scans a second are medians of whole batches",
        "hardware": hardware(options.device),
        "configs": {"ours": options.config, "voxel_space": options.baseline},
        "grid": models[0].config.preprocessing.shape,
        "parameters": {name: model.count_parameters() for name, model in zip(names, models, strict=True)},
        "precision": str(models[0].dtype).removeprefix("torch."),
        "trained": not options.untrained,
        "compiled": options.compile,
    }
    if not options.untrained:
        real = images[:scored, 0].numpy()
        record["ceiling_ssim"] = {
            name: compare_images(model.decompress(model.compress(images[:scored])), real).mean()["ssim"]
            for name, model in zip(names, models, strict=True)
        }
    record |= compare(benches, baseline, options)
    rates = machine_rates(models[0].device, models[0].dtype)
    record["machine"] = rates
    record["roofline"] = {
        "ours": roofline(models[0], rates, options.batch),
        "voxel_space": roofline(baseline.model, rates, options.baseline_batch),
    }
    if not options.no_scaling:
        record["by_volume"] = scaling(models[0].config, options.device, models[0].config.sampling, (0.5, 1.0, 1.5, 2.0))
    record["wall_seconds"] = time.perf_counter() - start
    ratio = record["ratio_over_voxel_space"]
    print("voxel space, T = 100, against ours:")
    print(f"  at the default setting: {record['ratio_at_default']:.0f} x")
    print(f"  at equal or better SSIM: {'none' if ratio is None else f'{ratio:.0f} x'}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def hardware(device: str) -> dict[str, Any]:
    """What it ran on."""
    chosen = choose_device(device)  # type: ignore[arg-type]
    return {
        "device": torch.cuda.get_device_name() if chosen.type == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    main()
