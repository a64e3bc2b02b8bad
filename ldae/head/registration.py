"""Affine registration of a T1w scan to the MNI152 template, with detection of failures.

All in world coordinates (RAS mm): the result is one matrix that moves the scan's affine into template space, so that the
image itself is resampled once, at the end.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from ldae.atlas import load_template, template_grid
from ldae.errors import CohortError
from ldae.head.alignment import Alignment, brain_centre
from ldae.head.morphology import box_corners_mm, close, coarse_grid, depth_mm, grow, largest_piece, mask_of_head, shrink
from ldae.volume import Volume

__all__ = [
    "MIN_CORRELATION",
    "Registration",
    "correlation_with_template",
    "moved",
    "refine",
    "register",
    "rotation_deg",
]

Matrix = npt.NDArray[np.float64]

SEARCH_MM, AFFINE_MM, FINAL_MM = 8.0, 4.0, 2.5
STARTS_REFINED, FINALISTS = 6, 3
# Two alignments whose corners of the brain's box differ by less are one.
SAME_ALIGNMENT_MM = 4.0

# The search looks at a rough brain: the outline of the scalp would else pass for the brain's.
ROUGH_MM, PEEL_MM, OPEN_MM, CLOSE_MM = 2.0, 7.0, 5.0, 12.0
# From the top of the scalp to the middle of the brain's bounding box.
SCALP_TO_BRAIN_CENTRE_MM = 85.0
PITCHES_DEG = (-30.0, -15.0, 0.0, 15.0, 30.0)
# Template to scan: living brains are smaller than the template, children's more so.
START_SCALES = (0.8, 0.9, 1.0)

# Measured on twelve heads and twelve raw phantoms: right alignments 0.63 to 0.82; wrong optima of an earlier search stayed below
# 0.44.
MIN_CORRELATION, WARN_CORRELATION = 0.45, 0.5
# Coarse enough that gyri, which no affine can match, do not count.
CORRELATION_MM = 6.0
# No human head has to be stretched beyond these to fit the template (singular values of scan to template).
MIN_STRETCH, MAX_STRETCH, MAX_STRETCH_RATIO = 0.75, 1.6, 1.45
MIN_COVERAGE, WARN_COVERAGE = 0.7, 0.97
WARN_ROTATION_DEG = 45.0
REMEDY = "look at the scan: it must be a T1w head with a true voxel size, or a brain with already_stripped (--already-stripped)"


@dataclass(frozen=True, eq=False)
class Registration:
    """Position of a scan in template space.

    Attributes:
        affine_native_to_template: RAS mm of the scan to RAS mm of the template, (4, 4).
        correlation: Pearson correlation of the moved scan with the template's T1 inside the template's brain, at 6 mm.
        coverage: share of the template's brain inside the scan's field of view, 0..1.
    """

    affine_native_to_template: Matrix
    correlation: float
    coverage: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to look at the result although the registration counts as good."""
        found = []
        rotation = rotation_deg(self.affine_native_to_template)
        if rotation > WARN_ROTATION_DEG:
            turned = f"the head is turned by {rotation:.0f} degrees against its header"
            found.append(f"{turned}; check left and right, for a mirrored header cannot be recognised")
        if self.correlation < WARN_CORRELATION:
            found.append(f"low correlation with the template ({self.correlation:.2f}); look at the overlay")
        if self.coverage < WARN_COVERAGE:
            found.append(f"{100 * (1 - self.coverage):.0f} % of the brain lies outside the scan's field of view")
        return tuple(found)


def moved(volume: Volume, affine_native_to_template: Matrix) -> Volume:
    """The same voxels with their affine taken into template space; nothing is interpolated."""
    return Volume(volume.data, affine_native_to_template @ volume.affine)


def rotation_deg(affine: Matrix) -> float:
    """Angle of the rotation in an affine's polar decomposition, in degrees."""
    left, _, right = np.linalg.svd(affine[:3, :3])
    return math.degrees(math.acos(float(np.clip((np.trace(left @ right) - 1) / 2, -1.0, 1.0))))


