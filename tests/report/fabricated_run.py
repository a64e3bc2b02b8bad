"""A run folder from seeded data, laid out exactly as `ldae demo` leaves one."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from ldae.atlas import load_template
from ldae.base.files import write_json
from ldae.data.manifest import read_manifest, write_manifest
from ldae.metrics.code_usage import CodeSpread, CodeUse
from ldae.metrics.statistics import Interval
from ldae.tasks.code_usage import CodeUsageResult, ImageUse
from ldae.tasks.edit.evaluate import ManipulateResult, ManipulationFindings
from ldae.tasks.edit.manipulate import DEFAULT_STEPS
from ldae.tasks.longitudinal.interpolate import METHODS
from ldae.tasks.probe.embeddings import Embeddings, embeddings_of
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.result import ProbeSettings
from ldae.tasks.probe.targets import choose_target
from ldae.tasks.reconstruct import ReconstructResult

NASTY = 'sub-<script>alert("1")</script>&$\\frac$'


def fabricate_run(folder: Path, *, seed: int = 0) -> Path:
    """A run folder with brains of the MNI template and figures drawn from a generator."""
    rng = np.random.default_rng(seed)
    keys = [f"sub-{n:04d}_ses-M{m:02d}" for n in range(1, 13) for m in (0, 12, 24)]
    keys[0] = f"{NASTY}_ses-M00"
    manifest = fabricate_cohort(folder, rng)
    brains = Brains(rng)
    results = {
        "wall_seconds": 641.7,
        "peak_memory_gib": 3.4567,
        "device": "cpu",
        "precision": "bfloat16",
        "model": "0123456789abcdef0123",
        "request": {"quick": False, "subjects": 160, "seed": seed},
        "n_subjects": len(manifest.subjects),
        "n_scans": len(manifest),
        "n_test_subjects": 12,
    }
    results |= fabricate_reconstruction(folder, keys, brains, rng)
    results["code_usage"] = fabricate_code_use(folder)
    results["probe"] = {name: fabricate_probe(folder, name, rng) for name in ("diagnosis", "age")}
    results["manipulate"] = fabricate_manipulation(folder, keys, brains)
    results["interpolate"] = fabricate_interpolation(folder, brains)
    save_arrays(
        folder / "tasks" / "sample.npz",
        original=brains.scan(),
        variations=np.stack([brains.synthetic(scale=s) for s in (0.99, 1.0, 1.01)]),
        unconditional=np.stack([brains.synthetic(scale=s) for s in (0.95, 1.0, 1.05)]),
    )
    write_json(folder / "tasks" / "sample.json", {"key": keys[1], "seed": seed})
    for index, stage in enumerate(("compression", "denoiser", "representation")):
        fabricate_stage(folder / stage, index, rng)
    encoder = {"whitening": 0.5, "volume": {"semantic_width": 128, "symmetric": True}}
    config = {
        "preprocessing": {"shape": [32, 40, 32], "voxel_size_mm": 5.0, "centre_mm": [0.5, -16.5, 5.5]},
        "representation": {"semantic_encoder": encoder},
        "sampling": {"steps": 20, "corrections": 1},
        "seed": seed,
    }
    known = {"path": str(manifest.path), "sha256": manifest.sha256}
    versions = {"ldae": "0.1.0", "torch": "2.13.0"}
    write_json(folder / "run.json", {"config": config, "manifest": known, "seed": seed, "versions": versions})
    results["skipped"] = {}
    write_json(folder / "results.json", results)
    return folder


class Brains:
    """Template brains that grow, shrink, blur and change their ventricles."""

    def __init__(self, rng: np.random.Generator) -> None:
        template = load_template(5.0)
        self.rng = rng
        self.t1 = np.clip(template.t1.data / np.percentile(template.t1.data[template.t1.data > 0], 99.5), 0, 1)
        self.ventricles = ndimage.gaussian_filter(template.ventricles.data, 0.8)

    def scan(self, *, scale: float = 1.0, ventricles: float = 0.0, noise: float = 0.02) -> np.ndarray:
        image = np.clip(self.t1 * (1 - ventricles * self.ventricles), 0, 1)
        centre = (np.array(image.shape) - 1) / 2
        image = ndimage.affine_transform(image, np.eye(3) / scale, offset=centre - centre / scale, order=1)
        return np.where(image > 0.02, np.clip(image + noise * self.rng.normal(size=image.shape), 0, 1), 0)

    def synthetic(self, *, scale: float = 1.0, ventricles: float = 0.0, blur: float = 0.5) -> np.ndarray:
        return ndimage.gaussian_filter(self.scan(scale=scale, ventricles=ventricles, noise=0.0), blur)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{name: np.asarray(array).astype(np.float16) for name, array in arrays.items()})


def fabricate_cohort(folder: Path, rng: np.random.Generator) -> object:
    rows = []
    for n in range(1, 41):
        split = "test" if n <= 12 else "validation" if n <= 16 else "train"
        start = rng.uniform(55, 90)
        for month in (0, 12, 24):
            scan = (f"sub-{n:04d}", f"ses-M{month:02d}", f"sub-{n:04d}_{month}.nii.gz")
            rows.append((*scan, round(start + month / 12, 2), "FM"[n % 2], ("CN", "MCI", "AD")[n % 3], month, split))
    columns = ["participant_id", "session_id", "image", "age", "sex", "diagnosis", "months", "split"]
    write_manifest(pd.DataFrame(rows, columns=columns), folder / "manifest.tsv")
    write_json(folder / "cohort" / "dataset_description.json", {"GeneratedBy": [{"Name": "ldae phantom"}]})
    return read_manifest(folder / "manifest.tsv", check_images=False)


def metrics(ssim: float, mse: float) -> dict[str, float]:
    return {"ssim": ssim, "ssim_brain": ssim - 0.08123, "mse": mse, "psnr": -10 * np.log10(mse)}


def fabricate_reconstruction(folder: Path, keys: list[str], brains: Brains, rng: np.random.Generator) -> dict:
    result = ReconstructResult(
        steps=20,
        solver="bdia, 20 steps",
        scans=len(keys),
        both=metrics(0.93123, 0.00123),
        semantic_only=metrics(0.84567, 0.00567),
        semantic_mean=metrics(0.85432, 0.00432),
        compression=metrics(0.93345, 0.00121),
        mean_image=metrics(0.79123, 0.00891),
        round_trip_rms=0.01234,
        per_scan={key: float(value) for key, value in zip(keys, rng.uniform(0.9, 0.95, len(keys)), strict=True)},
        intervals={
            "ssim": interval(0.93123, 0.01),
            "ssim_semantic_only": interval(0.84567, 0.02),
            "below_ceiling": interval(0.00222, 0.0005),
            "above_mean_image": interval(0.05444, 0.01),
            "ssim_semantic_mean": interval(0.85432, 0.02),
            "expected_above_mean_image": interval(0.06309, 0.01),
        },
    )
    order = sorted(keys, key=result.per_scan.__getitem__)
    result.per_scan[keys[0]] = 0.95001
    result.write(folder / "tasks", shown=[order[18], keys[0], order[0]])
    scans = [brains.scan(scale=scale, ventricles=v) for scale, v in ((1.0, 0.0), (0.95, 0.4), (1.03, 0.8))]
    save_arrays(
        folder / "tasks" / "reconstruct.npz",
        original=np.stack(scans),
        both=np.stack([ndimage.gaussian_filter(scan, 0.4) for scan in scans]),
        semantic_only=np.stack([ndimage.gaussian_filter(scan, 0.9) for scan in scans]),
        compression=np.stack([ndimage.gaussian_filter(scan, 0.35) for scan in scans]),
    )
    return {"compression": result.compression, "reconstruct": result.summary()}


def fabricate_code_use(folder: Path) -> dict:
    shares, misled, left = [0.0123, 0.2456, 0.4567], [-0.1357, -0.3579, -0.5791], [0.0234, 0.0567, 0.0789]

    def around(value: float) -> Interval:
        return Interval(value, value - 0.0311, value + 0.0277)

    result = CodeUsageResult(
        scans=36,
        subjects=12,
        timesteps=[333, 666, 999],
        snr=[0.567, 0.0123, 4.04e-05],
        unexplained={
            "right": [rest * (1 - share) for rest, share in zip(left, shares, strict=True)],
            "shuffled": [rest * (1 - share) for rest, share in zip(left, misled, strict=True)],
            "none": left,
        },
        use=CodeUse(
            "used",
            around(0.2382),
            around(-0.3576),
            around(0.5958),
            list(map(around, shares)),
            list(map(around, misled)),
            [around(own - other) for own, other in zip(shares, misled, strict=True)],
        ),
        spread=CodeSpread(36, 128, 23.456, 14, 121, 0.8765),
        images=ImageUse(
            scans=12,
            steps=20,
            right=metrics(0.84111, 0.00571),
            shuffled=metrics(0.77222, 0.00944),
            none=metrics(0.78333, 0.00888),
            gaps={"ssim": around(0.06889), "ssim_brain": around(0.07123), "mse": Interval(0.00373, 0.00298, 0.00441)},
            step_variation=0.0345,
        ),
    )
    result.write(folder / "tasks")
    return result.summary()


def interval(value: float, width: float) -> Interval:
    return Interval(value, value - width, value + 0.9 * width if value > 1 else min(value + 0.9 * width, 1.0))


def fabricate_probe(folder: Path, name: str, rng: np.random.Generator) -> dict:
    """A probe as the task evaluates and writes it, on features of which it is known what they hold."""
    manifest = read_manifest(folder / "manifest.tsv", check_images=False)
    target = choose_target(manifest, name)
    signal = (target.values - target.values.mean()) / target.values.std()

    def features(noise: float) -> Embeddings:
        values = rng.normal(size=(len(target), 4))
        values[:, 0] = signal + noise * rng.normal(size=len(target))
        return embeddings_of(target.records, values)

    others = {"random_encoder": features(3.0), "latent_pca": features(1.0), "true_volumes": features(0.1)}
    settings = ProbeSettings(resamples=20, permutations=20, by=("sex",), learning_curve=name == "diagnosis")
    report = evaluate_probe(target, features(0.7), others, settings)
    report.write(folder / "tasks")
    return report.summary()


def fabricate_manipulation(folder: Path, keys: list[str], brains: Brains) -> dict:
    steps = list(DEFAULT_STEPS)
    probability = [float(1 / (1 + np.exp(-(0.2 + 0.9 * s)))) for s in steps]
    change = {
        "ventricles_ml": [2.345 * s for s in steps],
        "hippocampus_left_ml": [-0.1234 * s for s in steps],
        "hippocampus_right_ml": [-0.1134 * s for s in steps],
        "brain_ml": [-6.789 * s for s in steps],
    }
    findings = fabricate_findings(0.8765)
    result = ManipulateResult(steps, probability, change, 12, findings)
    shown = [
        {
            "key": keys[index],
            "diagnosis": diagnosis,
            "age": 71.3 + index,
            "predicted": probability,
            "volumes": {name: [20 + v for v in values] for name, values in change.items()},
        }
        for index, diagnosis in ((0, "CN"), (6, None))
    ]
    write_json(folder / "tasks" / "manipulate.json", result.plain() | {"shown": shown})
    base = (0.2, 0.7)
    save_arrays(
        folder / "tasks" / "manipulate.npz",
        images=np.stack([[brains.synthetic(ventricles=b + 0.08 * s) for s in steps] for b in base]),
        original=np.stack([brains.scan(ventricles=b) for b in base]),
    )
    findings = {"plain": asdict(result.findings), "projected": asdict(fabricate_findings(0.1234))}
    correlations = {"real_scans": 0.6543, "given_map": 0.7654}
    return {
        "steps": steps,
        "probability": probability,
        "ventricle_change_ml": change["ventricles_ml"],
        "volume_change_ml": change,
        "monotone": result.monotone,
        "scans": 12,
        "findings": findings,
        "where": {"plain": {"changed_share": 0.4321, "effect_correlation": correlations}},
    }


def fabricate_findings(slope: float) -> ManipulationFindings:
    return ManipulationFindings(
        steps=list(DEFAULT_STEPS),
        probes={"direction": [0.5] * 7, "age": [70.0] * 7},
        probe_slopes={"direction": Interval(0.9111, 0.8222, 1.0333), "age": Interval(slope, slope - 0.1, slope + 0.1)},
        own_nearest_image=[0.9876] * 7,
        own_nearest_code=[0.8765] * 7,
        flipped=0.7654,
        flip_step=1.2345,
        outside_brain=0.0123,
    )


def fabricate_interpolation(folder: Path, brains: Brains) -> dict:
    def values(*each: float) -> dict[str, float]:
        return dict(zip(METHODS, each, strict=True))

    result = {
        "n": 17,
        "subjects": 12,
        "gap_months": 22.6,
        "own": "trajectory_residual",
        "ssim": values(0.9112, 0.9400, 0.9101, 0.9402, 0.9123, 0.9412, 0.9402, 0.9334, 0.9345),
        "ssim_brain": values(0.8012, 0.8611, 0.8001, 0.8623, 0.8034, 0.8609, 0.8608, 0.8511, 0.8456),
        "mse": values(0.0031, 0.0021, 0.0031, 0.0021, 0.0031, 0.0022, 0.0022, 0.0027, 0.0012),
        "change_error": values(1.0512, 0.8222, 1.0601, 0.8123, 1.0456, 0.8045, 0.8311, 1.0034, 0.7012),
        "change_correlation": values(0.3512, 0.6111, 0.3444, 0.6123, 0.3478, 0.6034, 0.6022, 0.2112, 0.7523),
        "intervals": {"change_error": {"trajectory_residual": {"value": 0.8123, "low": 0.7511, "high": 0.8744}}},
        "differences": {
            "change_error": {
                "trajectory_residual": {
                    "voxel_linear": {"value": 0.0078, "low": -0.0022, "high": 0.0181, "p": 0.12, "p_holm": 0.24},
                    "voxel_trajectory": {"value": -0.0188, "low": -0.0322, "high": -0.0054, "p": 0.01, "p_holm": 0.04},
                }
            }
        },
    }
    shown = [
        {
            "case": case,
            "keys": [f"{subject}_ses-M{month:02d}" for month in (0, 12, 24)],
            "months": [0.0, 12.0, 24.0],
            "change_error": {"trajectory_residual": own, "voxel_linear": own + 0.01, "copy_nearest": own + 0.1},
        }
        for case, subject, own in (("typical", "sub-0003", 0.8042), ("worst", "sub-0005", 1.2345))
    ]
    write_json(folder / "tasks" / "interpolate.json", result | {"shown": shown})
    first, target, second = (
        np.stack([brains.scan(ventricles=v + more) for more in (0, 0.1)]) for v in (0.1, 0.35, 0.5)
    )
    middle = (first + second) / 2
    alone = ndimage.gaussian_filter(middle, (0, 0.5, 0.5, 0.5))
    arrays = {"first": first, "target": target, "predicted": middle, "voxel_linear": middle, "codes_alone": alone}
    save_arrays(folder / "tasks" / "interpolate.npz", **arrays)
    return result


def fabricate_stage(folder: Path, index: int, rng: np.random.Generator) -> None:
    steps = np.arange(5, 1001, 5)
    loss = (0.9, 1.0, 0.7)[index] * np.exp(-steps / 150) + (0.02, 0.3, 0.15)[index]
    train = pd.DataFrame({"step": steps, "train/loss": loss * rng.uniform(0.85, 1.15, len(steps))})
    validation = pd.DataFrame({"step": steps[39::40], "validation/loss": 1.08 * loss[39::40]})
    logs = folder / "logs" / "version_0"
    logs.mkdir(parents=True)
    pd.concat([train, validation]).to_csv(logs / "metrics.csv", index=False)
    plan = {"trained": 123456 * (index + 1), "batch_size": 8, "device": "cpu", "precision": "fp32"}
    losses = {"train/loss": float(loss[-1]), "validation/loss": float(1.08 * loss[-1])}
    record = {"fingerprint": "ab" * 32, "seconds": 123.4 + 60 * index, "steps": 1000}
    write_json(folder / "stage.json", record | {"losses": losses, "plan": plan})
