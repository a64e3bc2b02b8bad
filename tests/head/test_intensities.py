"""Voxels: masks, cut intensities, heads and brains, and fields of view that cut them."""

import numpy as np
import pytest

from ldae.atlas import load_template, template_grid
from ldae.head.intensities import SkullState, check_intensities, check_view, find_surroundings
from ldae.head.morphology import depth_mm
from ldae.volume import Volume

RNG = np.random.default_rng(0)
NOISE = RNG.normal(400.0, 90.0, (30, 32, 28)).astype(np.float32)


def codes(data: np.ndarray) -> list[str]:
    return [finding.code for finding in check_intensities(data.astype(np.float32))[0]]


def brain_volume(*, skull: bool, noise: float = 8.0) -> Volume:
    """The template's brain alone, or in a head with dark skull, bright scalp, and noise in the air."""
    grid = template_grid(4.0, multiple=1, margin_mm=32.0)
    template = load_template(4.0)
    data = 400.0 * template.t1.resample_to(grid).data
    rng = np.random.default_rng(1)
    brain = template.brain_mask.resample_to(grid).data > 0.5
    data = np.where(brain, data + rng.normal(0, noise, data.shape), 0.0)
    if skull:
        outside = depth_mm(~brain, grid.spacing)
        data += 300.0 * ((outside > 8) & (outside < 16))
        data = np.hypot(data + rng.normal(0, noise, data.shape), rng.normal(0, noise, data.shape))
    return Volume(np.clip(data, 0, None).astype(np.float32), grid.affine)


def test_noise_has_no_findings_and_what_is_no_scan_has() -> None:
    assert codes(NOISE) == codes(np.round(NOISE / NOISE.max() * 255)) == []
    assert codes(np.zeros_like(NOISE)) == codes(np.full_like(NOISE, 7.0)) == ["constant"]
    blocks = np.kron(RNG.integers(0, 150, (6, 6, 6)), np.ones((6, 6, 6)))
    assert codes(blocks) == ["labels"]
    assert codes(np.round(NOISE / 15)) == ["few-levels"]
    assert codes(np.round(NOISE / 150)) == ["labels"]
    assert codes(np.minimum(NOISE, 500.0)) == ["saturated"]
    assert codes(NOISE - 400.0) == ["negative"]


@pytest.mark.parametrize("background", [0.0, -3.0])
def test_a_brain_is_told_from_a_head(background: float) -> None:
    head, brain = brain_volume(skull=True), brain_volume(skull=False)
    filled = Volume(np.where(brain.data > 0, brain.data, background), brain.affine)
    assert find_surroundings(head).skull == SkullState.HEAD
    air = depth_mm(brain.data == 0, head.spacing) > 20.0
    zeroed = Volume(np.where(air, 0.0, head.data), head.affine)
    assert find_surroundings(zeroed).skull == SkullState.HEAD
    found = find_surroundings(filled)
    assert found.skull == SkullState.BRAIN
    template_ml = float(load_template(4.0).brain_mask.data.sum()) * 0.064
    assert found.volume_ml == pytest.approx(template_ml, rel=0.15)
    assert found.mask.sum() * found.image.grid.voxel_volume_ml >= template_ml


def test_a_small_thing_is_neither() -> None:
    brain = brain_volume(skull=False)
    small = Volume(brain.data, brain.affine @ np.diag([0.5, 0.5, 0.5, 1.0]))
    found = find_surroundings(small)
    assert found.skull == SkullState.UNCLEAR
    assert [finding.code for finding in check_view(found)[0]] == ["no-head"]


@pytest.mark.parametrize(
    ("skull", "cut", "side"),
    [
        (False, np.s_[:, :, :34], "superior"),
        (False, np.s_[:, 26:, :], "posterior"),
        (False, np.s_[:36, :, :], "right"),
        (False, np.s_[:, :, :], None),
        (True, np.s_[:, :, :], None),
        (True, np.s_[:, :, 12:], None),  # a neck may leave the field of view
    ],
)
def test_a_cut_is_named_by_its_side(skull: bool, cut: tuple[slice, ...], side: str | None) -> None:
    whole = brain_volume(skull=skull)
    start = np.array([part.start or 0 for part in cut])
    affine = np.array(whole.affine)
    affine[:3, 3] = (whole.affine @ [*start, 1.0])[:3]
    findings, _ = check_view(find_surroundings(Volume(np.ascontiguousarray(whole.data[cut]), affine)))
    assert [finding.code for finding in findings] == ["cut-view"] * (side is not None)
    assert side is None or side in findings[0].message
