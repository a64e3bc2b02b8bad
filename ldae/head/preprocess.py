"""From a raw T1w head to a brain in template space: bias correction, affine registration, brain mask, one resampling.

Registration is affine, never deformable: warping a brain onto the template would remove the atrophy that is to be
learnt.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ldae.atlas import load_template, template_grid
from ldae.errors import CohortError
from ldae.head.bias_field import correct_bias
from ldae.head.brain import brain_of_mask, brain_of_stripped, extract_brain, inside, template_brain
from ldae.head.brain_tools import TOOLS, run_brain_tool
from ldae.head.intensities import check_scan
from ldae.head.morphology import depth_mm, grow, mask_volume
from ldae.head.registration import MIN_CORRELATION, Registration, moved, refine, register
from ldae.volume import Grid, Volume, spikes_word

__all__ = ["BrainExtraction", "PreprocessConfig", "PreprocessedScan", "Quality", "preprocess_scan"]

BrainExtraction = Literal["template", "synthstrip", "hd-bet", "bet"]

# The bias field of the final image is estimated on the brain, without the dark fluid at its surface.
BIAS_MARGIN_MM = -2.0
# Brain and surrounding fluid of anyone above infancy.
PLAUSIBLE_BRAIN_ML = (750.0, 2200.0)
# With a rim around the brain that is this empty, the scan was stripped before.
RIM_MM, EMPTY_SHARE = 6.0, 0.95
# Percentiles of the brain that become 0 and 1, as in a model's own contract.
WINDOW_PERCENTILES = (0.5, 99.5)
# Measured on ten heads: 0.95 to 0.96. Below, the brain mask is not the shape of a brain where one should lie.
WARN_OVERLAP = 0.9


@dataclass(frozen=True)
class Quality:
    """Measures of a preprocessed scan; each is 1 at best.

    Attributes:
        correlation: Pearson, with the template's T1 inside the template's brain, at 6 mm.
        coverage: share of the template's brain inside the scan's field of view.
        overlap: Dice of the brain mask with the template's brain, in template space.
    """

    correlation: float
    coverage: float
    overlap: float

    @property
    def score(self) -> float:
        """The product: low where any of them is; 0 for a correlation below 0."""
        return max(self.correlation, 0.0) * self.coverage * self.overlap

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to look at the result, without the registration's own."""
        low = f"brain mask and template's brain overlap by only {self.overlap:.2f} (Dice), usual is 0.95; look at the overlay"
        return () if self.overlap >= WARN_OVERLAP else (low,)


def rate(registration: Registration, brain_mask: Volume) -> Quality:
    """Measures of a scan with this brain mask, 0 and 1 in template space."""
    template = load_template(1.0).brain_mask.resample_to(brain_mask.grid).data > 0.5
    brain = brain_mask.data > 0.5
    # Parts outside the field of view count in the coverage.
    overlap = 2.0 * np.count_nonzero(brain & template) / (np.count_nonzero(brain) + np.count_nonzero(template))
    return Quality(registration.correlation, registration.coverage, float(overlap))


@dataclass(frozen=True)
class PreprocessConfig:
    """Settings of preprocessing.

    Attributes:
        voxel_size_mm: of the output, in mm.
        already_stripped: the scans show the brain alone: everything but background is brain.
        brain_extraction: the template's mask, moved by the registration and refined from the image (`template`), or a
            program on the PATH (`synthstrip`, `hd-bet`, `bet`).
        bias_correction: run N4.
        normalise: write intensities with the brain's 0.5th and 99.5th percentile at 0 and 1, instead of the scan's own.
        margin_mm: margin of the output grid around the template's brain, in mm: brains differ in shape.
        multiple: every axis of the output grid is a multiple of this many voxels.
        min_correlation: with the template; below it a registration has failed.
    """

    voxel_size_mm: float = 1.0
    already_stripped: bool = False
    brain_extraction: BrainExtraction = "template"
    bias_correction: bool = True
    normalise: bool = False
    margin_mm: float = 8.0
    multiple: int = 8
    min_correlation: float = MIN_CORRELATION

    def __post_init__(self) -> None:
        _ = self.grid  # refuses impossible values
        if self.brain_extraction not in ("template", *TOOLS):
            msg = f"brain_extraction must be template, {' or '.join(TOOLS)}, got {self.brain_extraction!r}"
            raise CohortError(msg)
        if self.already_stripped and self.brain_extraction != "template":
            msg = f"the scans are already stripped, so {self.brain_extraction} has nothing to do; give one of the two options"
            raise CohortError(msg)

    @property
    def grid(self) -> Grid:
        """The output grid, axis-aligned RAS in MNI space."""
        return template_grid(self.voxel_size_mm, multiple=self.multiple, margin_mm=self.margin_mm)


@dataclass(frozen=True, eq=False)
class PreprocessedScan:
    """A brain in template space.

    Attributes:
        image: on the template grid, above 0 inside the brain and exactly 0 outside; in the scan's own intensities, or
            normalised.
        brain_mask: 0 and 1 on the same grid.
        native_mask: the same brain, 0 and 1 on the scan's own grid.
        affine_native_to_template: RAS mm of the scan to RAS mm of the template, (4, 4).
        window: bias-corrected intensities of the scan at the brain's percentiles 0.5 and 99.5.
        quality: measures of the result.
        brain_volume_ml: inside the brain's surface in native space, in ml.
        warnings: reasons to look at the result.
    """

    image: Volume
    brain_mask: Volume
    native_mask: Volume
    affine_native_to_template: npt.NDArray[np.float64]
    window: tuple[float, float]
    quality: Quality
    brain_volume_ml: float
    warnings: tuple[str, ...]


