"""Checks of a scan's voxels: intensities, skull, field of view."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldae.errors import VolumeError
from ldae.head.findings import ERROR, WARNING, Finding
from ldae.head.morphology import Mask, close, coarse_grid, grow, largest_piece, mask_of_head
from ldae.volume import Volume

__all__ = ["SkullState", "Surroundings", "check_intensities", "check_scan", "check_view", "find_surroundings"]

COARSE_MM = 3.0
CLOSE_MM, AROUND_MM = 12.0, 6.0
# What is brighter than half way to the background, filled: brains from a child's to a large adult's moved into the
# template's size; a head has 2600 ml and more.
MIN_BRAIN_ML, MAX_BRAIN_ML = 600.0, 2300.0
# A program that strips skulls writes one value everywhere else.
EMPTY_SHARE = 0.99
# Neighbours of equal value: half of them in labels and masks, a few percent in scans.
LABEL_SHARE = 0.5
MIN_LEVELS, LEVELS_OF_LABELS = 64, 16
SATURATED_SHARE = 0.01
NEGATIVE_SHARE = 0.01
# Section through the head at the border of the field of view, relative to the largest parallel one.
CUT_SHARE = 0.25
# From the top of the head down to below the cerebellum.
HEAD_HEIGHT_MM = 120.0
NO_RESCALING = "convert the scan again without rescaling"
FACES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


class SkullState:
    """Content of a scan: a head, a brain alone, or neither for certain."""

    HEAD, BRAIN, UNCLEAR = "head", "brain", "unclear"


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The head, or the brain alone, and its surroundings.

    Attributes:
        image: the scan on voxels of about 3 mm, RAS.
        mask: head or brain without holes, on the same voxels.
        volume_ml: of the bright part, without holes.
        skull: one of :class:`SkullState`.
    """

    image: Volume
    mask: Mask
    volume_ml: float
    skull: str


def check_scan(data: npt.NDArray[np.float32]) -> None:
    """Refuse voxels, (D, H, W), finite, that are no scan, such as labels.

    Raises:
        VolumeError: saying what they look like.
    """
    for finding in check_intensities(data)[0]:
        if finding.severity == ERROR:
            msg = f"{finding.message}; {finding.remedy}"
            raise VolumeError(msg)


def check_intensities(data: npt.NDArray[np.float32]) -> tuple[list[Finding], dict[str, float]]:
    """Findings on intensities that no scan has, and measurements of them, in voxels as read, (D, H, W), finite."""
    low, high = float(data.min()), float(data.max())
    if low == high:
        found = Finding(ERROR, "constant", f"all voxels have one value, {low:g}", "export the scan again")
        return [found], {"minimum": low, "maximum": high}
    values, counts = np.unique(data, return_counts=True)
    # Where bright tissue is cut off, its limit may be the most common value.
    fill = values[counts.argmax()] if counts.argmax() < len(values) - 1 else low
    shown = data != fill
    measured = {
        "minimum": low,
        "maximum": high,
        "levels": float(len(values)),
        "equal_neighbours": _equal_neighbours(data, shown),
        "at_maximum": float((data[shown] == high).mean()),
        "negative": float((data[shown] < 0).mean()),
    }
    return list(_check_levels(measured)), measured


def _check_levels(measured: dict[str, float]) -> Iterator[Finding]:
    levels, equal = int(measured["levels"]), measured["equal_neighbours"]
    if equal > LABEL_SHARE or levels <= LEVELS_OF_LABELS:
        message = f"{100 * equal:.0f} % of neighbouring voxels have equal values ({levels} in all): labels, not a scan"
        yield Finding(ERROR, "labels", message, "give the T1-weighted image that they were drawn on")
        return
    if levels < MIN_LEVELS:
        yield Finding(WARNING, "few-levels", f"only {levels} grey levels", NO_RESCALING)
    if measured["at_maximum"] > SATURATED_SHARE:
        share, high = 100 * measured["at_maximum"], measured["maximum"]
        message = f"{share:.1f} % of the voxels have the largest value, {high:g}: bright tissue is cut off"
        yield Finding(WARNING, "saturated", message, NO_RESCALING)
    if measured["negative"] > NEGATIVE_SHARE:
        share, low = 100 * measured["negative"], measured["minimum"]
        message = f"{share:.0f} % of the voxels shown are negative (minimum {low:g}); 0 and below count as background"
        remedy = "give the scan before it was normalised, or add a constant inside the brain"
        yield Finding(WARNING, "negative", message, remedy)


