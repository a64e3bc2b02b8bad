"""The report of a fabricated run folder, laid out exactly as `ldae demo` leaves one."""

import base64
import html.parser
import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from ldae.data.manifest import read_manifest, write_manifest
from ldae.errors import TaskError
from ldae.evaluation.statistics import Interval
from ldae.io.files import write_json
from ldae.io.template import load_template
from ldae.report import write_report
from ldae.tasks.interpolate import METHODS, InterpolateResult
from ldae.tasks.manipulate import DEFAULT_STEPS, ManipulateResult
from ldae.tasks.probe import AgeResult, DiagnosisResult
from ldae.tasks.reconstruct import ReconstructResult

NASTY = 'sub-<script>alert("1")</script>&$\\frac$'
FACTS = "plan"


# --- A run folder from seeded data -----------------------------------------------------------------------------------


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
    results["probe"] = {"diagnosis": fabricate_diagnosis(folder, rng), "age": fabricate_age(folder, rng)}
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
    write_json(
        folder / "run.json",
        {
            "config": {
                "preprocessing": {"shape": [32, 40, 32], "voxel_size_mm": 5.0, "centre_mm": [0.5, -16.5, 5.5]},
                "representation": {"semantic_encoder": {"volume": {"semantic_width": 128}}},
                "sampling": {"steps": 20, "corrections": 1},
                "seed": seed,
            },
            "manifest": {"path": str(manifest.path), "sha256": manifest.sha256},
            "seed": seed,
            "versions": {"ldae": "0.1.0", "torch": "2.13.0"},
        },
    )
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
            rows.append(
                {
                    "participant_id": f"sub-{n:04d}",
                    "session_id": f"ses-M{month:02d}",
                    "image": f"sub-{n:04d}_{month}.nii.gz",
                    "age": round(start + month / 12, 2),
                    "sex": "FM"[n % 2],
                    "diagnosis": ("CN", "MCI", "AD")[n % 3],
                    "months": float(month),
                    "split": split,
                }
            )
    write_manifest(pd.DataFrame(rows), folder / "manifest.tsv")
    write_json(folder / "cohort" / "dataset_description.json", {"GeneratedBy": [{"Name": "ldae phantom"}]})
    return read_manifest(folder / "manifest.tsv", check_images=False)


def fabricate_reconstruction(folder: Path, keys: list[str], brains: Brains, rng: np.random.Generator) -> dict:
    def metrics(ssim: float, mse: float) -> dict[str, float]:
        return {"ssim": ssim, "ssim_brain": ssim - 0.08123, "mse": mse, "psnr": -10 * np.log10(mse)}

    result = ReconstructResult(
        steps=20,
        scans=len(keys),
        both=metrics(0.93123, 0.00123),
        semantic_only=metrics(0.84567, 0.00567),
        compression=metrics(0.93345, 0.00121),
        mean_image=metrics(0.79123, 0.00891),
        round_trip_rms=0.01234,
        per_scan={key: float(value) for key, value in zip(keys, rng.uniform(0.9, 0.95, len(keys)), strict=True)},
    )
    order = sorted(keys, key=result.per_scan.__getitem__)
    result.per_scan[keys[0]] = 0.95001
    shown = [order[18], keys[0], order[0]]
    write_json(folder / "tasks" / "reconstruct.json", asdict(result) | {"shown": shown})
    scans = [brains.scan(scale=scale, ventricles=v) for scale, v in ((1.0, 0.0), (0.95, 0.4), (1.03, 0.8))]
    save_arrays(
        folder / "tasks" / "reconstruct.npz",
        original=np.stack(scans),
        both=np.stack([ndimage.gaussian_filter(scan, 0.4) for scan in scans]),
        semantic_only=np.stack([ndimage.gaussian_filter(scan, 0.9) for scan in scans]),
        compression=np.stack([ndimage.gaussian_filter(scan, 0.35) for scan in scans]),
    )
    names = ("ssim", "mse", "ssim_brain", "psnr")
    return {
        "compression": {name: result.compression[name] for name in names},
        "reconstruct": {
            "steps": 20,
            **{name: result.both[name] for name in names[:3]},
            "ssim_semantic_only": result.semantic_only["ssim"],
            "mse_semantic_only": result.semantic_only["mse"],
            "ssim_mean_image": result.mean_image["ssim"],
            "mse_mean_image": result.mean_image["mse"],
            "round_trip_rms": result.round_trip_rms,
        },
    }


def interval(value: float, width: float) -> Interval:
    return Interval(value, value - width, value + 0.9 * width)


def probe_summary(result: object, first: str, names: tuple[str, ...], baselines: dict[str, object]) -> dict:
    return {
        first: asdict(getattr(result, first)),
        **{name: getattr(result, name).value for name in names},
        "intervals": {name: asdict(getattr(result, name)) for name in names},
        "baselines": {key: getattr(each, first).value for key, each in baselines.items()},
        "baseline_intervals": {key: asdict(getattr(each, first)) for key, each in baselines.items()},
        "train_subjects": result.train_subjects,
        "test_subjects": result.test_subjects,
        "test_scans": result.test_scans,
    }


