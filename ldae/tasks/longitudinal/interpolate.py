"""Interpolate: a scan at a month between two sessions, or before and after them, by several methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.codes import Codes, interpolate
from ldae.errors import TaskError
from ldae.tasks.encoded_scans import EncodedScans
from ldae.tasks.longitudinal.trajectory import TrajectoryPrior, line_weights, sessions_of
from ldae.tasks.sample import sample

__all__ = [
    "METHODS",
    "Between",
    "Sessions",
    "Triple",
    "draw_spread",
    "find_triples",
    "interpolate_subject",
    "nearest_session",
    "predict_between",
    "with_residual",
]

Images = npt.NDArray[np.float32]

METHODS = (
    "ldae",
    "ldae_residual",
    "trajectory",
    "trajectory_residual",
    "latent_linear",
    "voxel_linear",
    "voxel_trajectory",
    "copy_nearest",
    "ceiling",
)
"""Codes between two sessions; with the residual of compression; y on the line through all other sessions; that line of images
that the code has carried to the month; latents; voxels; voxels on that line; the nearer session; the compressed target."""


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
class Between:
    """Codes of one subject at a month.

    Attributes:
        month: since baseline.
        codes: at that month.
        first: row of the session before it.
        second: row of the session after it; at a session's own month both are that session.
        weight: of the second.
    """

    month: float
    codes: Codes
    first: int
    second: int
    weight: float


def interpolate_subject(scans: EncodedScans, months: Sequence[float]) -> list[Between]:
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
        weight = (month - start) / (end - start) if start < end else 0.0
        codes = interpolate(scans.codes[first], scans.codes[second], weight)
        found.append(Between(float(month), codes, first, second, weight))
    return found


def with_residual(image: Images, between: Between, originals: Images, decoded: Images) -> Images:
    """The residual-corrected estimate D(c_tau) + (1 - w)(x_0 - D(c_0)) + w (x_1 - D(c_1)), (D, H, W) in [0, 1].

    It keeps the detail of the two real scans that compression loses; at a session's own month it is the scan itself.

    Args:
        image: decoded from the codes at the month.
        between: which month.
        originals: the scans before and after it, (2, D, H, W).
        decoded: decoded from their codes, (2, D, H, W).
    """
    lost = originals - decoded
    estimate: Images = image + (1 - between.weight) * lost[0] + between.weight * lost[1]
    return np.clip(estimate, 0.0, 1.0).astype(np.float32)


def nearest_session(scans: EncodedScans, month: float) -> int:
    """The row of the session nearest to a month, the earlier of two that are as near.

    Args:
        scans: sessions of one subject, at least one of them with its month.
        month: since baseline.
    """
    dated = [(record.months, row) for row, record in enumerate(scans.records) if record.months is not None]
    return min(dated, key=lambda each: (abs(each[0] - month), each))[1]


def find_triples(scans: EncodedScans) -> list[Triple]:
    """Every three dated sessions of each subject, the middle one to be predicted from the others."""
    triples = []
    for rows in sessions_of(scans.records).values():
        for first, target, second in combinations(rows.tolist(), 3):
            start, month, end = (float(scans.records[row].months or 0.0) for row in (first, target, second))
            if start < month < end:
                triples.append(Triple(first, target, second, (month - start) / (end - start), end - start))
    return triples


@dataclass(frozen=True, eq=False)
class Sessions:
    """All scans of a few subjects with their images, to predict some from others; made by :meth:`of`.

    Attributes:
        scans: M of them, with noise codes.
        images: the real scans, (M, D, H, W).
        decoded: reconstructions from both codes, (M, D, H, W).
        latents: standardised, (M, C, d, h, w).
    """

    scans: EncodedScans
    images: Images
    decoded: Images
    latents: torch.Tensor

    @classmethod
    def of(cls, model: LatentDiffusionAutoencoder, scans: EncodedScans, batch_size: int = 16) -> "Sessions":
        """Read and decode these scans.

        Args:
            model: that encoded them.
            scans: with noise codes.
            batch_size: scans at a time.
        """
        decoded = [model.decode_images(batch.codes) for batch in scans.batches(batch_size)]
        return cls(scans, scans.images(), np.concatenate(decoded), scans.latents())


def predict_between(
    model: LatentDiffusionAutoencoder,
    sessions: Sessions,
    triples: Sequence[Triple],
    prior: TrajectoryPrior | None = None,
) -> dict[str, Images]:
    """Every method's predictions, each (N, D, H, W).

    The residual-corrected estimate D(c_tau) + (1 - w)(x_0 - D(c_0)) + w (x_1 - D(c_1)) keeps the detail of the two real
    scans that compression loses. Over all other sessions k it is sum_k a_k (x_k + D(y_tau, z_k) - D(c_k)): the code carries
    each to the month, and least squares lay a line through them (:func:`~ldae.tasks.longitudinal.trajectory.line_weights`).
    Of two sessions the weights are 1 - w and w.

    Args:
        model: the trained model.
        sessions: all scans of the triples' subjects.
        triples: which to predict, N; their rows are those of the sessions.
        prior: of codes over time; without it there are no trajectories of codes.
    """
    scans, real, decoded, latents = sessions.scans, sessions.images, sessions.decoded, sessions.latents.numpy()
    first, target, second = ([getattr(triple, end) for triple in triples] for end in ("first", "target", "second"))
    weights = np.array([triple.weight for triple in triples], dtype=np.float32)

    def blend(start: Images, end: Images) -> Images:
        w = weights.reshape(-1, *[1] * (start.ndim - 1))
        return (1 - w) * start + w * end

    codes = [interpolate(scans.codes[t.first], scans.codes[t.second], t.weight) for t in triples]
    lost = blend(real[first] - decoded[first], real[second] - decoded[second])
    nearest = [triple.first if triple.weight < 0.5 else triple.second for triple in triples]
    others = _others(scans, triples)
    lines = [(rows, line_weights(months, month)) for rows, months, month in others]
    between = model.decode_images(codes)
    found = {"ldae": between, "ldae_residual": np.clip(between + lost, 0.0, 1.0)}
    if prior is not None:
        known = scans.semantic
        semantics = [
            torch.from_numpy(prior.predict(known[rows], months, month)).float() for rows, months, month in others
        ]
        found["trajectory"] = model.decode_images(
            [each.with_semantic(y) for each, y in zip(codes, semantics, strict=True)]
        )
        carried: dict[int, Images] = {}
        for triple, (rows, _), y in zip(triples, lines, semantics, strict=True):
            if triple.target not in carried:  # another pair of sessions around it changes nothing
                moved = model.decode_images([scans.codes[row].with_semantic(y) for row in rows])
                carried[triple.target] = real[rows] + moved - decoded[rows]
        found["trajectory_residual"] = np.clip(_on_lines(lines, [carried[t.target] for t in triples]), 0.0, 1.0)
    return found | {
        "latent_linear": model.decompress(torch.from_numpy(blend(latents[first], latents[second]))),
        "voxel_linear": blend(real[first], real[second]),
        "voxel_trajectory": np.clip(_on_lines(lines, [real[rows] for rows, _ in lines]), 0.0, 1.0),
        "copy_nearest": real[nearest],
        "ceiling": model.decompress(torch.from_numpy(latents[target])),
    }


def _others(scans: EncodedScans, triples: Sequence[Triple]) -> list[tuple[list[int], npt.NDArray[np.float64], float]]:
    """For each target: rows and months of all of its subject's sessions but those of its month, and that month."""
    sessions = sessions_of(scans.records)
    found = []
    for triple in triples:
        record = scans.records[triple.target]
        # A second scan of the same month would be the target itself.
        rows = [row for row in sessions[record.participant_id].tolist() if scans.records[row].months != record.months]
        months = np.array([float(scans.records[row].months or 0.0) for row in rows])
        found.append((rows, months, float(record.months or 0.0)))
    return found


def _on_lines(lines: Sequence[tuple[list[int], npt.NDArray[np.float64]]], images: Sequence[Images]) -> Images:
    """Sums of each line's images, (N, D, H, W), weighted by session."""
    sums = [np.tensordot(weights, each, axes=1) for (_, weights), each in zip(lines, images, strict=True)]
    return np.stack(sums).astype(np.float32)


def draw_spread(model: LatentDiffusionAutoencoder, codes: Codes, *, draws: int, seed: int = 0) -> Images:
    """Voxelwise standard deviation over images of one y with drawn noise codes, (D, H, W), on the images' scale of [0, 1].

    It is large where the semantic code does not determine the image. The noise code between two sessions is no draw, so an
    interpolated scan is less uncertain than this.

    Args:
        model: the trained model.
        codes: whose y is kept.
        draws: number of noise codes, at least two.
        seed: of the draws.

    Raises:
        TaskError: for fewer than two draws.
    """
    if draws < 2:
        msg = f"a spread needs at least 2 draws of the noise code, got {draws}; give more"
        raise TaskError(msg)
    images = np.stack(list(sample(model, draws, seed=seed, semantic=codes.semantic)))
    spread: Images = images.std(axis=0, ddof=1)
    return spread
