"""A chart, described once, is valid for Plotly and repeatable SVG for matplotlib."""

import json
import re
from xml.etree import ElementTree

import matplotlib
import plotly.graph_objects
import pytest

from ldae.report.plots.chart import Axis, Chart, Series, draw_plotly, draw_svg, spanning_axis

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
