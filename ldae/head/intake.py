"""From any T1-weighted scan to a brain in template space: finds out what is still to be done, and does it."""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import load_template
from ldae.base.ranges import check_choice
from ldae.contract import Modality
from ldae.errors import CohortError, VolumeError
from ldae.head.intensities import SkullState, check_scan, find_surroundings
from ldae.head.preprocess import PreprocessConfig, preprocess_scan
from ldae.head.registration import correlation_with_template
from ldae.head.tissue import tissue_contrast
from ldae.volume import Volume

__all__ = [
    "CEREBELLUM",
    "OUTSIDE",
    "Content",
    "Preprocess",
    "TemplateFit",
    "check_prepared",
    "content_of",
    "contract_problem",
    "find_brain",
    "only_t1w",
    "template_fit",
]

log = logging.getLogger(__name__)

Preprocess = Literal["auto"] | bool
"""Whether a scan is preprocessed: where it has to be, always, or never."""

Content = Literal["prepared", "brain", "head"]
"""A brain in template space, a brain elsewhere, or a head."""

# Dice of a brain with the template's. Measured: ten preprocessed heads 0.95, phantoms 0.88 and more, raw heads 0.74 and less.
MIN_OVERLAP, OVERLAP_MM = 0.82, 4.0
# Correlation of its image with the template's. Measured: 30 preprocessed heads 0.70 and more, 140 rendered brains 0.60 and more;
# the same upside down 0.36 and less, turned back to front 0.46 and less.
MIN_LIKENESS = 0.53
# Share of the brain outside the template's, grown by 4 mm, and of the template's cerebellum that it covers: where to look, and
# where to refuse. Measured: 500 phantoms at most 0.015 and at least 0.55, three real brains 0.011 and 0.96; the same with a rim
# of 2, 4 and 6 mm 0.02, 0.06 and 0.10, with a cerebellum half cut 0.31.
OUTSIDE, MOST_OUTSIDE = 0.04, 0.1
CEREBELLUM, LEAST_CEREBELLUM = 0.5, 0.4
CEREBELLUM_MM = (-40.0, -25.0)
"""The cerebellum lies behind and below these y and z, in RAS mm of the template."""
# Share of each end of the template's brain that the brain covers. Measured: ten preprocessed heads at least 0.88, 150 phantoms at
# least 0.28; a brain without its upper 28 % 0.
END_MM, LEAST_END = 25.0, 0.15
WHAT_HELPS = "give a T1-weighted head, or the brain alone (0 outside)"


@dataclass(frozen=True)
class TemplateFit:
    """How a brain, everything above 0, lies on the template's.

    Attributes:
        overlap: Dice of the two.
        correlation: of the images inside the template's brain.
        outside: share of the brain farther than 4 mm outside the template's.
        cerebellum: share of the template's cerebellum that the brain covers.
        ends: share that it covers of the last 25 mm of the template's brain on each of its six sides.
    """

    overlap: float
    correlation: float
    outside: float
    cerebellum: float
    ends: dict[str, float]

    @property
    def cerebellum_cut(self) -> str:
        """In words."""
        return f"only {100 * self.cerebellum:.0f} % of the cerebellum is inside the brain mask: the rest is cut off"

    @property
    def rim(self) -> str:
        """In words."""
        return f"{100 * self.outside:.0f} % of the brain lies outside the template's: skull or dura is left at its rim"


def content_of(scan: Volume, modality: Modality) -> tuple[Content, TemplateFit]:
    """What a scan that should have this modality shows, and how it lies on the template.

    Raises:
        VolumeError: if it is neither head nor brain, or no scan at all.
    """
    scan, _ = scan.without_spikes()  # who goes on with it says so
    check_scan(scan.data)
    fit = template_fit(scan)
    # T1w must show what the template shows, too.
    if fit.overlap >= MIN_OVERLAP and (modality != "T1w" or fit.correlation >= MIN_LIKENESS):
        return "prepared", fit
    around = find_surroundings(scan)
    if around.skull == SkullState.UNCLEAR:
        msg = f"the bright part of the image has {around.volume_ml:.0f} ml, so it is neither a head nor a brain; {WHAT_HELPS}"
        raise VolumeError(msg)
    return "brain" if around.skull == SkullState.BRAIN else "head", fit


