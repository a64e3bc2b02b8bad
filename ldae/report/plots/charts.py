"""Interactive charts: the same results as the figures, as Plotly's JSON, for pages that can hold a script.

Each function takes what its namesake among the figures takes, and returns `{"data": [...], "layout": {...}}`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ldae.report.plots.figures import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, LearningPoints, RocCurve

__all__ = ["Chart", "calibration_chart", "dose_response_chart", "learning_chart", "roc_chart", "scatter_chart"]

Chart = Mapping[str, Any]

BAND = "rgba(0, 114, 178, 0.18)"
THIN = ((VERMILLION, "dash"), (GREEN, "dot"), (PURPLE, "dashdot"), (GREY, "longdash"))
LINES = "#E3E6EA"


def roc_chart(curves: Sequence[RocCurve], *, positive: str, negative: str) -> Chart:
    """ROC curves with the line of chance; the first is strong and has its band."""
    traces: list[dict[str, Any]] = []
    for index, curve in enumerate(curves):
        if index == 0 and curve.band is not None:
            rates, low, high = curve.band
            traces.append(_band(rates, low, high, "its 95 % band"))
        traces.append(
            {
                **_line(curve.false_positive_rate, curve.true_positive_rate, curve.label, index),
                "hovertemplate": "false alarms %{x:.3f}, found %{y:.3f}",
            }
        )
    traces.append(_reference([0, 1], [0, 1], "chance"))
    return _chart(
        traces,
        x=f"{negative} scans called {positive} (1 - specificity)",
        y=f"{positive} scans found (sensitivity)",
        xaxis={"range": [-0.01, 1.01], "constrain": "domain"},
        yaxis={"range": [-0.01, 1.01], "scaleanchor": "x", "constrain": "domain"},
        height=560,
    )


def calibration_chart(
    predicted: Sequence[float], observed: Sequence[float], counts: Sequence[int], *, positive: str
) -> Chart:
    """Observed against predicted frequency with the line of identity."""
    traces = [
        {
            **_line(predicted, observed, "groups of scans", 0),
            "mode": "lines+markers",
            "customdata": list(counts),
            "hovertemplate": "predicted %{x:.3f}, observed %{y:.3f}, %{customdata} scans",
        },
        _reference([0, 1], [0, 1], "perfectly calibrated"),
    ]
    return _chart(
        traces,
        x=f"predicted probability of {positive}",
        y=f"observed share of {positive}",
        xaxis={"range": [-0.02, 1.02]},
        yaxis={"range": [-0.02, 1.02]},
    )


def scatter_chart(
    target: Sequence[float], predicted: Sequence[float], keys: Sequence[str], name: str, unit: str = ""
) -> Chart:
    """Predicted against true values with the line of identity; a dot tells which scan it is."""
    ends = [min([*target, *predicted]), max([*target, *predicted])]
    words = f"{name} ({unit})" if unit else name
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": list(target),
            "y": list(predicted),
            "text": list(keys),
            "name": "one scan",
            "marker": {"color": BLUE, "opacity": 0.6, "size": 7, "line": {"color": "#fff", "width": 0.5}},
            "hovertemplate": "%{text}<br>true %{x:.1f}, predicted %{y:.1f}<extra></extra>",
        },
        _reference(ends, ends, "predicted = true"),
    ]
    return _chart(
        traces, x=f"true {words}", y=f"predicted {words}", yaxis={"scaleanchor": "x", "constrain": "domain"}, height=560
    )


def learning_chart(subjects: Sequence[int], series: Sequence[LearningPoints], figure_name: str) -> Chart:
    """A figure against the number of labelled subjects."""
    traces: list[dict[str, Any]] = []
    for index, each in enumerate(series):
        if index == 0:
            traces.append(_band(subjects, each.low, each.high, "95 % of draws"))
        traces.append(
            {
                **_line(subjects, each.mean, each.label, index),
                "mode": "lines+markers",
                "hovertemplate": "%{x} subjects: %{y:.3f}",
            }
        )
    ticks = {"type": "log", "tickvals": list(subjects), "ticktext": [str(count) for count in subjects]}
    return _chart(traces, x="labelled subjects", y=figure_name, xaxis=ticks)


def dose_response_chart(
    steps: Sequence[float], probability: Sequence[float], ventricle_change_ml: Sequence[float], *, positive: str
) -> Chart:
    """Mean probability, and on the second ordinate mean change of ventricle volume, by step of a manipulation."""
    traces = [
        {
            **_line(steps, probability, f"mean probability of {positive}", 0),
            "mode": "lines+markers",
            "hovertemplate": "step %{x}: %{y:.3f}",
        },
        {
            **_line(steps, ventricle_change_ml, "mean change of the ventricles", 1),
            "mode": "lines+markers",
            "yaxis": "y2",
            "hovertemplate": "step %{x}: %{y:+.2f} ml",
        },
    ]
    chart = _chart(
        traces,
        x=f"step (standard deviations; positive is toward {positive})",
        y=f"mean probability of {positive}",
        xaxis={"tickvals": list(steps)},
        yaxis={"range": [-0.03, 1.03]},
    )
    second = {
        "title": {"text": "mean change of the ventricles (ml)"},
        "overlaying": "y",
        "side": "right",
        "tickmode": "auto",
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }
    return {**chart, "layout": {**chart["layout"], "yaxis2": second}}


def _line(x: Sequence[float], y: Sequence[float], name: str, index: int) -> dict[str, Any]:
    """The first line is strong, the others are thin and dashed."""
    colour, dash = (BLUE, "solid") if index == 0 else THIN[(index - 1) % len(THIN)]
    style = {"color": colour, "dash": dash, "width": 2.6 if index == 0 else 1.4}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": name, "line": style}


def _band(x: Sequence[float], low: Sequence[float], high: Sequence[float], name: str) -> dict[str, Any]:
    """The area between two lines."""
    return {
        "type": "scatter",
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": BAND,
        "line": {"width": 0},
        "mode": "lines",
        "name": name,
        "hoverinfo": "skip",
    }


def _reference(x: Sequence[float], y: Sequence[float], name: str) -> dict[str, Any]:
    """A line to compare with."""
    style = {"color": GREY, "dash": "dot", "width": 1}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": style,
        "hoverinfo": "skip",
    }


def _chart(
    traces: Sequence[Mapping[str, Any]],
    *,
    x: str,
    y: str,
    xaxis: Mapping[str, Any] | None = None,
    yaxis: Mapping[str, Any] | None = None,
    height: int = 440,
) -> Chart:
    """Traces in the house style; Plotly checks that every name in them exists."""
    from plotly.graph_objects import Figure

    axis = {"gridcolor": LINES, "zeroline": False, "linecolor": GREY, "ticks": "outside", "automargin": True}
    layout = {
        "font": {"family": "system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif", "size": 13, "color": INK},
        "plot_bgcolor": "#fff",
        "paper_bgcolor": "#fff",
        "margin": {"l": 60, "r": 16, "t": 10, "b": 50},
        "height": height,
        "hovermode": "closest",
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0},
        "xaxis": {**axis, "title": {"text": x}, **(xaxis or {})},
        "yaxis": {**axis, "title": {"text": y}, **(yaxis or {})},
    }
    Figure(data=list(traces), layout=layout)
    return {"data": list(traces), "layout": layout}
