"""One description of a chart, drawn by Plotly where scripts run and by matplotlib as a still picture."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from typing import Any, Literal

__all__ = ["Axis", "Chart", "Series", "draw_plotly", "draw_svg", "spanning_axis"]

# After Okabe and Ito; apart under simulated colour blindness too, as a test checks. Dashes and marks tell lines apart in grey.
BLUE, VERMILLION, GREEN, PINK, BROWN = "#0072B2", "#D55E00", "#008F68", "#C66BA0", "#6B2E00"
INK, GREY = "#1B1F24", "#5B6470"
LINES = "#E3E6EA"
BAND_OPACITY = 0.18
# Colour, width, dashes (in multiples of the width) and mark (of Plotly and of matplotlib) of the strong series and the others.
Style = tuple[str, float, tuple[float, ...], tuple[str, str]]
STRONG: Style = (BLUE, 2.4, (), ("circle", "o"))
MARKS = (("square", "s"), ("diamond", "D"), ("triangle-up", "^"), ("x", "X"), ("cross", "P"))
THIN: tuple[Style, ...] = tuple(
    (colour, 1.5, dashes, mark)
    for dashes in ((5, 2), (1, 1.2))
    for colour, mark in zip((VERMILLION, GREEN, PINK, INK, BROWN), MARKS, strict=True)
)
REFERENCE: Style = (GREY, 1.0, (2, 3), ("circle", "o"))
# The codes and each baseline of a study have one style in all charts; other series take those that are left.
ORDER = "random_encoder tissue_pca image_pca true_volumes latent_pca volumes tissue_blocks demographics median"
STYLES = {"codes": STRONG} | dict(zip([*ORDER.split(), "latent_pca_symmetric"], THIN, strict=True))

# Values that span more than this factor are drawn on a logarithmic axis.
LOGARITHMIC_FROM = 8.0

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINES,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.parse_math": False,
    # Letters become outlines, so that every viewer shows the same; the salt makes equal charts equal files.
    "svg.fonttype": "path",
    "svg.hashsalt": "ldae",
}


@dataclass(frozen=True)
class Axis:
    """Axis of a chart.

    Attributes:
        title: the quantity with its unit.
        limits: ends of the axis; chosen from the data if None.
        ticks: places of the ticks and their labels; chosen from the data if None.
        logarithmic: scale of the axis.
    """

    title: str
    limits: tuple[float, float] | None = None
    ticks: Mapping[float, str] | None = None
    logarithmic: bool = False


@dataclass(frozen=True)
class Series:
    """Points of a chart. The first series that is no reference is drawn strong.

    Attributes:
        name: entry of the legend.
        x: abscissae.
        y: ordinates, as many.
        marks: a line, points, both, or a line of reference.
        band: abscissae with lower and upper end of an interval.
        labels: one for each point, shown when a reader points at it.
        method: whose style the series has, as results name it.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marks: Literal["line", "points", "both", "reference"] = "line"
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None
    labels: Sequence[str] = ()
    method: str = ""


@dataclass(frozen=True)
class Chart:
    """Chart with two axes.

    Attributes:
        series: in order of the legend.
        x: horizontal axis.
        y: vertical axis.
        square: one unit has the same length on both axes.
    """

    series: Sequence[Series]
    x: Axis
    y: Axis
    square: bool = False

    @property
    def styled(self) -> list[tuple[Series, Style]]:
        """Every series with its style."""
        known = [STYLES[each.method] for each in self.series if each.method in STYLES]
        left = chain((style for style in (STRONG, *THIN) if style not in known), cycle(THIN))
        return [
            (each, REFERENCE if each.marks == "reference" else STYLES.get(each.method) or next(left))
            for each in self.series
        ]


def spanning_axis(title: str, values: Sequence[float]) -> Axis:
    """Axis that is logarithmic where values are positive and span much, with ticks at 1, 2 and 5 of each decade."""
    if not values or min(values) <= 0 or max(values) <= LOGARITHMIC_FROM * min(values):
        return Axis(title)
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    places = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    shown = [place for place in places if min(values) / 1.5 <= place <= max(values) * 1.5]
    return Axis(title, ticks={place: f"{place:g}" for place in shown}, logarithmic=True)


