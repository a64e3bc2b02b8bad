"""The protocol of manipulation: what an edit does to every probe and volume, to identity, and where, beside what it should."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control, ttest_1samp

from ldae.errors import TaskError
from ldae.metrics.statistics import Interval, subject_bootstrap
from ldae.tasks.edit.manipulate import Edits
from ldae.tasks.encode import EncodedScans
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.targets import column_of

__all__ = ["EditMap", "ManipulationFindings", "effect_map", "evaluate_edits", "map_edit"]

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
FALSE_DISCOVERY_RATE = 0.05


@dataclass(frozen=True)
class ManipulationFindings:
    """What edits of one scan of each subject did.

    Attributes:
        steps: signed, in standard deviations of the training cohort along the direction.
        probes: mean value of every probe on the re-encoded images, at each step, by name.
        probe_slopes: change of each probe a step, mean over subjects with its interval: logits, or the target's unit.
        own_nearest_image: share of edited images that are nearest to their own subject's scan among all, at each step.
        own_nearest_code: the same for the re-encoded y.
        flipped: share of subjects that were below one half at step 0 and are above it at the last step; None for numbers.
        flip_step: median step, interpolated, at which those cross one half; None if nobody does.
        outside_brain: mean absolute change a voxel outside the scan's brain over that inside, at the last step; None where
            scans have no background.
    """

    steps: list[float]
    probes: dict[str, list[float]]
    probe_slopes: dict[str, Interval]
    own_nearest_image: list[float]
    own_nearest_code: list[float]
    flipped: float | None
    flip_step: float | None
    outside_brain: float | None


@dataclass(frozen=True)
class EditMap:
    """Where an edit changes images, over subjects.

    Attributes:
        mean: of the changes, (D, H, W), on the images' scale of [0, 1].
        significant: where it differs from zero at a false discovery rate of 0.05 (Benjamini and Hochberg 1995).
        share: of the brain's voxels that are.
        effect_correlations: with each map of what the target is known to change, inside the brain, by its name.
    """

    mean: Image
    significant: npt.NDArray[np.bool_]
    share: float
    effect_correlations: dict[str, float]


def evaluate_edits(
    edits: Sequence[Edits],
    scans: EncodedScans,
    probe: LinearProbe,
    others: Mapping[str, LinearProbe] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> ManipulationFindings:
    """Ask every probe of the edited images, and whose they look like.

    Args:
        edits: of the scans, in their order, with step 0.
        scans: one of each subject.
        probe: whose direction was followed.
        others: further probes, by name: does a direction of disease change the predicted age?
        resamples: of the bootstrap.
        seed: of the resamples.

    Raises:
        TaskError: if edits and scans do not belong together, or step 0 is missing.
    """
    if len(edits) != len(scans) or not edits or 0.0 not in edits[0].steps:
        msg = f"{len(edits)} edits of {len(scans)} scans: one of each, with step 0 among the steps, is needed"
        raise TaskError(msg)
    steps = np.array(edits[0].steps)
    codes = np.stack([edit.semantic for edit in edits])
    subjects = [record.participant_id for record in scans.records]
    named = {"direction": probe, **(others or {})}
    values = {name: np.stack([each.value(y) for y in codes]) for name, each in named.items()}
    predicted = {name: np.stack([each.predict(y) for y in codes]) for name, each in named.items()}
    slopes = {}
    for name, each in values.items():
        slope = np.polyfit(steps, each.T, 1)[0]
        slopes[name] = subject_bootstrap(
            lambda rows, slope=slope: float(slope[rows].mean()),  # type: ignore[misc]
            subjects,
            generator=np.random.default_rng(seed),
            resamples=resamples,
        )
    flipped = flip_step = None
    if probe.logistic:
        flipped, flip_step = _flips(steps, predicted["direction"])
    last = int(steps.argmax())
    return ManipulationFindings(
        steps=steps.tolist(),
        probes={name: each.mean(axis=0).tolist() for name, each in predicted.items()},
        probe_slopes=slopes,
        own_nearest_image=_own_nearest(np.stack([edit.images for edit in edits]), scans.images),
        own_nearest_code=_own_nearest(codes, scans.semantic),
        flipped=flipped,
        flip_step=flip_step,
        outside_brain=_outside(edits, scans, last),
    )


def _flips(steps: Array, probability: Array) -> tuple[float | None, float | None]:
    """Share that crosses one half on the way up, and the median step where."""
    zero = int(np.flatnonzero(steps == 0)[0])
    upward = steps >= 0
    starts = probability[:, zero] < 0.5
    if not starts.any() or upward.sum() < 2:
        return None, None
    crossings = []
    for row in probability[starts][:, upward]:
        above = np.flatnonzero(row >= 0.5)
        if len(above):
            at = above[0]
            crossings.append(float(np.interp(0.5, row[at - 1 : at + 1], steps[upward][at - 1 : at + 1])))
    return len(crossings) / int(starts.sum()), float(np.median(crossings)) if crossings else None


def _own_nearest(edited: npt.NDArray[np.floating], originals: npt.NDArray[np.floating]) -> list[float]:
    """Share of edits (N, K, ...) whose nearest original (N, ...) is their own, at each step."""
    reference = originals.reshape(len(originals), -1).astype(np.float64)
    norms = np.square(reference).sum(axis=1)
    shares = []
    for step in range(edited.shape[1]):
        each = edited[:, step].reshape(len(edited), -1).astype(np.float64)
        # Squared distances, less the part that is the same for every candidate.
        distance = norms[None] - 2 * each @ reference.T
        shares.append(float((distance.argmin(axis=1) == np.arange(len(edited))).mean()))
    return shares


def _outside(edits: Sequence[Edits], scans: EncodedScans, last: int) -> float | None:
    zero = edits[0].steps.index(0.0)
    inside, outside = [], []
    for edit, scan in zip(edits, scans.images, strict=True):
        change = np.abs(edit.images[last] - edit.images[zero])
        if (scan == 0).any() and (scan > 0).any():
            inside.append(change[scan > 0].mean())
            outside.append(change[scan == 0].mean())
    return float(np.mean(outside) / max(float(np.mean(inside)), 1e-12)) if inside else None


def map_edit(edits: Sequence[Edits], images: Image, effects: Mapping[str, Image] | None = None) -> EditMap:
    """The mean change from step 0 to the last step, and where it is no chance.

    Args:
        edits: one of each subject, three or more.
        images: the real scans, (N, D, H, W), whose brains are asked.
        effects: what the target is known to change, (D, H, W) each, by name: from real scans (:func:`effect_map`), or the
            truth of a phantom.

    Raises:
        TaskError: for fewer than three subjects.
    """
    if len(edits) < 3:
        msg = f"a map over subjects needs three of them, got {len(edits)}; edit more scans"
        raise TaskError(msg)
    steps = np.array(edits[0].steps)
    last, zero = int(steps.argmax()), int(np.flatnonzero(steps == 0)[0])
    changes = np.stack([edit.images[last] - edit.images[zero] for edit in edits])
    brain = (images > 0).mean(axis=0) > 0.5
    p = ttest_1samp(changes[:, brain].astype(np.float64), 0.0).pvalue
    significant = np.zeros(brain.shape, dtype=bool)
    significant[brain] = false_discovery_control(np.nan_to_num(p, nan=1.0)) <= FALSE_DISCOVERY_RATE
    mean: Image = changes.mean(axis=0)
    correlations = {
        name: float(np.corrcoef(mean[brain], effect[brain])[0, 1])
        for name, effect in (effects or {}).items()
        if mean[brain].std() > 0 and effect[brain].std() > 0
    }
    return EditMap(mean, significant, float(significant[brain].mean()), correlations)


def effect_map(images: Image, scans: EncodedScans, positive: str, negative: str) -> Image:
    """What the diagnosis changes in real scans: voxelwise regression on it, with age and sex (Ashburner and Friston 2000).

    Args:
        images: of the scans, or their noise-free twins, (N, D, H, W).
        scans: with diagnoses; ages and sexes are taken out as far as all are known.
        positive: diagnosis that counts as 1.
        negative: diagnosis that counts as 0.

    Returns:
        Positive minus negative, (D, H, W).

    Raises:
        TaskError: if a class is lacking.
    """
    rows = [row for row, record in enumerate(scans.records) if record.diagnosis in (positive, negative)]
    labels = np.array([float(scans.records[row].diagnosis == positive) for row in rows])
    if len(rows) < 4 or labels.min() == labels.max():
        msg = f"a map of {positive} against {negative} needs scans of both, got {int(labels.sum())} and {int((1 - labels).sum())}"
        raise TaskError(msg)
    columns: list[Array] = [np.ones(len(rows)), labels]
    for name, number in (("age", float), ("sex", lambda value: float(value == "F"))):
        values: list[Any] = [column_of(name)(scans.records[row]) for row in rows]
        if all(value is not None for value in values) and len(set(values)) > 1:
            columns.append(np.array([number(value) for value in values]))
    design = np.stack(columns, axis=1)
    solution = np.linalg.lstsq(design, images[rows].reshape(len(rows), -1).astype(np.float64), rcond=None)[0]
    effect: Image = solution[1].reshape(images.shape[1:]).astype(np.float32)
    return effect
