"""Volumes for the viewer of a report: quantised to bytes, packed as NIfTI that travels inside the page."""

import base64
import gzip
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ldae.report.blocks import ViewedScan, Viewer
from ldae.report.plots.slice_panels import symmetric_limit
from ldae.volume import Grid

__all__ = ["LARGEST_VIEWER_VOXELS", "viewer"]

Array = npt.NDArray[np.floating]

# More voxels than this in one viewer are averaged in blocks of 2 x 2 x 2 first, so that the page stays under 25 MB.
LARGEST_VIEWER_VOXELS = 24_000_000
LEVELS = 254


def viewer(
    caption: str,
    names: Sequence[str],
    originals: Sequence[Array],
    synthetic: Sequence[Sequence[Array]],
    references: Sequence[Array],
    *,
    choices: Sequence[str],
    captions: Sequence[Sequence[str]],
    start: int,
    slider: bool,
    change: str,
    grid: Mapping[str, object],
    most_voxels: int = LARGEST_VIEWER_VOXELS,
) -> Viewer:
    """A viewer of scans beside what a model made of them.

    Args:
        caption: what it shows.
        names: of the scans.
        originals: (D, H, W) each, in [0, 1], in RAS order.
        synthetic: of each scan, as many volumes as there are choices.
        references: what the overlay is the difference to, for each scan.
        choices: names of the synthetic volumes.
        captions: of each scan, one for each volume.
        start: index of the choice that is seen first.
        slider: whether the choices are steps on a scale.
        change: what the overlay is, in words.
        grid: `voxel_size_mm` and `centre_mm` where they are known; else voxels of 1 mm around the origin.
        most_voxels: more are averaged in blocks first.
    """
    shape = originals[0].shape
    affine = Grid.centred(
        (shape[0], shape[1], shape[2]),
        float(grid.get("voxel_size_mm", 1.0)),  # type: ignore[arg-type]
        grid.get("centre_mm", (0.0, 0.0, 0.0)),  # type: ignore[arg-type]
    ).affine
    stacks = [np.stack([np.asarray(each, dtype=np.float32) for each in volumes]) for volumes in synthetic]
    scans = [np.asarray(each, dtype=np.float32) for each in originals]
    changes = [
        stack - np.asarray(reference, dtype=np.float32) for stack, reference in zip(stacks, references, strict=True)
    ]
    # Of each volume by itself, as in the panels, whose colours then end where these do.
    limit = symmetric_limit([each for stack in changes for each in stack])
    while sum(each.size for each in [*scans, *stacks, *changes]) > most_voxels:
        scans, stacks, changes = ([_halved(each) for each in volumes] for volumes in (scans, stacks, changes))
        affine = affine @ np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1.0]])
    return Viewer(
        caption,
        choices,
        start,
        slider,
        change,
        limit,
        [
            ViewedScan(
                name,
                _packed(scan, affine, 0.0, 1.0),
                _packed(np.moveaxis(stack, 0, -1), affine, 0.0, 1.0),
                _packed(np.moveaxis(moved, 0, -1), affine, -limit, limit),
                list(words),
            )
            for name, scan, stack, moved, words in zip(names, scans, stacks, changes, captions, strict=True)
        ],
    )


def _halved(volumes: Array) -> Array:
    """Means of blocks of 2 x 2 x 2 of the last three axes; an odd last layer is left out."""
    *_, d, h, w = volumes.shape
    even = volumes[..., : d // 2 * 2, : h // 2 * 2, : w // 2 * 2]
    blocks = even.reshape(*volumes.shape[:-3], d // 2, 2, h // 2, 2, w // 2, 2)
    return np.asarray(blocks.mean(axis=(-5, -3, -1)))


def _packed(data: Array, affine: npt.NDArray[np.float64], low: float, high: float) -> str:
    """A NIfTI file of bytes with slope and intercept, gzipped, base64; zero stays zero where low is minus high."""
    import nibabel

    step = (high - low) / LEVELS
    levels = np.rint((np.clip(data, low, high) - low) / step).astype(np.uint8)
    image = nibabel.Nifti1Image(levels, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(step, low)
    image.header["descrip"] = b"quantised to bytes for display"
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0)).decode("ascii")
