"""The protocol of interpolation: every triple of sessions, every method, against the real scan, with intervals over subjects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import Record
from ldae.errors import TaskError, VolumeError
from ldae.io.files import write_json, write_text
from ldae.metrics.change import change_correlation, change_error
from ldae.metrics.images import compare_images
from ldae.metrics.statistics import Difference, Interval, holm, paired_difference, subject_bootstrap
from ldae.metrics.volumetry import measure_volumes
from ldae.tasks.encode import EncodedScans
from ldae.tasks.longitudinal.interpolate import METHODS, Triple, predict_between
from ldae.tasks.longitudinal.trajectory import TrajectoryPrior, sessions_of
from ldae.volume import Volume

__all__ = ["METRICS", "InterpolateResult", "evaluate_interpolation", "read_truth"]

Images = npt.NDArray[np.float32]

METRICS = {
    "ssim": True,
    "ssim_brain": True,
    "psnr": True,
    "mse": False,
    "change_error": False,
    "change_correlation": True,
    "ventricle_error_ml": False,
}
"""Whether more is better."""
OWN = ("ldae_residual", "trajectory_residual")
"""Methods that are compared with the others; the last of them that could be run is the one that is reported."""
RIVALS = ("copy_nearest", "voxel_linear", "voxel_trajectory", "latent_linear")
GAPS = (("under 12 months", 0.0, 12.0), ("12 to 23 months", 12.0, 24.0), ("24 months and more", 24.0, np.inf))
BOUNDARY = (("under 0.5 voxels", 0.0, 0.5), ("0.5 to 1 voxel", 0.5, 1.0), ("over 1 voxel", 1.0, np.inf))
FEW_SUBJECTS = 3
KEYS = ["participant_id", "session_id"]


@dataclass(frozen=True)
class InterpolateResult:
    """Figures over triples, against the real scan of the missing month.

    Attributes:
        n: number of triples.
        subjects: number of subjects.
        gap_months: mean distance of the two given sessions.
        ventricle_yardstick: of `ventricle_error_ml`: the "truth", what is "measured" in the real scan, or "mixed".
        means: by metric and method.
        intervals: the same with 95 % intervals over subjects.
        differences: by metric, own method and rival: own minus rival, by the paired bootstrap; p adjusted over rivals (Holm).
        groups: by kind (gap, diagnosis, boundary) and value: numbers, means by metric and method, and, by gap and boundary,
            the differences of the change metrics within the group.
        table: a row for each triple and method.
    """

    n: int
    subjects: int
    gap_months: float
    ventricle_yardstick: str
    means: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, dict[str, dict[str, float]]]]
    groups: dict[str, dict[str, dict[str, Any]]]
    table: pd.DataFrame

    @property
    def own(self) -> str:
        """The method that is reported: the line through all other sessions where there is one, else codes between two."""
        return next(name for name in reversed(OWN) if name in self.means["change_error"])

    def plain(self) -> dict[str, Any]:
        """All but the table, as plain values; means by metric stand at the top."""
        found: dict[str, Any] = _without_nan(
            {
                "n": self.n,
                "subjects": self.subjects,
                "gap_months": self.gap_months,
                "own": self.own,
                "ventricle_yardstick": self.ventricle_yardstick,
                **self.means,
                "intervals": {
                    metric: {name: asdict(each) for name, each in of.items()} for metric, of in self.intervals.items()
                },
                "differences": self.differences,
                "groups": self.groups,
            }
        )
        return found

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write interpolate.json, and every triple as interpolate.csv."""
        return (
            write_json(folder / "interpolate.json", self.plain()),
            write_text(folder / "interpolate.csv", self.table.to_csv(index=False)),
        )


