"""Interactive charts hold the numbers that they were given."""

import json

import pytest

from ldae.report.plots.charts import (
    Chart,
    calibration_chart,
    dose_response_chart,
    learning_chart,
    roc_chart,
    scatter_chart,
)
from ldae.report.plots.figures import LearningPoints, RocCurve

CODE = RocCurve("code (AUC 0.9)", [0, 0.2, 1], [0, 0.8, 1], ([0, 0.5, 1], [0, 0.7, 1], [0.2, 1, 1]))
PLAIN = RocCurve("age (AUC 0.6)", [0, 1], [0, 1])

CHARTS = {
    "roc": roc_chart([CODE, PLAIN], positive="AD", negative="CN"),
    "calibration": calibration_chart([0.1, 0.9], [0.2, 0.8], [10, 11], positive="AD"),
    "scatter": scatter_chart([60.0, 80.0], [65.0, 75.0], ["sub-1_ses-a", "sub-2_ses-a"], "age", "years"),
    "learning": learning_chart([8, 16], [LearningPoints("code", [0.6, 0.7], [0.5, 0.6], [0.7, 0.8])], "AUC"),
    "dose": dose_response_chart([-1, 0, 1], [0.2, 0.5, 0.8], [-3.0, 0.0, 3.5], positive="AD"),
}


def trace(chart: Chart, name: str) -> dict:
    return next(each for each in chart["data"] if each["name"] == name)


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_chart_is_plain_json_with_named_axes(chart: Chart) -> None:
    assert json.loads(json.dumps(chart, allow_nan=False)) == chart
    assert chart["layout"]["xaxis"]["title"]["text"]
    assert chart["layout"]["yaxis"]["title"]["text"]
    assert all(len(each["x"]) == len(each["y"]) > 0 for each in chart["data"])


def test_curves_keep_their_points_and_the_band_is_closed() -> None:
    chart = CHARTS["roc"]
    assert (trace(chart, CODE.label)["x"], trace(chart, CODE.label)["y"]) == ([0, 0.2, 1], [0, 0.8, 1])
    band = trace(chart, "its 95 % band")
    assert band["x"] == [0, 0.5, 1, 1, 0.5, 0]
    assert band["y"] == [0.2, 1, 1, 1, 0.7, 0]
    assert trace(chart, "chance")["y"] == [0, 1]


def test_a_dot_tells_its_scan() -> None:
    assert trace(CHARTS["scatter"], "one scan")["text"] == ["sub-1_ses-a", "sub-2_ses-a"]


def test_volumes_have_an_ordinate_of_their_own() -> None:
    chart = CHARTS["dose"]
    assert trace(chart, "mean change of the ventricles")["yaxis"] == "y2"
    assert "ml" in chart["layout"]["yaxis2"]["title"]["text"]
