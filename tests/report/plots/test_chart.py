"""A chart, described once, is valid for Plotly and repeatable SVG for matplotlib."""

import json
import re
from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import numpy as np
import plotly.graph_objects
import pytest

from ldae.report.plots.chart import STRONG, STYLES, THIN, Axis, Chart, Series, draw_plotly, draw_svg, spanning_axis

SVG = "{http://www.w3.org/2000/svg}"

CURVE = Series("code $x$ (AUC 0.9)", [0, 0.2, 1], [0, 0.8, 1], band=([0, 0.5, 1], [0, 0.7, 1], [0.2, 1, 1]))
CHARTS = {
    "roc": Chart(
        [
            CURVE,
            *(Series(f"baseline {n} $\\frac$", [0, 1], [0, 1]) for n in range(6)),
            Series("chance", [0, 1], [0, 1], "reference"),
        ],
        Axis("1 - specificity", (0, 1)),
        Axis("sensitivity", (0, 1)),
        square=True,
    ),
    "scatter": Chart(
        [Series("one scan", [60, 70, 80], [65, 69, 74], "points", labels=["sub-1", "sub-2", "sub-3"])],
        Axis("true age (years)"),
        Axis("predicted age (years)"),
    ),
    "loss": Chart(
        [Series("training", [1, 10, 20], [5.0, 0.5, 0.05]), Series("validation", [20], [0.06], "both")],
        Axis("step (batches)"),
        spanning_axis("loss", [5.0, 0.5, 0.05]),
    ),
    "learning": Chart(
        [Series("code", [2, 4, 8], [0.5, 0.6, 0.8], "both")],
        Axis("labelled subjects", ticks={2: "2", 4: "4", 8: "8"}, logarithmic=True),
        Axis("AUC"),
    ),
}


def trace(name: str, series: str) -> dict:
    return next(each for each in draw_plotly(CHARTS[name])["data"] if each["name"] == series)


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_plotly_knows_every_name_and_svg_refers_to_nothing_outside(chart: Chart) -> None:
    drawn = draw_plotly(chart)
    assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn
    plotly.graph_objects.Figure(**drawn)
    assert drawn["layout"]["xaxis"]["title"]["text"] == chart.x.title
    assert drawn["layout"]["yaxis"]["title"]["text"] == chart.y.title
    assert all(len(each["x"]) == len(each["y"]) > 0 for each in drawn["data"])
    root = ElementTree.fromstring(draw_svg(chart))
    assert root.tag == f"{SVG}svg"
    links = [value for each in root.iter() for name, value in each.attrib.items() if name.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert not list(root.iter(f"{SVG}text")), "letters must be outlines, whatever fonts the reader has"


def test_svg_is_the_same_file_each_time_and_leaves_the_global_style_alone() -> None:
    before = dict(matplotlib.rcParams)
    first = draw_svg(CHARTS["roc"])
    assert draw_svg(CHARTS["roc"]) == first
    assert dict(matplotlib.rcParams) == before


def test_curves_keep_their_points_and_the_band_is_closed() -> None:
    curve, band = trace("roc", CURVE.name), trace("roc", f"95 % band, {CURVE.name}")
    assert (curve["x"], curve["y"]) == (CURVE.x, CURVE.y)
    assert (band["x"], band["y"]) == ([0, 0.5, 1, 1, 0.5, 0], [0.2, 1, 1, 1, 0.7, 0])
    assert len(re.findall(r'id="FillBetweenPolyCollection_\d+"', draw_svg(CHARTS["roc"]).decode())) == 1


def test_the_first_series_is_strong_and_references_take_no_colour_of_others() -> None:
    widths = [each["line"]["width"] for each in draw_plotly(CHARTS["roc"])["data"] if "marker" in each]
    assert widths[0] == max(widths) > widths[1]
    assert trace("roc", "chance")["line"]["color"] != trace("roc", CURVE.name)["line"]["color"]


def test_a_point_names_its_scan_and_svg_draws_one_dot_each() -> None:
    assert trace("scatter", "one scan")["text"] == ["sub-1", "sub-2", "sub-3"]
    root = ElementTree.fromstring(draw_svg(CHARTS["scatter"]))
    dots = next(each for each in root.iter(f"{SVG}g") if each.get("id", "").startswith("PathCollection"))
    assert len(list(dots.iter(f"{SVG}use"))) == 3


@pytest.mark.parametrize(
    ("values", "expected"), [([5.0, 0.05], True), ([1.0, 0.9], False), ([5.0, 0.0], False), ([], False)]
)
def test_only_positive_values_that_span_much_get_a_logarithmic_axis(values: list[float], expected: bool) -> None:
    assert spanning_axis("loss", values).logarithmic is expected


# Machado et al. 2009 (IEEE TVCG 15:1291), severity 1, on linear RGB; and the plain colours.
SEEN_BY = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    """Linear RGB of a colour."""
    value = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear RGB."""
    x = TO_XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", SEEN_BY)
def test_colours_stay_apart_for_colour_blind_readers_and_stand_out_from_white(eye: str) -> None:
    colours = {style[0] for style in (STRONG, *THIN)}
    seen = {colour: lab(SEEN_BY[eye] @ linear(colour)) for colour in colours}
    assert min(np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(colours, 2)) > 15
    contrast = [1.05 / (TO_XYZ[1] @ linear(colour) + 0.05) for colour in colours]
    assert min(contrast) >= 3  # WCAG 2.1 for graphics


def test_a_method_has_one_style_in_all_charts_and_no_other_series_takes_it() -> None:
    assert len(set(STYLES.values())) == len(STYLES)
    dashes = {(style[0], style[2]) for style in STYLES.values()}
    assert len(dashes) == len(STYLES), "lines without marks must differ too"
    for names in (["codes", "latent_pca", "mine"], ["latent_pca", "other", "third", "codes"]):
        chart = Chart([Series(name, [0, 1], [0, 1], method=name) for name in names], Axis("x"), Axis("y"))
        styles = {series.name: style for series, style in chart.styled}
        assert (styles["codes"], styles["latent_pca"]) == (STRONG, STYLES["latent_pca"])
        assert len(set(styles.values())) == len(names)


def test_lines_of_one_chart_differ_in_grey() -> None:
    drawn = [
        each["line"]["dash"] + each["marker"]["symbol"]
        for each in draw_plotly(CHARTS["roc"])["data"]
        if "marker" in each
    ]
    assert len(set(drawn)) == len(drawn)
