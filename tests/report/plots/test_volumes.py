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


def unpacked(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def build(shape: tuple[int, int, int] = (7, 8, 6), **options: object) -> tuple[Viewer, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    original = rng.uniform(size=shape).astype(np.float16)
    made = np.clip(original + rng.normal(0, 0.05, (2, *shape)), 0, 1).astype(np.float16)
    shown = viewer(
        "Scans.", ["sub-1"], [original], [made], [original],
        choices=["a", "b"], captions=[["one", "two"]], start=0, slider=False, change="difference", grid=GRID, **options,
    )  # fmt: skip
    return shown, original.astype(np.float64), made.astype(np.float64)


def test_volumes_survive_within_half_a_level() -> None:
    shown, original, made = build()
    scan = shown.scans[0]
    np.testing.assert_allclose(unpacked(scan.original).get_fdata(), original, atol=0.501 / LEVELS)
    np.testing.assert_allclose(np.moveaxis(unpacked(scan.synthetic).get_fdata(), -1, 0), made, atol=0.501 / LEVELS)
    inside = np.clip(made - original, -shown.limit, shown.limit)
    got = np.moveaxis(unpacked(scan.change).get_fdata(), -1, 0)
    np.testing.assert_allclose(got, inside, atol=2 * shown.limit * 0.502 / LEVELS)


def test_colours_end_where_those_of_panels_do_and_no_change_has_none() -> None:
    """One volume of much change among many of none decides, as in a panel of the same volumes."""
    still = np.full((8, 8, 8), 0.3)
    moved = np.where(np.arange(8)[:, None, None] < 1, 0.5, still)
    shown = viewer(
        "", ["s"], [still], [[*[still] * 40, moved]], [still],
        choices=["a"] * 41, captions=[["a"] * 41], start=0, slider=False, change="", grid={},
    )  # fmt: skip
    assert shown.limit == symmetric_limit([moved - still]) == pytest.approx(0.2)
    change = unpacked(shown.scans[0].change).get_fdata()
    np.testing.assert_allclose(change[..., :40], 0, atol=1e-6 * shown.limit)


def test_centre_of_the_grid_is_where_the_run_says() -> None:
    shown, original, _ = build()
    image = unpacked(shown.scans[0].original)
    centre = image.affine @ [*((np.array(original.shape) - 1) / 2), 1]
    np.testing.assert_allclose(centre[:3], GRID["centre_mm"])
    assert image.header.get_zooms() == pytest.approx((3.0, 3.0, 3.0))


def test_large_volumes_are_halved_at_their_place() -> None:
    shown, original, _ = build((8, 8, 6), most_voxels=800)
    image = unpacked(shown.scans[0].original)
    assert image.shape == (4, 4, 3)
    np.testing.assert_allclose((image.affine @ [0, 0, 0, 1])[:3], image.affine[:3, 3])
    np.testing.assert_allclose((image.affine @ [1.5, 1.5, 1, 1])[:3], GRID["centre_mm"])
    assert image.get_fdata()[1, 2, 0] == pytest.approx(original[2:4, 4:6, 0:2].mean(), abs=0.51 / LEVELS)
