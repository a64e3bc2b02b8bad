"""Training recipes compared at equal budget: published, velocity, zero terminal SNR, min-SNR, rectified flow, and more.

    python benchmarks/ablation.py --out runs/ablation [--seeds 0 1] [--steps 300] [--record docs/benchmarks/ablation.json]

One phantom cohort, which the demo does not use (so that choosing by it does not touch the demo's test subjects), one
compression stage (trained here, or a demo run's, named by --compression); each recipe then trains denoiser and
representation for the same number of steps with each seed. Everything below is measured on its test subjects. A recipe that
is done already is not trained again.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ldae.autoencoder import LatentDiffusionAutoencoder, SamplingConfig
from ldae.config import load_experiment
from ldae.data.manifest import Manifest, read_manifest
from ldae.data.splits import assign_splits
from ldae.io.checkpoints import load_tensors
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from ldae.tasks.encode import encode_scans
from ldae.tasks.probe.embeddings import embeddings_of
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.result import CODES, ProbeSettings
from ldae.tasks.probe.targets import choose_target
from ldae.tasks.reconstruct import reconstruct
from ldae.training.experiment import Experiment
from ldae.training.fit import FitSettings

VELOCITY = [
    "denoiser.model.prediction=velocity",
    "representation.shift=velocity",
    "denoiser.weighting=velocity",
    "representation.weighting=velocity",
]
RECIPES: dict[str, list[str]] = {
    "velocity": VELOCITY,
    "published": [
        "denoiser.model.prediction=noise",
        "denoiser.model.coordinates=0",
        "denoiser.weighting=constant",
        "representation.shift=posterior",
        "representation.weighting=representation",
        "representation.warm_start=false",
    ],
    "zero_terminal_snr": [*VELOCITY, "schedule.zero_terminal_snr=true"],
    "min_snr": [*VELOCITY[:2], "denoiser.weighting=min_snr", "representation.weighting=min_snr"],
    "rectified_flow": [*VELOCITY, "schedule.kind=rectified"],
    "semantic_dropout": [*VELOCITY, "representation.semantic_dropout=0.1"],
    "posterior_draws": [*VELOCITY, "resample_posterior=true"],
}
GUIDED = 1.5


def measure(model: LatentDiffusionAutoencoder, manifest: Manifest, seed: int) -> dict[str, Any]:
    """What the codes predict and what they give back, on test subjects."""
    scans = encode_scans(model, manifest.records)
    training = scans.of_split("train")
    embeddings = embeddings_of(scans.records, scans.semantic)
    diagnosis, age = (
        evaluate_probe(choose_target(manifest, name), embeddings, settings=ProbeSettings(seed=seed))
        .scored[CODES]
        .metrics
        for name in ("diagnosis", "age")
    )
    test = scans.of_split("test")
    shown = test.select(test.first_rows).with_noise(model)
    mean_image = sum(batch.images().sum(axis=0, dtype=float) for batch in training.batches(32)) / len(training)
    result = reconstruct(model, shown, mean_image=mean_image.astype("float32"), seed=seed)
    noise = torch.stack([codes.noise for codes in shown.codes if codes.noise is not None])
    plain = model.invert(
        shown.latents(),
        torch.stack([codes.semantic for codes in shown.codes]),
        SamplingConfig("ddim", steps=10),
        round_trip=True,
    )
    assert result.mean_image is not None
    return {
        "auc": asdict(diagnosis["auc"]),
        "age_mae": asdict(age["mae"]),
        "age_r2": asdict(age["r2"]),
        "ssim_both": result.both["ssim"],
        "ssim_ceiling": result.compression["ssim"],
        "ssim_semantic_only": result.semantic_only["ssim"],
        "mse_semantic_only": result.semantic_only["mse"],
        "ssim_mean_image": result.mean_image["ssim"],
        "mse_mean_image": result.mean_image["mse"],
        "round_trip_rms": result.round_trip_rms,
        "plain_ddim_round_trip_rms": float(plain.round_trip.square().mean().sqrt()),
        "noise_code_rms": float(noise.square().mean().sqrt()),
    }


def train(
    recipe: str, seed: int, base: Experiment, manifest: Manifest, out: Path, overrides: list[str]
) -> dict[str, Any]:
    """Train one recipe with one seed over the shared compression stage, and measure it."""
    run = out / f"{recipe}_{seed}"
    record = run / "ablation.json"
    if record.is_file():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    run.mkdir(parents=True, exist_ok=True)
    # All recipes read the same latents.
    if not (run / "cache").exists():
        (run / "cache").symlink_to((base.settings.run / "cache").resolve(), target_is_directory=True)
    config = load_experiment("phantom_5mm", [*overrides, *RECIPES[recipe], f"seed={seed}"])
    experiment = Experiment(config, manifest, FitSettings(run=run))
    experiment.networks.compression.load_state_dict(base.networks.compression.state_dict())
    start = time.perf_counter()
    records = {"denoiser": experiment.fit_denoiser(), "representation": experiment.fit_representation()}
    seconds = time.perf_counter() - start
    losses = records["representation"].losses
    model = experiment.model()
    found = {
        "recipe": recipe,
        "seed": seed,
        "seconds": seconds,
        "explained": 1.0 - losses["validation/loss"] / losses["validation/loss_without_code"],
        **measure(model, manifest, seed),
    }
    if recipe == "semantic_dropout":
        guided = replace(model.config, sampling=replace(model.config.sampling, guidance=GUIDED))
        also = measure(LatentDiffusionAutoencoder(guided, model.networks), manifest, seed)
        found["guided"] = {name: also[name] for name in ("ssim_both", "ssim_semantic_only", "mse_semantic_only")}
    record.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Means over seeds, and each seed's AUC, as Markdown."""
    lines = [
        "| recipe | AUC (each seed) | age MAE | explained | SSIM both / ceiling | y alone: SSIM, MSE x 1000 | DDIM round trip |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe in dict.fromkeys(each["recipe"] for each in found):
        rows = [each for each in found if each["recipe"] == recipe]

        def mean(name: str, rows: list[dict[str, Any]] = rows) -> float:
            return statistics.mean(r[name]["value"] if isinstance(r[name], dict) else r[name] for r in rows)

        seeds = ", ".join(f"{r['auc']['value']:.3f}" for r in rows)
        lines.append(
            f"| {recipe} | {mean('auc'):.3f} ({seeds}) | {mean('age_mae'):.2f} | {mean('explained'):.1%} | "
            f"{mean('ssim_both'):.4f} / {mean('ssim_ceiling'):.4f} | {mean('ssim_semantic_only'):.4f}, "
            f"{1000 * mean('mse_semantic_only'):.2f} | {mean('plain_ddim_round_trip_rms'):.3f} |"
        )
    first = found[0]
    lines.append(
        f"\nMean training image: SSIM {first['ssim_mean_image']:.4f}, MSE x 1000 {1000 * first['mse_mean_image']:.2f}."
    )
    return "\n".join(lines)


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=300, help="of each of the two stages")
    parser.add_argument("--subjects", type=int, default=160)
    parser.add_argument("--cohort-seed", type=int, default=1)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--compression", type=Path, default=None, help="weights.safetensors of a demo run's stage 1")
    parser.add_argument("--set", nargs="+", default=[], help="further settings of the demo configuration, KEY=VALUE")
    parser.add_argument("--record", type=Path, default=None, help="JSON to write all figures to")
    options = parser.parse_args()
    overrides = [f"{stage}.optimisation.steps={options.steps}" for stage in ("denoiser", "representation")]
    overrides += options.set
    phantom = PhantomConfig(n_subjects=options.subjects, voxel_size_mm=5.0, seed=options.cohort_seed)
    path = synthesise_cohort(options.out / "cohort", phantom, workers=1)
    manifest_path = options.out / "manifest.tsv"
    if not manifest_path.is_file():
        assign_splits(read_manifest(path), fractions=(0.5, 0.1, 0.4), seed=options.cohort_seed).write(manifest_path)
    manifest = read_manifest(manifest_path)
    base = Experiment(load_experiment("phantom_5mm", overrides), manifest, FitSettings(run=options.out / "base"))
    if options.compression is None:
        base.fit("compression")
    else:
        base.networks.compression.load_state_dict(load_tensors(options.compression)[0])
    (options.out / "base" / "cache").mkdir(exist_ok=True)
    found = []
    for seed in options.seeds:
        for recipe in options.recipes:
            found.append(train(recipe, seed, base, manifest, options.out, overrides))
            print(json.dumps({k: found[-1][k] for k in ("recipe", "seed", "seconds", "explained", "auc")}), flush=True)
            if options.record is not None:
                options.record.parent.mkdir(parents=True, exist_ok=True)
                about = {
                    "steps": options.steps,
                    "subjects": options.subjects,
                    "set": options.set,
                    "torch": torch.__version__,
                }
                options.record.write_text(json.dumps({**about, "runs": found}, indent=2) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
