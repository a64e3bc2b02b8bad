"""Charts: valid, self-contained, repeatable SVG."""

import re
from xml.etree import ElementTree

import pytest

from ldae.report.plots.figures import (
    CodeCurve,
    LearningPoints,
    LossCurve,
    RocCurve,
    draw_calibration,
    draw_code_use,
    draw_dose_response,
    draw_learning_curve,
    draw_loss_curves,
    draw_roc,
    draw_scatter,
)

SVG = "{http://www.w3.org/2000/svg}"


def loss_chart() -> bytes:
    steps = [1.0, 10.0, 20.0]
    falling = LossCurve("1 First", (steps, [5.0, 0.5, 0.05]), ([20.0], [0.06]))
    flat = LossCurve("2 Second $x$", (steps, [1.0, 0.9, 0.8]), ([], []))
    return draw_loss_curves([falling, flat])


def roc_chart() -> bytes:
    rates = ([0.0, 0.2, 1.0], [0.0, 0.8, 1.0])
    curves = [
        RocCurve("code", *rates, band=([0.0, 0.5, 1.0], [0.0, 0.6, 0.9], [0.4, 1.0, 1.0])),
        *(RocCurve(f"baseline {n} $\\frac$", *rates) for n in range(6)),
    ]
    return draw_roc(curves, positive="AD", negative="CN")


def scatter_chart() -> bytes:
    return draw_scatter([60.0, 70.0, 80.0], [65.0, 69.0, 74.0], "age", "years")


def calibration_chart() -> bytes:
    return draw_calibration([0.1, 0.5, 0.9], [0.2, 0.5, 0.8], [10, 10, 11], positive="AD")


def learning_chart() -> bytes:
    own = LearningPoints("own $x$", [0.5, 0.6, 0.8], [0.4, 0.5, 0.7], [0.6, 0.7, 0.9])
    return draw_learning_curve([2, 4, 8], [own, LearningPoints("other", [0.5, 0.5, 0.6], [0.4] * 3, [0.7] * 3)], "AUC")


def dose_chart() -> bytes:
    return draw_dose_response([-1.0, 0.0, 1.5], [0.1, 0.5, 0.9], [-2.0, 0.0, 3.0], positive="AD")


def code_chart() -> bytes:
    own = CodeCurve("own code", [0.0, 0.4, 0.4], [0.01, 0.04, 0.04], band=([-0.1, 0.3, 0.3], [0.1, 0.5, 0.5]))
    others = [CodeCurve(name, [-0.2, -0.6, -0.5], [0.01, 0.1, 0.1]) for name in ("other $x$", "none")]
    return draw_code_use([12.3, 0.02, 0.0], [own, *others])


CHARTS = (loss_chart, roc_chart, scatter_chart, calibration_chart, learning_chart, dose_chart, code_chart)


@pytest.mark.parametrize("draw", CHARTS)
def test_a_chart_is_svg_that_refers_to_nothing_outside(draw: object) -> None:
    root = ElementTree.fromstring(draw())
    assert root.tag == f"{SVG}svg"
    links = [value for each in root.iter() for name, value in each.attrib.items() if name.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert not list(root.iter(f"{SVG}text")), "letters must be outlines, whatever fonts the reader has"


def test_a_chart_is_the_same_file_each_time() -> None:
    assert roc_chart() == roc_chart()


def test_drawing_leaves_the_global_style_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    loss_chart()
    assert dict(matplotlib.rcParams) == before


def test_the_scatter_draws_one_dot_a_scan() -> None:
    root = ElementTree.fromstring(scatter_chart())
    dots = next(each for each in root.iter(f"{SVG}g") if each.get("id", "").startswith("PathCollection"))
    assert len(list(dots.iter(f"{SVG}use"))) == 3


def test_the_band_belongs_to_the_first_curve_alone() -> None:
    assert len(re.findall(r'id="FillBetweenPolyCollection_\d+"', roc_chart().decode())) <= 1
    assert b"FillBetween" in roc_chart() or b"PolyCollection" in roc_chart()
