"""Volumes for the viewer of a report: quantised to bytes, packed as NIfTI that travels inside the page."""

import base64
import gzip
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ldae.report.blocks import ViewedScan, Viewer
from ldae.report.plots.slice_panels import Array, symmetric_limit
from ldae.volume import Grid

__all__ = ["LARGEST_VIEWER_VOXELS", "viewer"]

# More voxels than this in one viewer are averaged in blocks of 2 x 2 x 2 first, so that the page stays under 25 MB.
LARGEST_VIEWER_VOXELS = 12_000_000
LEVELS = 254


def viewer(
    caption: str,
    names: Sequence[str],
    originals: Sequence[Array],
    synthetic: Sequence[Sequence[Array]],
    *,
    step: int | None,
    choices: Sequence[str],
    captions: Sequence[Sequence[str]],
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
        step: of choices that are steps on a scale, the one that is seen first and that the overlay is the difference to;
            None for other choices, of which the first is seen first, and the overlay is the difference to the original.
        choices: names of the synthetic volumes.
        captions: of each scan, one for each volume.
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
    frames = [
        np.stack([np.asarray(each, dtype=np.float32) for each in (original, *made)])
        for original, made in zip(originals, synthetic, strict=True)
    ]
    reference = 0 if step is None else step + 1
    # Of each volume by itself, as in the panels, whose colours then end where these do.
    limit = symmetric_limit([each - stack[reference] for stack in frames for each in stack[1:]])
    while sum(each.size for each in frames) > most_voxels:
        frames = [_halved(each) for each in frames]
        affine = affine @ np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1.0]])
    scans = [
        ViewedScan(*each)
        for each in zip(names, (_packed(stack, affine, step is not None) for stack in frames), captions, strict=True)
    ]
    return Viewer(caption, choices, step or 0, step is not None, change, limit, reference, scans)


def _halved(volumes: Array) -> Array:
    """Means of blocks of 2 x 2 x 2 of the last three axes; an odd last layer is left out."""
    *_, d, h, w = volumes.shape
    even = volumes[..., : d // 2 * 2, : h // 2 * 2, : w // 2 * 2]
    blocks = even.reshape(*volumes.shape[:-3], d // 2, 2, h // 2, 2, w // 2, 2)
    return np.asarray(blocks.mean(axis=(-5, -3, -1)))


def _packed(frames: Array, affine: npt.NDArray[np.float64], steady: bool) -> str:
    """Volumes as one 4D NIfTI file of bytes, gzipped, base64; each but the first as its change since the one before, modulo 256.

    Neighbours differ little, so that the changes take half the space. Of steady steps, so do the changes of the changes.
    """
    import nibabel

    levels = np.rint(np.clip(frames, 0, 1) * LEVELS).astype(np.uint8)
    for start in (1, 3) if steady else (1,):
        levels[start:] -= levels[start - 1 : -1].copy()
    image = nibabel.Nifti1Image(np.moveaxis(levels, 0, -1), affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1 / LEVELS, 0)
    image.header["descrip"] = b"bytes for display; differences of frames"
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0)).decode("ascii")
