"""The same brain under two names, two brains under one, and a brain with left and right exchanged.

A scan in template space becomes a signature: its anatomy at 3 to 14 mm, without intensity scale and bias. Signatures
are compared after the cohort's mean has been taken away, for all brains are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import Template, load_template
from ldae.head.findings import ERROR, WARNING, Finding
from ldae.volume import Volume

__all__ = ["GRID_MM", "MIN_SUBJECTS", "LikenessStatistics", "compare_brains", "signature"]

Array = npt.NDArray[np.float32]

GRID_MM = 4.0
# Between these widths (standard deviations of Gaussians) lie gyri and ventricles; noise is finer, bias broader.
FINE_MM, BROAD_MM = 3.0, 14.0
# With fewer people their mean is no common anatomy.
MIN_SUBJECTS = 6
# Robust standard deviations beyond the median of strangers, in Fisher's z. Measured: strangers reach 3.5, sessions of
# one person begin at 6.
OUTLIER = 5.0
# Two scans of one person share at least a quarter of what varies between people.
MIN_LIKENESS = 0.5
# Pairs of sessions needed before the cohort says itself how alike one person's sessions are.
ENOUGH_PAIRS = 5
# Below this a pair of sessions is as alike as strangers are.
STRANGER = 2.5
# Of people who seem to be one, the most alike; the rest is counted.
PAIRS_NAMED = 50


@dataclass(frozen=True)
class LikenessStatistics:
    """How alike scans of a cohort are: correlations of signatures without the cohort's mean.

    Attributes:
        limit: above it, two scans are of one person.
        between_median: of scans of different people.
        between_max: the highest among them that is below the limit.
        within_median: of sessions of one person; None where nobody has two.
        within_min: the lowest.
    """

    limit: float
    between_median: float
    between_max: float
    within_median: float | None
    within_min: float | None


def signature(scan: Volume) -> npt.NDArray[np.float16] | None:
    """The anatomy of a scan in template space as numbers of mean 0 and variance 1, (voxels of the brain at 4 mm,).

    Args:
        scan: moved into template space.

    Returns:
        The numbers, or None if there is no contrast where the template's brain lies.
    """
    template = load_template(GRID_MM)
    brain = _brain(template)
    values = scan.resample_to(template.grid).data
    low, high = np.percentile(values[brain], [2.0, 98.0])
    if not high > low:
        return None
    # Vessels and fat are brighter than any tissue; a stray bright voxel must not set the scale.
    scaled = np.clip((values - low) / (high - low), 0.0, 1.0) * brain
    band = (_smooth(scaled, brain, FINE_MM) - _smooth(scaled, brain, BROAD_MM))[brain]
    return np.asarray((band - band.mean()) / band.std(), dtype=np.float16)


def _brain(template: Template) -> npt.NDArray[np.bool_]:
    """The template's brain made symmetric, so that a mirrored signature has its numbers in the same places."""
    brain = template.brain_mask.data > 0.5
    return np.asarray(brain & _mirrored(brain, template))


def _mirrored(values: npt.NDArray, template: Template) -> npt.NDArray:
    """A map on the template's grid with x exchanged for -x, to the nearest voxel."""
    x = template.grid.affine[0, 0] * np.arange(values.shape[0]) + template.grid.affine[0, 3]
    index = np.rint((-x - template.grid.affine[0, 3]) / template.grid.affine[0, 0]).astype(int)
    inside = (index >= 0) & (index < values.shape[0])
    flipped = np.zeros_like(values)
    flipped[inside] = values[index[inside]]
    return flipped


def _smooth(values: npt.NDArray, brain: npt.NDArray[np.bool_], width_mm: float) -> npt.NDArray:
    """A Gaussian mean over the brain alone."""
    weight = ndimage.gaussian_filter(brain.astype(np.float32), width_mm / GRID_MM)
    return ndimage.gaussian_filter(values, width_mm / GRID_MM) / np.maximum(weight, 1e-3)


