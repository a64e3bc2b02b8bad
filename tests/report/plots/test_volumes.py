"""Volumes packed for the viewer give back what went in, at their place, within half a level."""

import base64
import gzip

import nibabel
import numpy as np
import pytest

from ldae.report.blocks import Viewer
from ldae.report.plots.slice_panels import symmetric_limit
from ldae.report.plots.volumes import LEVELS, viewer

GRID = {"voxel_size_mm": 3.0, "centre_mm": (1.0, -16.0, 5.0)}


def unpacked(shown: Viewer) -> nibabel.Nifti1Image:
    """Frames of the first scan, put together as the page does it."""
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(shown.scans[0].frames)))
    levels = np.asarray(image.dataobj.get_unscaled()).astype(np.uint8)
    for start in (3, 1) if shown.slider else (1,):
        for at in range(start, levels.shape[-1]):
            levels[..., at] += levels[..., at - 1]
    return nibabel.Nifti1Image(levels / LEVELS, image.affine)


def build(shape: tuple[int, int, int] = (7, 8, 6), **options: object) -> tuple[Viewer, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    original = rng.uniform(size=shape).astype(np.float16)
    made = np.clip(original + rng.normal(0, 0.05, (4, *shape)), 0, 1).astype(np.float16)
    shown = viewer(
        "Scans.", ["sub-1"], [original], [made],
        choices=list("abcd"), captions=[["one", "two", "three", "four"]], change="difference", grid=GRID,
        **{"step": None} | options,
    )  # fmt: skip
    return shown, original.astype(np.float64), made.astype(np.float64)


@pytest.mark.parametrize("step", [None, 0])
def test_volumes_survive_within_half_a_level(step: int | None) -> None:
    shown, original, made = build(step=step)
    assert shown.slider is (step is not None)
    got = np.moveaxis(unpacked(shown).get_fdata(), -1, 0)
    np.testing.assert_allclose(got, [original, *made], atol=0.501 / LEVELS)


def test_colours_end_where_those_of_panels_do_and_no_change_has_none() -> None:
    """One volume of much change among many of none decides, as in a panel of the same volumes."""
    still = np.full((8, 8, 8), 0.3)
    moved = np.where(np.arange(8)[:, None, None] < 1, 0.5, still)
    shown = viewer(
        "", ["s"], [still], [[*[still] * 40, moved]],
        step=0, choices=["a"] * 41, captions=[["a"] * 41], change="", grid={},
    )  # fmt: skip
    assert shown.limit == symmetric_limit([moved - still]) == pytest.approx(0.2)
    frames = unpacked(shown).get_fdata()
    assert shown.reference == 1
    assert np.ptp(frames[..., :41], axis=-1).max() == 0


def test_centre_of_the_grid_is_where_the_run_says() -> None:
    shown, original, _ = build()
    image = unpacked(shown)
    centre = image.affine @ [*((np.array(original.shape) - 1) / 2), 1]
    np.testing.assert_allclose(centre[:3], GRID["centre_mm"])
    assert image.header.get_zooms()[:3] == pytest.approx((3.0, 3.0, 3.0))


def test_large_volumes_are_halved_at_their_place() -> None:
    shown, original, _ = build((8, 8, 6), most_voxels=800)
    image = unpacked(shown)
    assert image.shape == (4, 4, 3, 5)
    np.testing.assert_allclose((image.affine @ [0, 0, 0, 1])[:3], image.affine[:3, 3])
    np.testing.assert_allclose((image.affine @ [1.5, 1.5, 1, 1])[:3], GRID["centre_mm"])
    assert image.get_fdata()[1, 2, 0, 0] == pytest.approx(original[2:4, 4:6, 0:2].mean(), abs=0.51 / LEVELS)
