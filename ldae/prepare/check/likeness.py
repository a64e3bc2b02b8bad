"""One brain under two names, two brains under one name, and a brain with left and right exchanged.

The signature of a scan in template space is its anatomy at 3 to 14 mm, without intensity scale and bias. Signatures are
compared after subtraction of the cohort's mean, because all brains are similar.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldae.atlas import load_template
from ldae.head.findings import ERROR, WARNING, Finding
from ldae.head.morphology import smooth_inside
from ldae.volume import Volume

__all__ = ["GRID_MM", "MIN_SUBJECTS", "LikenessStatistics", "compare_brains", "signature"]

Array = npt.NDArray[np.float32]

GRID_MM = 4.0
# Between these widths (standard deviations of Gaussians) lie gyri and ventricles; noise is finer, bias broader.
FINE_MM, BROAD_MM = 3.0, 14.0
# The mean of fewer subjects is no common anatomy: their signatures are compared as they are. Measured then: sessions of one
# phantom subject correlate with 0.956 and more, different ones with 0.893 and less.
MIN_SUBJECTS = 6
FEW_LIKENESS = 0.93
# Robust standard deviations above the median of pairs of different subjects, in Fisher's z. Measured: such pairs reach
# 3.5, sessions of one subject begin at 6.
OUTLIER = 5.0
# Two scans of one subject share at least a quarter of the variance between subjects.
MIN_LIKENESS = 0.5
# Pairs of sessions from which the cohort's own similarity of sessions is estimated.
ENOUGH_PAIRS = 5
# Below this a pair of sessions is as similar as scans of different subjects.
STRANGER = 2.5
# Most similar pairs of subjects that are named; the rest is counted.
PAIRS_NAMED = 50


@dataclass(frozen=True)
class LikenessStatistics:
    """Similarity of a cohort's scans: correlations of signatures without the cohort's mean.

    Attributes:
        limit: above it, two scans are of one subject.
        between_median: of scans of different subjects.
        between_max: the highest among them that is below the limit.
        within_median: of sessions of one subject; None if no subject has two.
        within_min: the lowest.
    """

    limit: float
    between_median: float
    between_max: float
    within_median: float | None
    within_min: float | None


def signature(scan: Volume) -> npt.NDArray[np.float16] | None:
    """The anatomy of a scan in template space as numbers of mean 0 and variance 1, (voxels of the brain at 4 mm,).

    None if there is no contrast where the template's brain lies.
    """
    template = load_template(GRID_MM)
    brain = template.brain_mask.data > 0.5
    values = scan.resample_to(template.grid).data
    low, high = np.percentile(values[brain], [2.0, 98.0])
    if not high > low:
        return None
    # Vessels and fat are brighter than any tissue; a stray bright voxel must not set the scale.
    scaled = np.clip((values - low) / (high - low), 0.0, 1.0)
    fine, broad = (smooth_inside(scaled, brain, width_mm / GRID_MM) for width_mm in (FINE_MM, BROAD_MM))
    band = (fine - broad)[brain]
    return np.asarray((band - band.mean()) / band.std(), dtype=np.float16)


def compare_brains(
    signatures: Sequence[npt.NDArray[np.float16]], scans: Sequence[str], subjects: Sequence[str]
) -> tuple[list[Finding], LikenessStatistics | None]:
    """Compare the scans of a cohort, in template space, in pairs: their signatures, keys and participants.

    Two scans are of one subject if their correlation, without the mean of all subjects, exceeds the median of pairs of
    different subjects by 5 robust standard deviations (1.4826 times the median absolute deviation, after Fisher's
    transformation) and 0.5; and, with five pairs of sessions or more, is nearer to the sessions' median than to that of
    different subjects.

    Returns:
        Findings, and the similarities that they rest on. With fewer than six subjects the only finding is one brain under two
        names, and there are no similarities.
    """
    names = np.asarray(subjects)
    first, second = np.triu_indices(len(names), 1)
    same = names[first] == names[second]

    def pairs(chosen: npt.NDArray[np.bool_], likeness: Array) -> list[_Pair]:
        """The most similar first."""
        rows = np.flatnonzero(chosen)[np.argsort(-likeness[chosen], kind="stable")]
        ends = zip(first[rows].tolist(), second[rows].tolist(), likeness[rows].tolist(), strict=True)
        return [_Pair((a, b), (scans[a], scans[b]), (subjects[a], subjects[b]), alike) for a, b, alike in ends]

    stack = np.stack(signatures).astype(np.float32) if signatures else np.empty((0, 1), dtype=np.float32)
    if len(set(subjects)) < MIN_SUBJECTS:
        likeness = (stack @ stack.T / stack.shape[1])[first, second]
        return list(_same_brain(pairs(~same & (likeness > FEW_LIKENESS), likeness))), None
    # Every subject has the same weight in the mean, however many sessions it has.
    deviations = stack - np.mean([stack[names == name].mean(axis=0) for name in np.unique(names)], axis=0)
    from sklearn.preprocessing import normalize

    own = normalize(deviations)
    likeness = np.clip(own @ own.T, -1.0, 1.0)[first, second]
    fisher = np.arctanh(np.clip(likeness, -0.999999, 0.999999))
    strangers, sessions = fisher[~same], fisher[same]
    median = float(np.median(strangers))
    spread = 1.4826 * float(np.median(np.abs(strangers - median)))
    limit = max(median + OUTLIER * spread, float(np.arctanh(MIN_LIKENESS)))
    if len(sessions) >= ENOUGH_PAIRS:
        limit = max(limit, (median + float(np.median(sessions))) / 2)
    found = list(_same_brain(pairs(~same & (fisher > limit), likeness)))
    if len(sessions):
        mirrored = list(_mirrored_sessions(own, normalize(_mirrored(deviations)), pairs(same, likeness), limit))
        if np.median(sessions) > limit:
            known = {subject for finding in mirrored for subject in finding.subjects}
            apart = pairs(same & (fisher < median + STRANGER * spread), likeness)
            found += _different_subjects([pair for pair in apart if pair.subjects[0] not in known])
        found += mirrored
    below = strangers[strangers <= limit]
    return found, LikenessStatistics(
        limit=float(np.tanh(limit)),
        between_median=float(np.tanh(median)),
        between_max=float(np.tanh(below.max())) if len(below) else 0.0,
        within_median=float(np.tanh(np.median(sessions))) if len(sessions) else None,
        within_min=float(np.tanh(sessions.min())) if len(sessions) else None,
    )


@dataclass(frozen=True)
class _Pair:
    """Two scans: their rows, keys, participants, and correlation."""

    rows: tuple[int, int]
    scans: tuple[str, str]
    subjects: tuple[str, str]
    likeness: float


def _mirrored(signatures: Array) -> Array:
    """Signatures of the mirrored brains, (N, voxels): the template on its grid of 4 mm is its own mirror image."""
    brain = load_template(GRID_MM).brain_mask.data > 0.5
    canvas = np.zeros((len(signatures), *brain.shape), dtype=np.float32)
    canvas[:, brain] = signatures
    return canvas[:, ::-1][:, brain]


def _same_brain(pairs: Sequence[_Pair]) -> Iterator[Finding]:
    """One finding for each two subjects, by their most similar scans."""
    best: dict[frozenset[str], _Pair] = {}
    for pair in pairs:
        best.setdefault(frozenset(pair.subjects), pair)
    for pair in list(best.values())[:PAIRS_NAMED]:
        one, other = sorted(pair.subjects)
        message = f"{one} and {other} seem to be one subject: {_correlated(pair)}"
        remedy = "find out whose scan it is; a subject needs one participant_id, or it could be in two splits"
        yield Finding(ERROR, "same-brain", message, remedy, pair.scans, (one, other))
    if len(best) > PAIRS_NAMED:
        message = f"{len(best) - PAIRS_NAMED} more pairs of subjects seem to be one subject each"
        yield Finding(ERROR, "same-brain", message, "settle those that are named, then check again")


def _different_subjects(pairs: Sequence[_Pair]) -> Iterator[Finding]:
    """One finding for each subject whose sessions are too different, by the first such pair."""
    for subject, pair in {pair.subjects[0]: pair for pair in sorted(pairs, key=lambda pair: pair.rows)[::-1]}.items():
        message = f"sessions of {subject} look like different subjects: {_correlated(pair)}"
        remedy = "check whether scans were exchanged between participants, and whether both scans are aligned"
        yield Finding(WARNING, "different-subjects", message, remedy, pair.scans, (subject,))


def _mirrored_sessions(own: Array, mirrored: Array, pairs: Sequence[_Pair], limit: float) -> Iterator[Finding]:
    """Sessions of one subject that match once one of them is mirrored, and not as they are."""
    for pair in pairs:
        left, right = pair.rows
        as_mirrored = float(own[left] @ mirrored[right])
        if np.arctanh(min(as_mirrored, 0.999999)) > limit and as_mirrored > pair.likeness + 0.1:
            message = (
                f"{_correlated(pair)}, and with {as_mirrored:.2f} once one of them is mirrored: left and right are "
                "exchanged in one"
            )
            remedy = "convert both again from DICOM and compare their headers"
            yield Finding(WARNING, "mirrored", message, remedy, pair.scans, pair.subjects[:1])


def _correlated(pair: _Pair) -> str:
    return f"{pair.scans[0]} and {pair.scans[1]} correlate with {pair.likeness:.2f}"