def register(
    volume: Volume, *, already_stripped: bool = False, min_correlation: float = MIN_CORRELATION
) -> Registration:
    """Affine registration of a T1w scan to the template.

    Many starts (positions, pitches and sizes of the brain) are ranked by mutual information on a coarse grid, the best
    refined with one scale and then as affines, and the one that correlates best with the template is refined on a finer
    grid. The search uses a rough brain; if that fails, the head below its surface; if that fails, all 24 axis-aligned
    rotations of the rough brain, in case the header's orientation is wrong.

    Args:
        volume: a T1w head or, with `already_stripped`, a brain.
        already_stripped: the image shows the brain alone, so nothing is stripped for the search.
        min_correlation: with the template; below it the registration has failed.

    Raises:
        CohortError: if the scan has no contrast, or no start leads to a plausible alignment.
    """
    scan = _clipped(volume)
    brain, below_surface = (scan, scan) if already_stripped else _rough_brain(scan)
    attempts = [(brain, False), (below_surface, False), (brain, True)]
    best, best_correlation = np.eye(4), -1.0
    for visible, turned in attempts[::2] if already_stripped else attempts:
        candidate = _search(scan, visible, _starts(scan, visible, turned=turned))
        correlation = correlation_with_template(moved(scan, candidate))
        if correlation > best_correlation:
            best, best_correlation = candidate, correlation
        if best_correlation >= max(min_correlation, WARN_CORRELATION):
            break
    return _judged(scan, best, min_correlation)


def refine(brain: Volume, registration: Registration, *, min_correlation: float = MIN_CORRELATION) -> Registration:
    """Registration of the brain alone, from that of the head: by mutual information, then by local correlation.

    Raises:
        CohortError: if the alignment has become implausible.
    """
    scan = _clipped(brain)
    start = _inverse(registration.affine_native_to_template)
    alignment = Alignment(scan, FINAL_MM)
    found = alignment.polish_affine(alignment.optimise_affine(start))
    return _judged(scan, _inverse(found), min_correlation)


def _clipped(volume: Volume) -> Volume:
    low, high = np.percentile(volume.data, [1.0, 99.0])
    if not high > low:
        msg = "the image has no contrast (its 1st and 99th percentiles are equal); check that it is a T1w scan"
        raise CohortError(msg)
    return Volume(np.clip(volume.data, low, high), volume.affine)


def _judged(scan: Volume, affine_native_to_template: Matrix, min_correlation: float) -> Registration:
    """The registration, unless it cannot be right."""
    correlation = correlation_with_template(moved(scan, affine_native_to_template))
    coverage = _coverage(scan, affine_native_to_template)
    stretch = np.linalg.svd(affine_native_to_template[:3, :3], compute_uv=False)
    problem = None
    if correlation < min_correlation:
        problem = f"correlation with the template {correlation:.2f}, at least {min_correlation:.2f} needed"
    elif stretch[-1] < MIN_STRETCH or stretch[0] > MAX_STRETCH or stretch[0] / stretch[-1] > MAX_STRETCH_RATIO:
        problem = (
            f"it stretches the scan by {stretch[-1]:.2f} to {stretch[0]:.2f}, outside {MIN_STRETCH:g} to "
            f"{MAX_STRETCH:g} or by more than {MAX_STRETCH_RATIO:g} between directions"
        )
    elif coverage < MIN_COVERAGE:
        problem = f"only {100 * coverage:.0f} % of the brain is inside the field of view"
    if problem is not None:
        msg = f"registration failed: {problem}; {REMEDY}"
        raise CohortError(msg)
    return Registration(affine_native_to_template, correlation, coverage)


def _search(scan: Volume, visible: Volume, starts: Sequence[Sequence[Matrix]]) -> Matrix:
    """The best affine from scan to template that groups of starts lead to; the search uses the visible part of the scan."""
    coarse = Alignment(visible, SEARCH_MM)
    # The best of each group goes on, so that the finalists differ.
    leaders = sorted((min(group, key=coarse.metric) for group in starts), key=coarse.metric)[:STARTS_REFINED]
    refined = sorted(map(coarse.optimise_similarity, leaders), key=coarse.metric)
    finer = Alignment(visible, AFFINE_MM)
    finalists = map(finer.optimise_affine, _distinct(refined)[:FINALISTS])
    # Chosen by another criterion than the one optimised: a wrong size can win by mutual information.
    best = max(finalists, key=lambda transform: correlation_with_template(moved(scan, _inverse(transform))))
    return _inverse(Alignment(visible, FINAL_MM).optimise_affine(best))


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _distinct(transforms: Sequence[Matrix]) -> list[Matrix]:
    """The transforms without those that move the corners of the brain's box nearly as an earlier one does."""
    corners = box_corners_mm(template_grid(SEARCH_MM))
    kept: list[Matrix] = []
    for transform in transforms:
        moves = (np.linalg.inv(other) @ transform - np.eye(4) for other in kept)
        if all(np.linalg.norm((move @ corners)[:3], axis=0).max() > SAME_ALIGNMENT_MM for move in moves):
            kept.append(transform)
    return kept