def compare_brains(
    signatures: Sequence[npt.NDArray[np.float16]], scans: Sequence[str], subjects: Sequence[str]
) -> tuple[list[Finding], LikenessStatistics | None]:
    """Find one brain under two names, sessions that look like different people, and mirrored sessions.

    Two scans are of one person if their correlation, without the mean of all people, exceeds the median of strangers by
    5 robust standard deviations (1.4826 times the median absolute deviation, after Fisher's transformation) and 0.5;
    and, where five pairs of sessions tell how alike those of one person are, lies nearer to those than to strangers.

    Args:
        signatures: of scans in template space.
        scans: their keys.
        subjects: their participants.

    Returns:
        Findings, and the likenesses they were judged by; None with fewer than six people.
    """
    names = np.asarray(subjects)
    people = np.unique(names)
    if len(people) < MIN_SUBJECTS:
        return [], None
    stack = np.stack(signatures).astype(np.float32)
    # Everybody weighs the same in the mean, however many sessions they have.
    mean = np.mean([stack[names == person].mean(axis=0) for person in people], axis=0)
    own = _unit(stack - mean)
    likeness = np.clip(own @ own.T, -1.0, 1.0)
    first, second = np.triu_indices(len(names), 1)
    same = names[first] == names[second]
    fisher = np.arctanh(np.clip(likeness[first, second], -0.999999, 0.999999))
    strangers, sessions = fisher[~same], fisher[same]
    median = float(np.median(strangers))
    spread = 1.4826 * float(np.median(np.abs(strangers - median)))
    limit = max(median + OUTLIER * spread, float(np.arctanh(MIN_LIKENESS)))
    if len(sessions) >= ENOUGH_PAIRS:
        limit = max(limit, (median + float(np.median(sessions))) / 2)
    found = _same_brain(fisher, ~same & (fisher > limit), (first, second), scans, subjects)
    mirrored = _mirrored_sessions(own, stack - mean, likeness, (first[same], second[same]), scans, subjects, limit)
    if len(sessions) and np.median(sessions) > limit:
        apart = same & (fisher < median + STRANGER * spread)
        said = {person for finding in mirrored for person in finding.subjects}
        others = _different_people(fisher, apart, (first, second), scans, subjects)
        found += [finding for finding in others if said.isdisjoint(finding.subjects)]
    found += mirrored
    below = strangers[strangers <= limit]
    return found, LikenessStatistics(
        limit=float(np.tanh(limit)),
        between_median=float(np.tanh(median)),
        between_max=float(np.tanh(below.max())) if len(below) else 0.0,
        within_median=float(np.tanh(np.median(sessions))) if len(sessions) else None,
        within_min=float(np.tanh(sessions.min())) if len(sessions) else None,
    )


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _same_brain(
    fisher: Array,
    chosen: npt.NDArray[np.bool_],
    pairs: tuple[npt.NDArray, npt.NDArray],
    scans: Sequence[str],
    subjects: Sequence[str],
) -> list[Finding]:
    """One finding for each two people, by their most similar scans."""
    best: dict[tuple[str, str], int] = {}
    for row in np.flatnonzero(chosen)[np.argsort(-fisher[chosen])]:
        one, other = subjects[pairs[0][row]], subjects[pairs[1][row]]
        best.setdefault((min(one, other), max(one, other)), int(row))
    found = []
    for (one, other), row in list(best.items())[:PAIRS_NAMED]:
        left, right = scans[pairs[0][row]], scans[pairs[1][row]]
        message = (
            f"{one} and {other} seem to be one person: {left} and {right} correlate with {np.tanh(fisher[row]):.2f}"
        )
        remedy = "find out whose scan it is; give one person one participant_id, or the two could stand in two splits"
        found.append(Finding(ERROR, "same-brain", message, remedy, (left, right), (one, other)))
    if len(best) > PAIRS_NAMED:
        message = f"{len(best) - PAIRS_NAMED} more pairs of subjects seem to be one person each"
        found.append(Finding(ERROR, "same-brain", message, "settle those that are named, then check again"))
    return found


def _different_people(
    fisher: Array,
    apart: npt.NDArray[np.bool_],
    pairs: tuple[npt.NDArray, npt.NDArray],
    scans: Sequence[str],
    subjects: Sequence[str],
) -> list[Finding]:
    found: dict[str, Finding] = {}
    for row in np.flatnonzero(apart):
        person, left, right = subjects[pairs[0][row]], scans[pairs[0][row]], scans[pairs[1][row]]
        if person not in found:
            found[person] = Finding(
                WARNING,
                "different-people",
                f"sessions of {person} look like different people: {left} and {right} correlate with "
                f"{np.tanh(fisher[row]):.2f}, as strangers do",
                "check whether scans were exchanged between participants, and whether both scans are aligned",
                (left, right),
                (person,),
            )
    return list(found.values())


def _mirrored_sessions(
    own: Array,
    deviations: Array,
    likeness: Array,
    pairs: tuple[npt.NDArray, npt.NDArray],
    scans: Sequence[str],
    subjects: Sequence[str],
    limit: float,
) -> list[Finding]:
    """Sessions of one person that fit once one of them is mirrored, and not as they are."""
    if not len(pairs[0]):
        return []
    template = load_template(GRID_MM)
    brain = _brain(template)
    canvas = np.zeros((deviations.shape[0], *brain.shape), dtype=np.float32)
    canvas[:, brain] = deviations
    mirrored = _unit(np.stack([_mirrored(one, template)[brain] for one in canvas]))
    found = []
    for left, right in zip(*pairs, strict=True):
        as_mirrored = float(own[left] @ mirrored[right])
        if np.arctanh(min(as_mirrored, 0.999999)) > limit and as_mirrored > likeness[left, right] + 0.1:
            found.append(
                Finding(
                    WARNING,
                    "mirrored",
                    f"{scans[left]} and {scans[right]} correlate with {as_mirrored:.2f} once one of them is mirrored, and "
                    f"with {likeness[left, right]:.2f} as they are: left and right are exchanged in one",
                    "convert both again from DICOM and compare their headers",
                    (scans[left], scans[right]),
                    (subjects[left],),
                )
            )
    return found
