"""A subject's code over time: a line through all its sessions, shrunk toward the cohort's slope where sessions are few."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import Record
from ldae.errors import TaskError
from ldae.tasks.encode import encode_scans
from ldae.tasks.encoded_scans import Progress

__all__ = ["TrajectoryPrior", "fit_trajectory_prior", "line_weights", "sessions_of", "train_trajectory_prior"]

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
ONE = np.ones(1)
"""The covariates of a prior whose mean slope is the same for all."""


@dataclass(frozen=True)
class TrajectoryPrior:
    """Change of the codes of a cohort, or of other numbers: slopes and noise of each, per month.

    Attributes:
        slope: mean over subjects, for each of K covariates, (K, S); the mean slope of a subject is its covariates times this.
        slope_variance: between subjects of the same covariates, (S,).
        noise_variance: of a session about its subject's line, (S,).
    """

    slope: Array
    slope_variance: Array
    noise_variance: Array

    def predict(self, codes: Array, months: Array, month: float, covariates: Array = ONE) -> Array:
        """The code of a subject at a month, before, between or after its sessions, (S,).

        The slope is the posterior mean of a line with this prior and a free level (Laird and Ware 1982, known variances).

        Args:
            codes: of its sessions, (N, S).
            months: of the sessions, (N,).
            month: to predict.
            covariates: of the subject, (K,); the first is 1.

        Raises:
            TaskError: without a session.
        """
        if not len(codes):
            msg = "no session to start from; give at least one encoded scan with a month"
            raise TaskError(msg)
        from_mean = months - months.mean()
        weight = float(np.square(from_mean).sum())
        evidence = weight * self.slope_variance / np.maximum(self.noise_variance, 1e-12)
        expected = covariates @ self.slope
        own = from_mean @ codes / weight if weight > 0 else expected
        slope = expected + evidence / (1 + evidence) * (own - expected)
        predicted: Array = codes.mean(axis=0) + slope * (month - months.mean())
        return predicted

    def variance(self, months: Array, month: float) -> Array:
        """Variance of a session at a month about :meth:`predict`, of known variances, (S,)."""
        evidence = (
            np.square(months - months.mean()).sum() * self.slope_variance / np.maximum(self.noise_variance, 1e-12)
        )
        found: Array = self.noise_variance * (1 + 1 / len(months)) + (
            month - months.mean()
        ) ** 2 * self.slope_variance / (1 + evidence)
        return found


def train_trajectory_prior(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    scored: Collection[str],
    *,
    progress: Progress = lambda done, total: None,
) -> TrajectoryPrior:
    """The prior of a manifest's training subjects.

    Args:
        model: the trained model.
        records: rows of the manifest.
        scored: subjects that must not contribute.
        progress: called with (done, total) scans.

    Raises:
        TaskError: if too few training subjects remain.
    """
    training = [each for each in records if each.split == "train" and each.participant_id not in scored]
    if not training:
        msg = "no subject of the training split remains who is not scored"
        raise TaskError(msg)
    scans = encode_scans(model, training, progress=progress)
    return fit_trajectory_prior(scans.records, scans.semantic)


def line_weights(months: Array, month: float) -> Array:
    """Weight of each session in the least-squares line through all of them at a month, (N,); the sum is 1.

    Args:
        months: of the sessions, (N,), not all the same.
        month: of the line's value.

    Raises:
        TaskError: without two distinct months.
    """
    from_mean = months - months.mean() if len(months) else months
    spread = float(np.square(from_mean).sum())
    if spread == 0:
        msg = f"a line needs sessions at two months or more, got {months.tolist()}; fill the months column"
        raise TaskError(msg)
    weights: Array = 1 / len(months) + from_mean * (month - months.mean()) / spread
    return weights


def sessions_of(records: Sequence[Record]) -> Mapping[str, Rows]:
    """Rows of each subject's dated sessions, in time."""
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        if record.months is not None:
            rows.setdefault(record.participant_id, []).append(row)
    return {
        name: np.array(sorted(each, key=lambda row: records[row].months or 0.0), dtype=np.int64)
        for name, each in rows.items()
    }


def fit_trajectory_prior(records: Sequence[Record], codes: Array, covariates: Array | None = None) -> TrajectoryPrior:
    """Slopes and noise by the method of moments, from subjects with two sessions or more (noise: three or more).

    Args:
        records: of training subjects.
        codes: y of each, (N, S).
        covariates: of each, (N, K), the first of them 1; those of a subject's first session count. None: 1 alone.

    Raises:
        TaskError: if fewer than three subjects have two dated sessions, or none has three.
    """
    slopes, weights, firsts = [], [], []
    squares, freedom = np.zeros(codes.shape[1]), 0
    for rows in sessions_of(records).values():
        months = np.array([float(records[row].months or 0.0) for row in rows])
        from_mean = months - months.mean()
        weight = float(np.square(from_mean).sum())
        if len(rows) < 2 or weight == 0:
            continue
        slope = from_mean @ codes[rows] / weight
        slopes.append(slope)
        weights.append(weight)
        firsts.append(ONE if covariates is None else covariates[rows[0]])
        if len(rows) > 2:
            residual = codes[rows] - codes[rows].mean(axis=0) - np.outer(from_mean, slope)
            squares += np.square(residual).sum(axis=0)
            freedom += len(rows) - 2
    if len(slopes) < 3 or not freedom:
        msg = (
            f"{len(slopes)} subjects have two dated sessions and {freedom} sessions are beyond two; a prior over time needs "
            "three subjects and one session more: use a longitudinal manifest with months"
        )
        raise TaskError(msg)
    noise = squares / freedom
    own, x, w = np.stack(slopes), np.stack(firsts), np.array(weights)
    root = np.sqrt(w)[:, None]
    mean = np.linalg.lstsq(root * x, root * own, rcond=None)[0]
    # The weighted variance of slopes includes their noise, which is subtracted (DerSimonian and Laird 1986).
    spread = w @ np.square(own - x @ mean) - (len(own) - x.shape[1]) * noise
    scale = w.sum() - np.trace(np.linalg.pinv((root * x).T @ (root * x)) @ (x.T * w**2) @ x)
    return TrajectoryPrior(mean, np.maximum(spread / scale, 0.0), noise)