def _rough_brain(scan: Volume) -> tuple[Volume, Volume]:
    """Two simplifications on a coarser grid: the brain as far as morphology finds it; the head below its surface."""
    small = scan.resample_to(coarse_grid(scan.grid, ROUGH_MM))
    spacing, background = small.spacing, small.data.min()
    head = mask_of_head(small)
    deep = depth_mm(close(head, CLOSE_MM, spacing), spacing) > PEEL_MM
    below_surface = Volume(np.where(deep, small.data, background), small.affine)
    # Opening cuts the bridges of meninges and nerves; what is left of the brain is the largest piece.
    core = largest_piece(shrink(head & deep, OPEN_MM, spacing))
    brain = grow(core, OPEN_MM + ROUGH_MM / 2, spacing) & deep
    if not core.any():
        return below_surface, below_surface
    return Volume(np.where(brain, small.data, background), small.affine), below_surface


def _starts(scan: Volume, visible: Volume, *, turned: bool) -> list[list[Matrix]]:
    """Starts from template to scan: grouped by pitch and size, or (`turned`) by axis-aligned rotation."""
    centres = _centres(scan, visible)
    if turned:
        # The rotations that map axes onto axes.
        groups = [[(each, scale) for scale in START_SCALES] for each in np.rint(Rotation.create_group("O").as_matrix())]
    else:
        pitches = Rotation.from_euler("x", np.array(PITCHES_DEG)[:, None], degrees=True).as_matrix()
        groups = [[each] for each in itertools.product(pitches, START_SCALES)]
    return [[_start(centre, *each) for centre, each in itertools.product(centres, group)] for group in groups]


def _centres(scan: Volume, visible: Volume) -> list[npt.NDArray[np.float64]]:
    """Candidates for the brain's centre in RAS mm: centre of mass, middle of the field, below the top of the scalp."""
    coarse = visible.resample_to(coarse_grid(visible.grid, AFFINE_MM))
    weight = (coarse.data - coarse.data.min()).ravel()
    centres = [coarse.grid.world_coordinates().reshape(3, -1) @ weight / weight.sum()]
    centres.append((scan.affine @ np.append((np.asarray(scan.data.shape) - 1) / 2, 1.0))[:3])
    whole = scan.resample_to(coarse_grid(scan.grid, AFFINE_MM))
    world = whole.grid.world_coordinates()[:, mask_of_head(whole)]
    if world.size:
        top = np.percentile(world[2], 99.8)
        cap = world[:, world[2] > top - 2 * SCALP_TO_BRAIN_CENTRE_MM]
        centres.append(np.array([cap[0].mean(), cap[1].mean(), top - SCALP_TO_BRAIN_CENTRE_MM]))
    return centres


def _start(centre_in_scan: npt.NDArray[np.float64], rotation: Matrix, scale: float) -> Matrix:
    """Template to scan: the template's brain centre goes to a point of the scan."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * rotation
    matrix[:3, 3] = centre_in_scan - matrix[:3, :3] @ brain_centre()
    return matrix


def correlation_with_template(scan: Volume) -> float:
    """Pearson, of a scan in template space with the template's T1 inside the template's brain, at 6 mm."""
    template = load_template(CORRELATION_MM)
    inside = template.brain_mask.data > 0.5
    values = scan.resample_to(template.grid).data[inside]
    if values.std() == 0:
        return 0.0
    return float(np.corrcoef(values, template.t1.data[inside])[0, 1])


def _coverage(scan: Volume, affine_native_to_template: Matrix) -> float:
    brain = load_template(CORRELATION_MM).brain_mask
    points = brain.grid.world_coordinates()[:, brain.data > 0.5]
    to_voxel = np.linalg.inv(affine_native_to_template @ scan.affine)
    voxels = to_voxel[:3, :3] @ points + to_voxel[:3, 3:]
    limits = np.asarray(scan.data.shape)[:, None] - 0.5
    return float(((voxels > -0.5) & (voxels < limits)).all(axis=0).mean())