def evaluate_interpolation(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    decoded: Images,
    triples: Sequence[Triple],
    *,
    prior: TrajectoryPrior | None = None,
    references: Images | None = None,
    truth: Mapping[str, Mapping[str, float]] | None = None,
    batch_size: int = 16,
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> InterpolateResult:
    """Score every method on every triple.

    Args:
        model: the trained model.
        scans: encoded, with noise codes.
        decoded: reconstructions of all scans from both codes, (M, D, H, W).
        triples: which to predict, N.
        prior: of codes over time, from training subjects; adds the trajectories.
        references: images to compare with instead of the scans themselves, (M, D, H, W): noise-free twins, say. Averaging
            two scans averages their noise, which flatters voxel blending against a noisy target.
        truth: true values of scans by key, as `ventricles_ml` and `ventricle_mm` of a phantom: volumes are then compared by
            their true change, and triples are grouped by how far the ventricle's wall truly moved.
        batch_size: triples at a time.
        resamples: of the bootstrap.
        seed: of the resamples.
        progress: told (done, total).

    Raises:
        TaskError: if there is no triple.
    """
    if not triples:
        msg = "no subject has three dated sessions, so no missing scan can be scored; give a longitudinal manifest with months"
        raise TaskError(msg)
    real = scans.images if references is None else references
    volumes = _Ventricles(model, real, scans.records, truth)
    # Of three sessions the line through the others is the blend of the two, and would stand in the table twice.
    beyond_three = any(len(each) > 3 for each in sessions_of(scans.records).values())
    rows: list[dict[str, Any]] = []
    for start in range(0, len(triples), batch_size):
        batch = triples[start : start + batch_size]
        targets, starts = real[[t.target for t in batch]], real[[t.first for t in batch]]
        facts = [_facts(scans, triple, truth, model.config.preprocessing.voxel_size_mm) for triple in batch]
        for method, images in predict_between(model, scans, decoded, batch, prior).items():
            if method == "voxel_trajectory" and not beyond_three:
                continue
            agreement = compare_images(images, targets)
            for index, triple in enumerate(batch):
                image, target, first = images[index], targets[index], starts[index]
                rows.append(
                    {
                        **facts[index],
                        "method": method,
                        **{
                            name: float(getattr(agreement, name)[index])
                            for name in ("ssim", "ssim_brain", "psnr", "mse")
                        },
                        "change_error": change_error(image, target, first),
                        "change_correlation": change_correlation(image, target, first),
                        "ventricle_error_ml": volumes.error(image, triple),
                    }
                )
        if progress is not None:
            progress(start + len(batch), len(triples))
    table = pd.DataFrame(rows)
    methods = [name for name in METHODS if (table["method"] == name).any()]
    scores = {
        metric: {name: table.loc[table["method"] == name, metric].to_numpy(dtype=np.float64) for name in methods}
        for metric in METRICS
    }
    subjects = table.loc[table["method"] == methods[0], "participant_id"].tolist()
    return InterpolateResult(
        n=len(triples),
        subjects=len(set(subjects)),
        gap_months=float(np.mean([triple.gap_months for triple in triples])),
        ventricle_yardstick=volumes.yardstick,
        means={metric: {name: _mean(each) for name, each in of.items()} for metric, of in scores.items()},
        intervals=_intervals(scores, subjects, resamples, seed),
        differences=_differences(scores, subjects, resamples, seed),
        groups=_groups(table, methods, resamples, seed),
        table=table,
    )


def read_truth(path: Path) -> dict[str, dict[str, float]]:
    """True values by the scan's key, from a table with participant_id, session_id and numeric columns.

    Raises:
        TaskError: if it is no such table.
    """
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=dict.fromkeys(KEYS, str), encoding="utf-8-sig")
        keys = [f"{subject}_{session}" for subject, session in table[KEYS].itertuples(index=False, name=None)]
    except (OSError, ValueError, KeyError) as error:
        msg = f"{path}: no table of true values ({error}); give participant_id, session_id and columns such as ventricles_ml"
        raise TaskError(msg) from error
    numbers = table.drop(columns=KEYS).select_dtypes("number")
    return {
        key: {name: value for name, value in zip(numbers.columns, row, strict=True) if np.isfinite(value)}
        for key, row in zip(keys, numbers.to_numpy().tolist(), strict=True)
    }


class _Ventricles:
    """Ventricles of predicted scans, against the truth where it is known, or measured alike on the real scan."""

    def __init__(
        self,
        model: LatentDiffusionAutoencoder,
        real: Images,
        records: Sequence[Record],
        truth: Mapping[str, Mapping[str, float]] | None,
    ) -> None:
        self.affine = model.config.preprocessing.grid.affine
        self.real = real
        self.records = records
        self.truth = truth or {}
        self.measured: dict[int, float] = {}
        self.used: set[str] = set()

    @property
    def yardstick(self) -> str:
        """What errors were measured against so far."""
        return next(iter(self.used)) if len(self.used) == 1 else "mixed"

    def measure(self, image: Images) -> float:
        try:
            return measure_volumes(Volume(image, self.affine))["ventricles_ml"]
        except VolumeError:  # a grid too coarse, or outside template space
            return float("nan")

    def of_scan(self, row: int) -> float:
        if row not in self.measured:
            self.measured[row] = self.measure(self.real[row])
        return self.measured[row]

    def error(self, image: Images, triple: Triple) -> float:
        """Absolute error of the predicted change since the first session, ml; what the yardstick gets wrong by itself cancels."""
        known = [
            self.truth.get(self.records[row].key, {}).get("ventricles_ml") for row in (triple.first, triple.target)
        ]
        if known[0] is not None and known[1] is not None:
            self.used.add("truth")
            change = known[1] - known[0]
        else:
            self.used.add("measured")
            change = self.of_scan(triple.target) - self.of_scan(triple.first)
        return abs(self.measure(image) - self.of_scan(triple.first) - change)