def find_brain(
    scan: Volume, *, preprocess: Preprocess = "auto", voxel_size_mm: float = 1.0, modality: Modality = "T1w"
) -> tuple[Volume, npt.NDArray[np.float64] | None]:
    """The brain of a scan in template space.

    Args:
        scan: a head or brain, raw or preprocessed.
        preprocess: `auto` finds out; True registers it even if it seems to be in template space; False takes it as it is.
        voxel_size_mm: of the result, where there is something to do.
        modality: that it should have; only T1w can be preprocessed.

    Returns:
        The image, 0 outside the brain, and RAS mm of the scan to RAS mm of the template, (4, 4); None where the scan was in
        template space.

    Raises:
        VolumeError: if it is no such scan of a head or brain, or cannot be registered.
        ConfigError: if `preprocess` is something else.
    """
    check_choice("preprocess", preprocess, ("auto", True, False))
    if preprocess is False:
        return scan, None
    content, fit = content_of(scan, modality)
    if content == "prepared" and preprocess == "auto":
        check_prepared(scan, modality, fit)
        return scan, None
    if modality != "T1w":
        raise VolumeError(only_t1w(content, modality))
    log.info("preprocessing a %s", "head" if content == "head" else "brain")
    try:
        found = preprocess_scan(scan, PreprocessConfig(voxel_size_mm=voxel_size_mm, already_stripped=content != "head"))
    except CohortError as error:
        msg = f"{error}; {WHAT_HELPS}"
        raise VolumeError(msg) from error
    for warning in found.warnings:
        log.warning("%s", warning)
    check_prepared(found.image, modality)
    return found.image, found.affine_native_to_template


def only_t1w(content: Content, modality: Modality) -> str:
    """Why a scan of another modality is not preprocessed."""
    return f"looks like a {content} outside template space, and only T1w is preprocessed; give {modality} brains in it"


def check_prepared(brain: Volume, modality: Modality, fit: TemplateFit | None = None) -> None:
    """Refuse a brain in template space of another modality, with a rim of the skull, or without its cerebellum.

    The fit of the brain is measured where it is not given.

    Raises:
        VolumeError: saying what it looks like, and the limits.
    """
    contrast = tissue_contrast(brain)
    if contrast.kind not in (modality, "unknown"):
        msg = (
            f"looks {contrast.kind}, not {modality}: white matter is {100 * contrast.white_minus_grey:+.0f} % and fluid "
            f"{100 * contrast.fluid_minus_grey:+.0f} % brighter than grey matter; "
            f"{WHAT_HELPS if modality == 'T1w' else 'use a model of its modality'}"
        )
        raise VolumeError(msg)
    fit = fit or template_fit(brain)
    if fit.cerebellum < LEAST_CEREBELLUM:
        msg = f"{fit.cerebellum_cut} (at least {100 * LEAST_CEREBELLUM:.0f} % is needed); extract the brain again"
        raise VolumeError(msg)
    side = min(fit.ends, key=lambda name: fit.ends[name])
    if fit.ends[side] < LEAST_END:
        msg = (
            f"the brain covers {100 * fit.ends[side]:.0f} % of the {side} {END_MM:g} mm of the template's brain (at least "
            f"{100 * LEAST_END:.0f} % is needed): that part is cut off, or the scan lies elsewhere; look at it"
        )
        raise VolumeError(msg)
    if fit.outside > MOST_OUTSIDE:
        msg = f"{fit.rim} (at most {100 * MOST_OUTSIDE:.0f} % is allowed); extract the brain again"
        raise VolumeError(msg)


def contract_problem(scan: Volume, modality: Modality) -> str | None:
    """Why a scan that should be a brain in template space is none, with scores and limits; None if it is one."""
    try:
        content, fit = content_of(scan, modality)
        if content == "prepared":
            check_prepared(scan, modality, fit)
            return None
    except VolumeError as error:
        return str(error)
    return (
        f"not a brain in template space, but looks like a {content}: overlap with the template's brain {fit.overlap:.2f} (Dice, "
        f"at least {MIN_OVERLAP} needed), correlation with it {fit.correlation:.2f} (at least {MIN_LIKENESS} needed of T1w); run "
        "'ldae cohort preprocess', or give the image file itself"
    )


def template_fit(scan: Volume) -> TemplateFit:
    """Compare a brain that should lie in template space with the template, spikes left aside."""
    scan, _ = scan.without_spikes()
    mask = load_template(OVERLAP_MM).brain_mask
    brain, template = scan.resample_to(mask.grid, order=0).data > 0, mask.data > 0.5
    x, y, z = mask.grid.world_coordinates()
    ends = {}
    for along, low, high in ((x, "left", "right"), (y, "posterior", "anterior"), (z, "lower", "upper")):
        reach = along[template]
        ends[low] = float(brain[template & (along < reach.min() + END_MM)].mean())
        ends[high] = float(brain[template & (along > reach.max() - END_MM)].mean())
    cerebellum = template & (y < CEREBELLUM_MM[0]) & (z < CEREBELLUM_MM[1])
    return TemplateFit(
        overlap=2.0 * float((brain & template).sum()) / float(brain.sum() + template.sum()),
        correlation=correlation_with_template(scan),
        outside=float((brain & ~ndimage.binary_dilation(template)).sum()) / max(1.0, float(brain.sum())),
        cerebellum=float(brain[cerebellum].mean()),
        ends=ends,
    )