def draw_plotly(chart: Chart) -> dict[str, Any]:
    """Chart as Plotly's JSON: `{"data": [...], "layout": {...}}`."""
    traces: list[dict[str, Any]] = []
    for each, (colour, width, dashes, mark) in chart.styled:
        if each.band is not None:
            places, low, high = each.band
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": f"95 % band, {each.name}",
                    "x": _short([*places, *reversed(places)]),
                    "y": _short([*high, *reversed(low)]),
                    "fill": "toself",
                    "fillcolor": colour,
                    "opacity": BAND_OPACITY,
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        dash = ",".join(f"{dash * width:.3g}px" for dash in dashes) or "solid"
        trace = {
            "type": "scatter",
            "mode": {"points": "markers", "both": "lines+markers"}.get(each.marks, "lines"),
            "name": each.name,
            "x": _short(each.x),
            "y": _short(each.y),
            "line": {"color": colour, "width": width, "dash": dash},
            "marker": {"color": colour, "size": 7, "symbol": mark[0]},
            "opacity": 0.6 if each.marks == "points" else 1.0,
        }
        if each.marks == "reference":
            trace["hoverinfo"] = "skip"
        else:
            place = "%{text}" if each.labels else f"{chart.x.title}: %{{x:.4g}}"
            trace["hovertemplate"] = f"{place}<br>{chart.y.title}: %{{y:.4g}}"
            if each.labels:
                trace["text"] = list(each.labels)
                if each.marks == "points":
                    trace["hovertemplate"] = f"%{{text}}<br>{chart.x.title}: %{{x:.4g}}<br>{chart.y.title}: %{{y:.4g}}"
        traces.append(trace)
    layout = {
        "font": {"family": "system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif", "size": 13, "color": INK},
        "plot_bgcolor": "#fff",
        "paper_bgcolor": "#fff",
        "margin": {"l": 60, "r": 16, "t": 10, "b": 50},
        "height": (480 if chart.square else 360) + 20 * len(chart.series),
        "hovermode": "closest",
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0},
        "xaxis": _plotly_axis(chart.x),
        "yaxis": _plotly_axis(chart.y) | ({"scaleanchor": "x", "constrain": "domain"} if chart.square else {}),
    }
    return {"data": traces, "layout": layout}


def _short(values: Sequence[float]) -> list[float]:
    """The values with six digits, more than a reader can see."""
    return [float(f"{value:.6g}") for value in values]


def _plotly_axis(axis: Axis) -> dict[str, Any]:
    """An axis in Plotly's words."""
    found: dict[str, Any] = {
        "title": {"text": axis.title},
        "gridcolor": LINES,
        "linecolor": GREY,
        "zeroline": False,
        "ticks": "outside",
        "automargin": True,
        "constrain": "domain",
    }
    if axis.limits:
        found["range"] = list(axis.limits)
    if axis.logarithmic:
        found["type"] = "log"
    if axis.ticks:
        found |= {"tickmode": "array", "tickvals": list(axis.ticks), "ticktext": list(axis.ticks.values())}
    return found


def draw_svg(chart: Chart) -> bytes:
    """Chart as SVG; the same chart gives the same bytes, and matplotlib's global style stays as it is."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        height = (5.4 if chart.square else 3.6) + 0.18 * len(chart.series)
        figure = Figure(figsize=(5.6, height), layout="constrained")
        axes = figure.subplots()
        for each, (colour, width, dashes, mark) in chart.styled:
            if each.band is not None:
                axes.fill_between(*each.band, color=colour, alpha=BAND_OPACITY, linewidth=0)
            options: dict[str, Any] = {"color": colour, "label": each.name}
            if each.marks == "points":
                axes.scatter(each.x, each.y, s=26, alpha=0.6, edgecolor="white", linewidth=0.5, **options)
                continue
            options |= {"marker": mark[1], "markersize": 4} if each.marks == "both" else {}
            axes.plot(each.x, each.y, linewidth=width, linestyle=(0, dashes) if dashes else "-", **options)
        for axis, name in ((chart.x, "x"), (chart.y, "y")):
            _matplotlib_axis(axes, axis, name)
        if chart.square:
            axes.set_aspect("equal")
        figure.legend(loc="outside upper left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _matplotlib_axis(axes: Any, axis: Axis, name: str) -> None:
    """Set one of the axes' axes."""
    axes.set(**{f"{name}label": axis.title})
    drawn = getattr(axes, f"{name}axis")
    if axis.logarithmic:
        axes.set(**{f"{name}scale": "log"})
    if axis.ticks:
        drawn.set_ticks(list(axis.ticks), labels=list(axis.ticks.values()))
        drawn.set_ticks([], minor=True)
    if axis.limits:
        axes.set(**{f"{name}lim": axis.limits})