def _facts(
    scans: EncodedScans, triple: Triple, truth: Mapping[str, Mapping[str, float]] | None, voxel_mm: float
) -> dict[str, Any]:
    first, target, second = (scans.records[row] for row in (triple.first, triple.target, triple.second))
    facts = {
        "participant_id": target.participant_id,
        "first": first.session_id,
        "target": target.session_id,
        "second": second.session_id,
        "weight": triple.weight,
        "gap_months": triple.gap_months,
        "diagnosis": target.diagnosis,
    }
    walls = [(truth or {}).get(record.key, {}).get("ventricle_mm") for record in (first, second)]
    if walls[0] is not None and walls[1] is not None:
        facts["boundary_voxels"] = abs(walls[1] - walls[0]) / voxel_mm
    return facts


def _without_nan(value: Any) -> Any:
    """The same with None where nothing could be measured, as JSON has no other word for it."""
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _mean(values: npt.NDArray[np.float64]) -> float:
    """The mean of what could be measured; NaN if nothing could."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


CHANGE_METRICS = ("change_error", "change_correlation")
Scores = Mapping[str, Mapping[str, npt.NDArray[np.float64]]]


def _intervals(scores: Scores, subjects: Sequence[str], resamples: int, seed: int) -> dict[str, dict[str, Interval]]:
    if len(set(subjects)) < FEW_SUBJECTS:
        return {}
    return {
        metric: {
            name: subject_bootstrap(
                lambda rows, values=values: _mean(values[rows]),  # type: ignore[misc]
                subjects,
                generator=np.random.default_rng(seed),
                resamples=resamples,
            )
            for name, values in of.items()
            if np.isfinite(values).any()
        }
        for metric, of in scores.items()
    }


def _differences(
    scores: Scores, subjects: Sequence[str], resamples: int, seed: int
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    if len(set(subjects)) < FEW_SUBJECTS:
        return {}
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for metric, of in scores.items():
        for own in OWN:
            if own not in of or not np.isfinite(of[own]).all():
                continue
            against: dict[str, Difference] = {
                rival: paired_difference(
                    lambda rows, mine=of[own]: _mean(mine[rows]),  # type: ignore[misc]
                    lambda rows, other=of[rival]: _mean(other[rows]),  # type: ignore[misc]
                    subjects,
                    generator=np.random.default_rng(seed),
                    resamples=resamples,
                )
                for rival in RIVALS
                if rival in of
            }
            adjusted = holm([each.p for each in against.values()])
            found.setdefault(metric, {})[own] = {
                rival: asdict(each) | {"p_holm": p} for (rival, each), p in zip(against.items(), adjusted, strict=True)
            }
    return found


def _groups(
    table: pd.DataFrame, methods: Sequence[str], resamples: int, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Means by length of the gap, by diagnosis, and by how far the boundary moved."""
    parts: dict[str, dict[str, pd.Series]] = {
        "gap": {name: (table["gap_months"] >= low) & (table["gap_months"] < high) for name, low, high in GAPS},
        "diagnosis": {str(name): table["diagnosis"] == name for name in sorted(table["diagnosis"].dropna().unique())},
    }
    if "boundary_voxels" in table:
        moved = table["boundary_voxels"]
        parts["boundary"] = {name: (moved >= low) & (moved < high) for name, low, high in BOUNDARY}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, masks in parts.items():
        for name, mask in masks.items():
            chosen = table[mask]
            rows = {method: chosen[chosen["method"] == method] for method in methods}
            scores = {
                metric: {method: of[metric].to_numpy(dtype=np.float64) for method, of in rows.items()}
                for metric in METRICS
                if len(chosen)
            }
            group: dict[str, Any] = {
                "n": len(rows[methods[0]]),
                "subjects": int(chosen["participant_id"].nunique()),
                **{metric: {method: _mean(values) for method, values in of.items()} for metric, of in scores.items()},
            }
            if kind != "diagnosis" and scores:
                change = {metric: scores[metric] for metric in CHANGE_METRICS}
                people = rows[methods[0]]["participant_id"].tolist()
                group["differences"] = _differences(change, people, resamples, seed)
            found.setdefault(kind, {})[name] = group
    return found
