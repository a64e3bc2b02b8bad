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


@dataclass(frozen=True)
class TrajectoryPrior:
    """Change of the codes of a cohort: slopes and noise of each number of y, per month.

    Attributes:
        slope: mean over subjects, (S,).
        slope_variance: between subjects, (S,).
        noise_variance: of a session about its subject's line, (S,).
    """

    slope: Array
    slope_variance: Array
    noise_variance: Array

    def predict(self, codes: Array, months: Array, month: float) -> Array:
        """The code of a subject at a month, before, between or after its sessions, (S,).

        The slope is the posterior mean of a line with this prior and a free level (Laird and Ware 1982, known variances).

        Args:
            codes: of its sessions, (N, S).
            months: of the sessions, (N,).
            month: to predict.

        Raises:
            TaskError: without a session.
        """
        if not len(codes):
            msg = "no session to start from; give at least one encoded scan with a month"
            raise TaskError(msg)
        from_mean = months - months.mean()
        weight = float(np.square(from_mean).sum())
        evidence = weight * self.slope_variance / np.maximum(self.noise_variance, 1e-12)
        own = from_mean @ codes / weight if weight > 0 else self.slope
        slope = self.slope + evidence / (1 + evidence) * (own - self.slope)
        predicted: Array = codes.mean(axis=0) + slope * (month - months.mean())
        return predicted


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


def fit_trajectory_prior(records: Sequence[Record], codes: Array) -> TrajectoryPrior:
    """Slopes and noise by the method of moments, from subjects with two sessions or more (noise: three or more).

    Args:
        records: of training subjects.
        codes: y of each, (N, S).

    Raises:
        TaskError: if fewer than three subjects have two dated sessions, or none has three.
    """
    slopes, weights = [], []
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
    own, share = np.stack(slopes), np.array(weights) / np.sum(weights)
    mean = share @ own
    # The weighted variance of slopes includes their noise, which is subtracted (DerSimonian and Laird 1986).
    spread = np.array(weights) @ np.square(own - mean) - (len(own) - 1) * noise
    scale = np.sum(weights) - np.square(weights).sum() / np.sum(weights)
    return TrajectoryPrior(mean, np.maximum(spread / scale, 0.0), noise)