def _equal_neighbours(data: npt.NDArray[np.float32], shown: npt.NDArray[np.bool_]) -> float:
    """Share of neighbours along the axes, both shown, that have one value."""
    equal = pairs = 0
    for axis in range(3):
        values, both = np.moveaxis(data, axis, 0), np.moveaxis(shown, axis, 0)
        both = both[1:] & both[:-1]
        equal += int((values[1:] == values[:-1])[both].sum())
        pairs += int(both.sum())
    return equal / max(pairs, 1)


def find_surroundings(scan: Volume) -> Surroundings:
    """The head or brain in a scan, and which of the two it is.

    A brain alone has one value all around it and the volume of a brain. A head is larger, and most have noise around. The scan
    may have any orientation, but must have contrast.
    """
    ras = scan.to_ras()
    values, counts = np.unique(ras.data, return_counts=True)
    fill = float(values[counts.argmax()])
    nearest = ras.resample_to(coarse_grid(ras.grid, COARSE_MM), order=0)
    image = ras.resample_to(nearest.grid)
    head = mask_of_head(image)
    mask = close(head, CLOSE_MM, image.spacing)
    outside = ~grow(mask, AROUND_MM, image.spacing)
    filled = bool(outside.any()) and float((nearest.data[outside] == fill).mean()) >= EMPTY_SHARE
    volume_ml = float(mask.sum()) * image.grid.voxel_volume_ml
    skull = SkullState.HEAD
    if volume_ml < MIN_BRAIN_ML:
        skull = SkullState.UNCLEAR
    elif filled and volume_ml <= MAX_BRAIN_ML:
        skull = SkullState.BRAIN
        # Dark fluid at the rim is brain too.
        mask = close(largest_piece(nearest.data != fill), CLOSE_MM, image.spacing)
    return Surroundings(image, mask, volume_ml, skull)


def check_view(around: Surroundings) -> tuple[list[Finding], dict[str, float]]:
    """Findings on parts that the field of view cuts off, and on a size of no head or brain; and measurements."""
    mask, skull = around.mask, around.skull
    cut, shares = [], {}
    for axis, names in enumerate(FACES):
        areas = mask.sum(axis=tuple(other for other in range(3) if other != axis))
        for name, area in zip(names, (areas[0], areas[-1]), strict=True):
            share = float(area / max(areas.max(), 1))
            shares[f"cut_{name}"] = share
            if share > CUT_SHARE and (name != "inferior" or skull == SkullState.BRAIN):
                cut.append(name)
    levels = np.flatnonzero(mask.any(axis=(0, 1)))
    height_mm = float(np.ptp(levels) + 1) * around.image.spacing[2] if len(levels) else 0.0
    if "inferior" not in cut and shares["cut_inferior"] > CUT_SHARE and height_mm < HEAD_HEIGHT_MM:
        cut.append("inferior")
    found = []
    if cut:
        content = skull if skull != SkullState.UNCLEAR else "object"
        message = f"the field of view cuts the {content} at its {', '.join(cut)} side"
        found.append(Finding(WARNING, "cut-view", message, "look at the scan; leave it out if brain is missing"))
    if skull == SkullState.UNCLEAR:
        message = f"the bright part of the image has {around.volume_ml:.0f} ml: neither a head nor a brain"
        found.append(Finding(WARNING, "no-head", message, "check the voxel size and the content of the image"))
    return found, {"height_mm": height_mm, "volume_ml": around.volume_ml, **shares}
