"""Means, intervals and paired differences of the methods that predict missing sessions, over subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldae.metrics.statistics import Interval, holm, mean_of, paired_difference, subject_bootstrap

__all__ = ["METRICS", "OWN", "RIVALS", "compare_groups", "differences", "intervals", "known_mean", "scores_of"]

METRICS = {
    "ssim": True,
    "ssim_brain": True,
    "psnr": True,
    "mse": False,
    "change_error": False,
    "change_correlation": True,
    "ventricle_error_ml": False,
}
"""True if a larger value is better."""
CHANGE_METRICS = ("change_error", "change_correlation")
OWN = ("ldae_residual", "trajectory_residual")
"""Methods that are compared with the others; the last of them that could be run is the one that is reported."""
RIVALS = ("copy_nearest", "voxel_linear", "voxel_trajectory", "latent_linear")
GAPS = (("under 12 months", 0.0, 12.0), ("12 to 23 months", 12.0, 24.0), ("24 months and more", 24.0, np.inf))
BOUNDARY = (("under 0.5 voxels", 0.0, 0.5), ("0.5 to 1 voxel", 0.5, 1.0), ("over 1 voxel", 1.0, np.inf))
FEW_SUBJECTS = 3

Array = npt.NDArray[np.float64]
Scores = Mapping[str, Mapping[str, Array]]
"""Values of each triple by metric and method."""


def scores_of(table: pd.DataFrame, methods: Sequence[str], metrics: Sequence[str] = tuple(METRICS)) -> Scores:
    """Values of each triple, in the order of the table, by metric and method.

    Args:
        table: a row for each triple and method.
        methods: to compare.
        metrics: to compare in.
    """
    of = {method: table[table["method"] == method] for method in methods}
    return {
        metric: {method: rows[metric].to_numpy(dtype=np.float64) for method, rows in of.items()} for metric in metrics
    }


def known_mean(values: Array) -> float:
    """Mean of the values that could be measured; NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def intervals(scores: Scores, subjects: Sequence[str], resamples: int, seed: int) -> dict[str, dict[str, Interval]]:
    """Means with 95 % intervals over subjects, by metric and method; empty for fewer than three subjects."""
    if len(set(subjects)) < FEW_SUBJECTS:
        return {}
    return {
        metric: {
            name: subject_bootstrap(mean_of(values), subjects, seed=seed, resamples=resamples)
            for name, values in of.items()
            if np.isfinite(values).any()
        }
        for metric, of in scores.items()
    }


def differences(
    scores: Scores, subjects: Sequence[str], resamples: int, seed: int
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Own method minus rival, by metric, own method and rival, p adjusted over rivals; empty for fewer than three subjects."""
    if len(set(subjects)) < FEW_SUBJECTS:
        return {}
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for metric, of in scores.items():
        for own in OWN:
            if own not in of or not np.isfinite(of[own]).all():
                continue
            against = {
                rival: paired_difference(mean_of(of[own]), mean_of(of[rival]), subjects, seed=seed, resamples=resamples)
                for rival in RIVALS
                if rival in of
            }
            adjusted = holm([each.p for each in against.values()])
            found.setdefault(metric, {})[own] = {
                rival: asdict(each) | {"p_holm": p} for (rival, each), p in zip(against.items(), adjusted, strict=True)
            }
    return found


def compare_groups(
    table: pd.DataFrame, methods: Sequence[str], resamples: int, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Means by length of the gap, by diagnosis, and by movement of the ventricle's boundary.

    Args:
        table: a row for each triple and method.
        methods: to compare.
        resamples: of the bootstrap.
        seed: of the resamples.
    """
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
            subjects = chosen.loc[chosen["method"] == methods[0], "participant_id"].tolist()
            group: dict[str, Any] = {"n": len(subjects), "subjects": len(set(subjects))}
            if len(chosen):
                scores = scores_of(chosen, methods)
                group |= {m: {method: known_mean(values) for method, values in of.items()} for m, of in scores.items()}
                if kind != "diagnosis":
                    change = {metric: scores[metric] for metric in CHANGE_METRICS}
                    group["differences"] = differences(change, subjects, resamples, seed)
            found.setdefault(kind, {})[name] = group
    return found
