"""Slice panels: the right way round, the right way up, and marked."""

import io

import numpy as np
import pytest
from PIL import Image

from ldae.report.plots import slice_panels
from ldae.report.plots.slice_panels import (
    Cut,
    PanelRow,
    Tile,
    choose_cuts,
    draw_panel,
    radiological_section,
    symmetric_limit,
)

SHAPE = (20, 24, 18)
# Voxels near the edge of each side, RAS order.
SIDES = {
    "right": (17, 12, 9),
    "left": (2, 12, 9),
    "anterior": (10, 21, 9),
    "posterior": (10, 2, 9),
    "superior": (10, 12, 15),
    "inferior": (10, 12, 2),
}


def spot(side: str) -> np.ndarray:
    volume = np.zeros(SHAPE, dtype=np.float32)
    x, y, z = SIDES[side]
    volume[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = 1.0
    return volume


@pytest.mark.parametrize(
    ("plane", "side", "where"),
    [
        ("axial", "right", "left"),
        ("axial", "left", "right"),
        ("axial", "anterior", "top"),
        ("axial", "posterior", "bottom"),
        ("coronal", "right", "left"),
        ("coronal", "superior", "top"),
        ("coronal", "inferior", "bottom"),
        ("sagittal", "anterior", "left"),
        ("sagittal", "posterior", "right"),
        ("sagittal", "superior", "top"),
    ],
)
def test_a_spot_appears_on_its_side(plane: str, side: str, where: str) -> None:
    index = {"axial": 9, "coronal": 12, "sagittal": 10}[plane]
    section = radiological_section(spot(side), Cut(plane, index, plane))
    rows, columns = np.nonzero(section)
    row, column = rows.mean() / section.shape[0], columns.mean() / section.shape[1]
    found = {"left": column < 0.3, "right": column > 0.7, "top": row < 0.3, "bottom": row > 0.7}
    assert found[where]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def head(side: str) -> np.ndarray:
    """A dim block with a bright spot, so that empty margins are no wider on one side."""
    volume = spot(side)
    volume[1:-1, 1:-1, 1:-1] = np.maximum(volume[1:-1, 1:-1, 1:-1], 0.2)
    return volume


@pytest.mark.parametrize(("side", "half"), [("right", "left"), ("left", "right")])
def test_in_the_drawn_panel_the_patients_right_is_beside_the_letter_r(
    side: str, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters: dict[str, float] = {}
    original = slice_panels._write

    def write(page: object, x: float, y: float, text: str, **how: object) -> None:
        letters.setdefault(text, x)
        # Letters would be bright too.
        if text not in ("R", "L", "ORIGINAL"):
            original(page, x, y, text, **how)

    monkeypatch.setattr(slice_panels, "_write", write)
    drawn = pixels(draw_panel([PanelRow(Cut("axial", 9, "axial"), [Tile(head(side), "original")])], ["head"]))
    # Inside the black tile only: the page around it is white as well.
    at = round(0.56 * slice_panels.DPI)
    inside = drawn[at:-10, at:-20]
    _, columns = np.nonzero(inside.min(axis=2) > 150)
    middle = at + columns.mean()
    letter = letters["R" if side == "right" else "L"] * slice_panels.DPI
    other = letters["L" if side == "right" else "R"] * slice_panels.DPI
    assert abs(middle - letter) < abs(middle - other)
    assert (letter < other) == (half == "left")


def amber(drawn: np.ndarray) -> int:
    red, green, blue = (drawn[..., channel].astype(int) for channel in range(3))
    return int(np.count_nonzero((red > 220) & (abs(green - 209) < 25) & (abs(blue - 102) < 40)))


def test_only_generated_images_carry_the_word_synthetic() -> None:
    cut = Cut("axial", 9, "axial")
    volume = head("right")
    plain = draw_panel([PanelRow(cut, [Tile(volume, "original")])], ["x"])
    one = draw_panel([PanelRow(cut, [Tile(volume, "synthetic")])], ["x"])
    two = draw_panel([PanelRow(cut, [Tile(volume, "synthetic"), Tile(volume, "synthetic")])], ["x", "x"])
    assert amber(pixels(plain)) == 0
    assert amber(pixels(one)) > 20
    assert amber(pixels(two)) == pytest.approx(2 * amber(pixels(one)), rel=0.2)


def test_differences_share_one_scale_blue_below_red_above() -> None:
    cut = Cut("axial", 9, "axial")
    base = head("right")
    tiles = [Tile(sign * 0.2 * (base > 0), "difference", outline=base) for sign in (-1, 1)]
    row = PanelRow(cut, [Tile(base, "original"), *tiles])
    drawn = pixels(draw_panel([row], ["a", "b", "c"], limit=0.2, limit_label="$\\frac")).astype(int)
    third = drawn.shape[1] // 3
    height = drawn.shape[0] // 2
    low = drawn[height - 20 : height]
    blue, red = low[:, third + 60 : 2 * third - 60], low[:, 2 * third + 60 : -60]
    assert (blue[..., 2] > blue[..., 0] + 40).mean() > 0.8
    assert (red[..., 0] > red[..., 2] + 40).mean() > 0.8
    unchanged = drawn[(drawn > 235).all(axis=2) & (drawn < 255).all(axis=2)]
    assert np.ptp(np.median(unchanged, axis=0)) <= 2, "no change has no tint"
    with pytest.raises(AssertionError, match="limit"):
        draw_panel([row], ["a", "b", "c"])


def test_places_may_stay_empty_and_captions_may_hold_anything() -> None:
    cut = Cut("coronal", 12, "coronal")
    row = PanelRow(cut, [None, Tile(np.zeros(SHAPE), "original")], ["", "P(AD) 0.5\n$\\bad$ <b>"])
    drawn = pixels(draw_panel([row], ["a", "b\nc"]))
    assert drawn.shape[1] > 400


def test_the_limit_is_round_and_holds_nearly_all() -> None:
    values = np.linspace(-0.13, 0.13, 2001)
    assert symmetric_limit([values]) == pytest.approx(0.15)
    assert symmetric_limit([values, 3 * values]) == pytest.approx(0.4)
    assert symmetric_limit([0.1 * np.ones(10)]) == pytest.approx(0.1)
    assert symmetric_limit([np.zeros(5)]) == pytest.approx(0.01)
    assert symmetric_limit([]) == pytest.approx(0.01)


def test_cuts_are_labelled_in_template_millimetres() -> None:
    cuts = choose_cuts((32, 40, 32), voxel_size_mm=5.0, centre_mm=(0.5, -16.5, 5.5))
    assert [cut.plane for cut in cuts] == ["axial", "coronal", "sagittal"]
    # z = 5.5 + (17 - 15.5) * 5 = 13
    assert (cuts[0].index, cuts[0].label) == (17, "axial, z = +13 mm")
    assert cuts[1].label == "coronal, y = \N{MINUS SIGN}14 mm"
    assert [cut.label for cut in choose_cuts((32, 40, 32))] == ["axial", "coronal", "sagittal"]