def fabricate_diagnosis(folder: Path, rng: np.random.Generator) -> dict:
    def one(auc: float) -> DiagnosisResult:
        target = rng.integers(0, 2, 24)
        target[:2] = (0, 1)
        grid = np.linspace(0, 1, 101)
        curve = grid ** ((1 - auc) / auc)
        return DiagnosisResult(
            positive="AD",
            negative="CN",
            auc=interval(auc, 0.08),
            balanced_accuracy=interval(0.8012, 0.09),
            sensitivity=interval(0.7654, 0.11),
            specificity=interval(0.8371, 0.1),
            train_subjects=19,
            test_subjects=8,
            test_scans=24,
            probability=rng.uniform(size=24).tolist(),
            target=target.tolist(),
            roc={
                "false_positive_rate": [0.0, 0.0, 0.1, 0.3, 0.6, 1.0],
                "true_positive_rate": [0.0, *np.interp([0.02, 0.1, 0.3, 0.6, 1.0], grid, curve).tolist()],
                "band_rate": grid.tolist(),
                "band_low": np.clip(curve - 0.12, 0, 1).tolist(),
                "band_high": np.clip(curve + 0.08, 0, 1).tolist(),
            },
        )

    result = one(0.8801)
    baselines = {"random_encoder": one(0.8432), "latent_pca": one(0.7971), "true_volumes": one(0.9703)}
    plain = {
        "result": asdict(result),
        "baselines": {k: asdict(v) for k, v in baselines.items()},
        "keys": [],
        "penalty": 1,
    }
    write_json(folder / "tasks" / "probe_diagnosis.json", plain)
    return probe_summary(result, "auc", ("balanced_accuracy", "sensitivity", "specificity"), baselines)


def fabricate_age(folder: Path, rng: np.random.Generator) -> dict:
    target = rng.uniform(55, 90, 36)

    def one(error: float) -> AgeResult:
        return AgeResult(
            mae=interval(error, 0.7),
            rmse=interval(1.25 * error, 0.9),
            r2=interval(0.4321, 0.2),
            train_subjects=28,
            test_subjects=12,
            test_scans=36,
            predicted=(72 + 0.6 * (target - 72) + rng.normal(size=36) * error).tolist(),
            target=target.tolist(),
        )

    result = one(5.4567)
    baselines = {
        "median": one(7.9712),
        "random_encoder": one(8.0234),
        "latent_pca": one(7.6789),
        "true_volumes": one(5.7123),
    }
    plain = {
        "result": asdict(result),
        "baselines": {k: asdict(v) for k, v in baselines.items()},
        "keys": [],
        "penalty": 1,
    }
    write_json(folder / "tasks" / "probe_age.json", plain)
    return probe_summary(result, "mae", ("rmse", "r2"), baselines)


def fabricate_manipulation(folder: Path, keys: list[str], brains: Brains) -> dict:
    steps = list(DEFAULT_STEPS)
    probability = [float(1 / (1 + np.exp(-(0.2 + 0.9 * s)))) for s in steps]
    change = {
        "ventricles_ml": [2.345 * s for s in steps],
        "hippocampus_left_ml": [-0.1234 * s for s in steps],
        "hippocampus_right_ml": [-0.1134 * s for s in steps],
        "brain_ml": [-6.789 * s for s in steps],
    }
    result = ManipulateResult(steps=steps, predicted=probability, volume_change_ml=change, scans=12)
    shown = [
        {
            "key": keys[index],
            "diagnosis": diagnosis,
            "age": 71.3 + index,
            "predicted": probability,
            "volumes": {name: [20 + v for v in values] for name, values in change.items()},
        }
        for index, diagnosis in ((0, "CN"), (3, "MCI"), (6, None))
    ]
    write_json(folder / "tasks" / "manipulate.json", asdict(result) | {"monotone": result.monotone, "shown": shown})
    base = (0.2, 0.5, 0.7)
    save_arrays(
        folder / "tasks" / "manipulate.npz",
        images=np.stack([[brains.synthetic(ventricles=b + 0.08 * s) for s in steps] for b in base]),
        original=np.stack([brains.scan(ventricles=b) for b in base]),
    )
    return {
        "steps": steps,
        "probability": probability,
        "ventricle_change_ml": change["ventricles_ml"],
        "volume_change_ml": change,
        "monotone": result.monotone,
        "scans": 12,
    }


def fabricate_interpolation(folder: Path, brains: Brains) -> dict:
    def values(*each: float) -> dict[str, float]:
        return dict(zip(METHODS, each, strict=True))

    result = InterpolateResult(
        n=17,
        subjects=12,
        ssim=values(0.9112, 0.9401, 0.9123, 0.9412, 0.9334, 0.9345),
        ssim_brain=values(0.8012, 0.8623, 0.8034, 0.8609, 0.8511, 0.8456),
        mse=values(0.0031, 0.0021, 0.0031, 0.0022, 0.0027, 0.0012),
        change_error=values(1.0512, 0.8123, 1.0456, 0.8045, 1.0034, 0.7012),
        change_correlation=values(0.3512, 0.6123, 0.3478, 0.6034, 0.2112, 0.7523),
        gap_months=22.6,
    )
    write_json(
        folder / "tasks" / "interpolate.json",
        asdict(result)
        | {
            "shown": {"keys": ["sub-0003_ses-M00", "sub-0003_ses-M12", "sub-0003_ses-M24"], "months": [0.0, 12.0, 24.0]}
        },
    )
    first, target, second = (brains.scan(ventricles=v) for v in (0.1, 0.35, 0.5))
    middle = (first + second) / 2
    save_arrays(
        folder / "tasks" / "interpolate.npz",
        first=first,
        target=target,
        second=second,
        ldae=ndimage.gaussian_filter(middle, 0.5),
        ldae_residual=middle,
        latent_linear=ndimage.gaussian_filter(middle, 0.5),
        voxel_linear=middle,
        copy_nearest=second,
        ceiling=ndimage.gaussian_filter(target, 0.4),
    )
    return asdict(result)


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
    write_json(
        folder / "stage.json",
        {"fingerprint": "ab" * 32, "seconds": 123.4 + 60 * index, "steps": 1000, "losses": losses, "plan": plan},
    )