def preprocess_scan(
    volume: Volume, config: PreprocessConfig | None = None, *, brain_mask: Volume | None = None
) -> PreprocessedScan:
    """The brain of a T1w head on the template grid.

    Args:
        volume: a raw T1w head in any orientation, or a brain with `already_stripped`.
        config: settings.
        brain_mask: given mask of this scan's brain, above 0 inside, on any grid in the scan's space; no brain is then
            extracted.

    Raises:
        CohortError: if the registration fails or no brain is found.
        VolumeError: if it is no scan, such as a label map.
    """
    config = config or PreprocessConfig()
    native, spikes = volume.to_ras().without_spikes()
    check_scan(native.data)
    registration, surface, corrected = _locate_brain(native, config, brain_mask)
    to_template = registration.affine_native_to_template
    values = corrected.data[inside(surface, corrected.grid)]
    low, high = (float(value) for value in np.percentile(values, WINDOW_PERCENTILES))
    image, mask = _on_template(moved(corrected, to_template), moved(surface, to_template), values, config.grid)
    if config.normalise:
        # Nothing is cut off above; the brain stays above 0, which means background.
        scaled = np.maximum((image.data - low) / max(high - low, float(np.finfo(np.float32).tiny)), 1e-4)
        image = Volume(np.where(mask.data > 0, scaled, 0.0).astype(np.float32), image.affine)
    brain_volume_ml = float((surface.data > 0).sum()) * surface.grid.voxel_volume_ml
    quality = rate(registration, mask)
    given = config.already_stripped or brain_mask is not None
    warnings = _brain_warnings(native, surface, brain_volume_ml, given=given)
    warnings += [spikes_word(spikes)] if spikes else []
    return PreprocessedScan(
        image=image,
        brain_mask=mask,
        native_mask=mask_volume(inside(surface, volume.grid), volume.affine),
        affine_native_to_template=to_template,
        window=(low, high),
        quality=quality,
        brain_volume_ml=brain_volume_ml,
        warnings=(*registration.warnings, *quality.warnings, *warnings),
    )


def _locate_brain(
    native: Volume, config: PreprocessConfig, brain_mask: Volume | None
) -> tuple[Registration, Volume, Volume]:
    """Registration, brain surface and bias-corrected image of a scan in RAS order, the latter two in its own space."""
    if config.brain_extraction in TOOLS and brain_mask is None:
        brain_mask = run_brain_tool(config.brain_extraction, native)
    if config.already_stripped or brain_mask is not None:
        surface = brain_of_stripped(native) if brain_mask is None else brain_of_mask(brain_mask, native.grid)
        brain = mask_volume(inside(surface, native.grid), native.affine)
        corrected = correct_bias(native, brain) if config.bias_correction else native
        stripped = Volume(corrected.data * brain.data, native.affine)
        registration = register(stripped, already_stripped=True, min_correlation=config.min_correlation)
    else:
        # N4 runs before resampling, twice: over the head, so that the registration sees one contrast; then from the raw
        # image over the brain, where its field then has to fit nothing else.
        corrected = correct_bias(native) if config.bias_correction else native
        registration = register(corrected, min_correlation=config.min_correlation)
        to_template = registration.affine_native_to_template
        if config.bias_correction:
            corrected = correct_bias(native, template_brain(native.grid, to_template, margin_mm=BIAS_MARGIN_MM))
        surface = extract_brain(corrected, to_template)
        stripped = Volume(corrected.resample_to(surface.grid).data * (surface.data > 0), surface.affine)
    return refine(stripped, registration, min_correlation=config.min_correlation), surface, corrected


def _on_template(scan: Volume, surface: Volume, values: npt.NDArray[np.float32], grid: Grid) -> tuple[Volume, Volume]:
    """Image and mask on the template grid, each interpolated once; `values` are the scan's intensities in the brain."""
    mask = inside(surface, grid)
    if not mask.any():
        msg = "no brain on the template grid; the registration must have failed"
        raise CohortError(msg)
    # Cubic splines overshoot at edges; the brain's darkest voxels stay above 0, which means background.
    floor = max(float(values.min()), 1e-4 * float(np.percentile(values, 99.0)), float(np.finfo(np.float32).tiny))
    cubic = scan.resample_to(grid, order=3).data
    image = np.where(mask, np.clip(cubic, floor, max(floor, float(values.max()))), 0.0)
    return Volume(image.astype(np.float32), grid.affine), mask_volume(mask, grid.affine)


def _brain_warnings(native: Volume, surface: Volume, brain_volume_ml: float, *, given: bool) -> list[str]:
    found = []
    low, high = PLAUSIBLE_BRAIN_ML
    if not low <= brain_volume_ml <= high:
        found.append(f"a brain of {brain_volume_ml:.0f} ml, outside {low:.0f} to {high:.0f}; look at the overlay")
    # Every n-th voxel, about 2 mm apart: enough to count by.
    n = [max(1, round(2.0 / size)) for size in native.spacing]
    sparse = Volume(native.data[:: n[0], :: n[1], :: n[2]], native.affine @ np.diag([*n, 1.0]))
    brain = inside(surface, sparse.grid)
    rim = grow(brain, RIM_MM, sparse.spacing) & (depth_mm(~brain, sparse.spacing) > RIM_MM / 2)
    if not given and rim.any() and (sparse.data[rim] == native.data.min()).mean() > EMPTY_SHARE:
        found.append("the scan seems to be stripped already; preprocess it with already_stripped (--already-stripped)")
    return found
