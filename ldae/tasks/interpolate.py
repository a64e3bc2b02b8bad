"""Interpolate: a scan at a month between two sessions, scored against the real scan of that month."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.codes import Codes, interpolate
from ldae.errors import TaskError
from ldae.evaluation.change import change_correlation, change_error
from ldae.evaluation.image_metrics import compare_images
from ldae.tasks.encode import EncodedScans

__all__ = [
    "METHODS",
    "InterpolateResult",
    "Triple",
    "evaluate_interpolation",
    "find_triples",
    "interpolate_codes",
    "interpolate_subject",
    "predict_between",
]

Images = npt.NDArray[np.float32]

METHODS = ("ldae", "ldae_residual", "latent_linear", "voxel_linear", "copy_nearest", "ceiling")
"""Codes; codes with the residual that compression lost; latents; voxels; the nearer session; the target's compression."""


@dataclass(frozen=True)
class Triple:
    """Rows of three sessions of one subject, in time.

    Attributes:
        first: the earlier session.
        target: the one to predict.
        second: the later session.
        weight: (tau - t_0) / (t_1 - t_0).
        gap_months: t_1 - t_0.
    """

    first: int
    target: int
    second: int
    weight: float
    gap_months: float


@dataclass(frozen=True)
class InterpolateResult:
    """Means over triples, against the real scan of the missing month.

    Attributes:
        n: number of triples.
        subjects: number of subjects.
        ssim: over the whole grid, by method.
        ssim_brain: inside the brain, by method.
        mse: by method.
        change_error: relative error of the change since the first session inside the brain, by method; copying the
            first session scores 1.
        change_correlation: correlation of predicted and true change, by method.
        gap_months: mean distance of the two given sessions.
    """

    n: int
    subjects: int
    ssim: dict[str, float]
    ssim_brain: dict[str, float]
    mse: dict[str, float]
    change_error: dict[str, float]
    change_correlation: dict[str, float]
    gap_months: float


def interpolate_codes(first: Codes, second: Codes, months: tuple[float, float], target_month: float) -> Codes:
    """Codes at a month between two sessions.

    Args:
        first: codes of the earlier session.
        second: codes of the later session.
        months: of the two sessions.
        target_month: in between (the ends give the sessions themselves).

    Raises:
        TaskError: if the months are not in order.
    """
    start, end = months
    if not start < end or not start <= target_month <= end:
        msg = f"the month must lie between two sessions in order, got {target_month:g} for sessions at {start:g} and {end:g}"
        raise TaskError(msg)
    return interpolate(first, second, (target_month - start) / (end - start))


def interpolate_subject(scans: EncodedScans, months: Sequence[float]) -> list[tuple[float, Codes]]:
    """Codes of one subject at some months, each between the two sessions nearest around it.

    Args:
        scans: sessions of one subject, with noise codes.
        months: since baseline.

    Raises:
        TaskError: if a session has no month, or a month lies outside the sessions.
    """
    dated = [(record.months, row) for row, record in enumerate(scans.records) if record.months is not None]
    if len(dated) < 2:
        msg = f"two sessions with months are needed to interpolate between, got {len(dated)}; fill the months column"
        raise TaskError(msg)
    ordered = sorted(dated)
    found = []
    for month in months:
        before = [each for each in ordered if each[0] <= month]
        after = [each for each in ordered if each[0] >= month]
        if not before or not after:
            msg = f"month {month:g} lies outside the sessions at {ordered[0][0]:g} to {ordered[-1][0]:g}; choose one in between"
            raise TaskError(msg)
        (start, first), (end, second) = before[-1], after[0]
        codes = scans.codes[first]
        if start < end:
            codes = interpolate_codes(codes, scans.codes[second], (start, end), month)
        found.append((float(month), codes))
    return found


def find_triples(scans: EncodedScans) -> list[Triple]:
    """Every (first, between, last) of each subject with three or more dated sessions; each inner session once."""
    by_subject: dict[str, list[tuple[float, int]]] = {}
    for row, record in enumerate(scans.records):
        if record.months is not None:
            by_subject.setdefault(record.participant_id, []).append((record.months, row))
    triples = []
    for sessions in by_subject.values():
        ordered = sorted(sessions)
        (start, first), (end, second) = ordered[0], ordered[-1]
        for month, row in ordered[1:-1]:
            if start < month < end:
                triples.append(Triple(first, row, second, (month - start) / (end - start), end - start))
    return triples


def predict_between(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, decoded: Images, triples: Sequence[Triple]
) -> dict[str, Images]:
    """Every method's predictions, each (N, D, H, W).

    The residual-corrected estimate D(c_tau) + (1 - w)(x_0 - D(c_0)) + w (x_1 - D(c_1)) keeps the detail of the two real
    scans that compression loses.

    Args:
        model: the trained model.
        scans: encoded, with noise codes.
        decoded: reconstructions of all scans from both codes, (M, D, H, W).
        triples: which to predict, N.
    """
    first, target, second = ([getattr(triple, end) for triple in triples] for end in ("first", "target", "second"))
    weights = np.array([triple.weight for triple in triples], dtype=np.float32)

    def blend(start: Images, end: Images) -> Images:
        w = weights.reshape(-1, *[1] * (start.ndim - 1))
        return (1 - w) * start + w * end

    between = model.decode_images([interpolate(scans.codes[t.first], scans.codes[t.second], t.weight) for t in triples])
    residual = scans.images - decoded
    nearest = [triple.first if triple.weight < 0.5 else triple.second for triple in triples]
    return {
        "ldae": between,
        "ldae_residual": np.clip(between + blend(residual[first], residual[second]), 0.0, 1.0),
        "latent_linear": model.decompress(torch.from_numpy(blend(scans.latents[first], scans.latents[second]))),
        "voxel_linear": blend(scans.images[first], scans.images[second]),
        "copy_nearest": scans.images[nearest],
        "ceiling": model.decompress(torch.from_numpy(scans.latents[target])),
    }


def evaluate_interpolation(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    decoded: Images,
    triples: Sequence[Triple],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> InterpolateResult:
    """Score every method on every triple, `batch_size` at a time; other arguments as of :func:`predict_between`.

    Raises:
        TaskError: if there is no triple.
    """
    if not triples:
        msg = "no subject has three dated sessions, so no missing scan can be scored; give a longitudinal manifest with months"
        raise TaskError(msg)
    values: dict[str, dict[str, list[float]]] = {
        metric: {method: [] for method in METHODS}
        for metric in ("ssim", "ssim_brain", "mse", "change_error", "change_correlation")
    }
    for start in range(0, len(triples), batch_size):
        batch = triples[start : start + batch_size]
        targets = scans.images[[triple.target for triple in batch]]
        starts = scans.images[[triple.first for triple in batch]]
        for method, images in predict_between(model, scans, decoded, batch).items():
            agreement = compare_images(images, targets)
            for metric in ("ssim", "ssim_brain", "mse"):
                values[metric][method] += getattr(agreement, metric).tolist()
            for metric, measure in (("change_error", change_error), ("change_correlation", change_correlation)):
                values[metric][method] += [measure(*each) for each in zip(images, targets, starts, strict=True)]
        if progress is not None:
            progress(start + len(batch), len(triples))
    means = {
        metric: {method: float(np.mean(each)) for method, each in methods.items()} for metric, methods in values.items()
    }
    return InterpolateResult(
        n=len(triples),
        subjects=len({scans.records[triple.first].participant_id for triple in triples}),
        gap_months=float(np.mean([triple.gap_months for triple in triples])),
        **means,
    )
