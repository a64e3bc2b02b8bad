"""Figures: charts of results as SVG. Each function takes plain numbers, draws, and returns the file's bytes."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "CodeCurve",
    "LearningPoints",
    "LossCurve",
    "RocCurve",
    "draw_calibration",
    "draw_code_use",
    "draw_dose_response",
    "draw_learning_curve",
    "draw_loss_curves",
    "draw_roc",
    "draw_scatter",
]

# Okabe and Ito's colours, which remain distinct to colour-blind readers and on a grey printer.
BLUE, VERMILLION, GREEN, PURPLE, INK, GREY = "#0072B2", "#D55E00", "#00795A", "#A0457F", "#1B1F24", "#5B6470"
THIN = ((VERMILLION, (0, (5, 2))), (GREEN, (0, (1, 1.2))), (PURPLE, (0, (5, 1.5, 1, 1.5))), (GREY, (0, (8, 3))))

# A loss that falls by more than this factor is shown on a logarithmic axis.
LOGARITHMIC_FROM = 8.0

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#E3E6EA",
    "legend.frameon": False,
    "text.parse_math": False,
    # Letters become outlines, so that every viewer shows the same; the salt makes equal figures equal files.
    "svg.fonttype": "path",
    "svg.hashsalt": "ldae",
}


@dataclass(frozen=True)
class LossCurve:
    """Losses of one training stage.

    Attributes:
        title: of the panel.
        train: steps and losses on training batches.
        validation: steps and losses on the validation split.
    """

    title: str
    train: tuple[Sequence[float], Sequence[float]]
    validation: tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class RocCurve:
    """True against false positive rate.

    Attributes:
        label: for the legend.
        false_positive_rate: ascending, 0..1.
        true_positive_rate: at each of them.
        band: false positive rates with the lower and upper end of the true positive rate's 95 % interval.
    """

    label: str
    false_positive_rate: Sequence[float]
    true_positive_rate: Sequence[float]
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class LearningPoints:
    """A figure against the number of labelled subjects.

    Attributes:
        label: for the legend.
        mean: over draws of who is labelled, at each point.
        low: 2.5th percentile over draws.
        high: 97.5th percentile over draws.
    """

    label: str
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class CodeCurve:
    """What a code is worth at each noise level.

    Attributes:
        label: whose code it is, for the legend.
        explained: share of the error without a code that it removes.
        unexplained: share of the latent's variance that it leaves open.
        band: lower and upper end of the 95 % interval of `explained`.
    """

    label: str
    explained: Sequence[float]
    unexplained: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None


@contextmanager
def _drawing(width: float, height: float) -> Iterator[Any]:
    """A figure in the house style, width and height in inches; no global state is left behind."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _plain_axes(axes: Any) -> None:
    axes.grid(visible=True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_loss_curves(curves: Sequence[LossCurve]) -> bytes:
    """One panel a stage, training and validation loss by step, SVG.

    A loss that falls far is drawn on a logarithmic axis.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    with _drawing(11.6, 3.3) as figure:
        for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
            values = np.asarray([*curve.train[1], *curve.validation[1]], dtype=float)
            if values.size and values.min() > 0 and values.max() > LOGARITHMIC_FROM * values.min():
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.plot(*curve.train, color=BLUE, linewidth=1.2, label="training")
            axes.plot(
                *curve.validation,
                color=VERMILLION,
                linewidth=1.8,
                linestyle=(0, (5, 2)),
                marker="o",
                markersize=4,
                label="validation",
            )
            axes.set(title=curve.title, xlabel="step (batches)", ylabel="loss")
            _plain_axes(axes)
            axes.legend(loc="upper right")
        return _svg(figure)


def draw_roc(curves: Sequence[RocCurve], *, positive: str, negative: str) -> bytes:
    """ROC curves with the line of chance, SVG.

    Args:
        curves: the first is drawn strong and with its band, the others thin.
        positive: name of the class that is to be found.
        negative: name of the other.
    """
    with _drawing(5.6, 5.6) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (2, 3)), label="chance")
        for index, curve in enumerate(curves):
            rates = (curve.false_positive_rate, curve.true_positive_rate)
            if curve.band is not None and index == 0:
                axes.fill_between(*curve.band, color=BLUE, alpha=0.18, linewidth=0, label="its 95 % band")
            if index == 0:
                axes.plot(*rates, color=BLUE, linewidth=2.4, label=curve.label, zorder=3)
            else:
                colour, dashes = THIN[(index - 1) % len(THIN)]
                axes.plot(*rates, color=colour, linewidth=1.2, linestyle=dashes, label=curve.label)
        axes.set(
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
            xlabel=f"{negative} scans called {positive} (1 - specificity)",
            ylabel=f"{positive} scans found (sensitivity)",
        )
        _plain_axes(axes)
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: (labels[i] == "chance", i))
        axes.legend([handles[i] for i in order], [labels[i] for i in order], loc="lower right", fontsize=9)
        return _svg(figure)


def draw_calibration(
    predicted: Sequence[float], observed: Sequence[float], counts: Sequence[int], *, positive: str
) -> bytes:
    """Observed against predicted frequency with the line of identity, SVG.

    Args:
        predicted: mean probability of each group.
        observed: share of positive scans of each group.
        counts: scans of each group.
        positive: name of the class that is to be found.
    """
    with _drawing(5.6, 4.4) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
        label = (
            f"groups of {min(counts)} to {max(counts)} scans"
            if min(counts) < max(counts)
            else f"groups of {counts[0]} scans"
        )
        axes.plot(predicted, observed, color=BLUE, linewidth=1.8, marker="o", markersize=5, label=label)
        axes.set(
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            xlabel=f"predicted probability of {positive}",
            ylabel=f"observed share of {positive}",
        )
        _plain_axes(axes)
        axes.legend(loc="upper left", fontsize=9)
        return _svg(figure)


def draw_learning_curve(subjects: Sequence[int], series: Sequence[LearningPoints], figure_name: str) -> bytes:
    """A figure against the number of labelled subjects, SVG.

    Args:
        subjects: labelled, at each point.
        series: the first is drawn strong and with its band, the others thin.
        figure_name: of the ordinate.
    """
    with _drawing(5.6, 4.4) as figure:
        axes = figure.subplots()
        for index, each in enumerate(series):
            if index == 0:
                axes.fill_between(subjects, each.low, each.high, color=BLUE, alpha=0.18, linewidth=0)
                axes.plot(
                    subjects, each.mean, color=BLUE, linewidth=2.4, marker="o", markersize=4, label=each.label, zorder=3
                )
            else:
                colour, dashes = THIN[(index - 1) % len(THIN)]
                axes.plot(subjects, each.mean, color=colour, linewidth=1.2, linestyle=dashes, label=each.label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(subjects), [str(count) for count in subjects])
        axes.minorticks_off()
        axes.set(xlabel="labelled subjects", ylabel=figure_name)
        _plain_axes(axes)
        axes.legend(loc="best", fontsize=9)
        return _svg(figure)


def draw_scatter(target: Sequence[float], predicted: Sequence[float], name: str, unit: str = "") -> bytes:
    """Predicted against true values, with the line of identity, SVG.

    Args:
        target: true value of each scan.
        predicted: of each scan.
        name: of what is predicted.
        unit: of it.
    """
    with _drawing(5.6, 5.6) as figure:
        axes = figure.subplots()
        everything = np.asarray([*target, *predicted], dtype=float)
        margin = 0.05 * max(float(np.ptp(everything)), 1e-9)
        low, high = everything.min() - margin, everything.max() + margin
        axes.plot(
            [low, high], [low, high], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="identity: predicted = true"
        )
        axes.scatter(target, predicted, s=26, color=BLUE, alpha=0.6, edgecolor="white", linewidth=0.5, label="one scan")
        words = f"{name} ({unit})" if unit else name
        axes.set(
            xlim=(low, high), ylim=(low, high), aspect="equal", xlabel=f"true {words}", ylabel=f"predicted {words}"
        )
        _plain_axes(axes)
        axes.legend(loc="upper left", fontsize=9)
        return _svg(figure)


def draw_dose_response(
    steps: Sequence[float], probability: Sequence[float], ventricle_change_ml: Sequence[float], *, positive: str
) -> bytes:
    """Mean probability and mean change of ventricle volume by step of a manipulation, SVG.

    Args:
        steps: signed, in standard deviations.
        probability: mean of the probe on the edited images, at each step.
        ventricle_change_ml: mean change against step 0, at each step.
        positive: name of the class that positive steps move toward.
    """
    panels = (
        (probability, f"mean probability of {positive}", BLUE, "o"),
        (ventricle_change_ml, "mean change of the ventricles (ml)", VERMILLION, "s"),
    )
    with _drawing(11.6, 3.5) as figure:
        for axes, (values, label, colour, marker) in zip(figure.subplots(1, 2), panels, strict=True):
            axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (2, 3)))
            axes.plot(steps, values, color=colour, linewidth=2, marker=marker, markersize=6)
            axes.set(xlabel=f"step (standard deviations; positive is toward {positive})", ylabel=label)
            axes.set_xticks(list(steps), [_signed(step) for step in steps])
            _plain_axes(axes)
        first, second = figure.axes
        first.set_ylim(-0.03, 1.03)
        second.axhline(0, color=GREY, linewidth=1, linestyle=(0, (2, 3)))
        return _svg(figure)


def draw_code_use(snr: Sequence[float], curves: Sequence[CodeCurve]) -> bytes:
    """What is explained and what is left open with several codes by noise level, SVG.

    Args:
        snr: signal-to-noise ratio of each level, descending; levels are drawn evenly spaced, as the schedule has them.
        curves: the first is drawn strong; one that explains 0 everywhere is the line of no code.
    """
    styles = ((BLUE, "-", "o"), (VERMILLION, (0, (5, 2)), "s"), (GREY, (0, (2, 2)), "D"))
    places = range(len(snr))
    with _drawing(11.6, 3.9) as figure:
        first, second = figure.subplots(1, 2)
        for curve, (colour, dashes, marker) in zip(curves, styles, strict=False):
            options: dict[str, Any] = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 5}
            first.plot(places, curve.explained, linewidth=2, label=curve.label, **options)
            second.plot(places, curve.unexplained, linewidth=2, label=curve.label, **options)
            if curve.band is not None:
                first.fill_between(places, *curve.band, color=colour, alpha=0.18, linewidth=0)
        for axes in (first, second):
            axes.set_xticks(list(places), [_ratio(value) for value in snr], fontsize=9)
            axes.set(xlabel="signal-to-noise ratio of the latent (left: nearly clean, right: nearly all noise)")
            _plain_axes(axes)
        first.set(title="Share of the open rest that is explained", ylabel="0: as without a code, 1: everything")
        second.set(title="What is still open", ylabel="share of the latent's variance")
        second.set_ylim(bottom=0)
        first.legend(loc="best", fontsize=9)
        return _svg(figure)


def _ratio(value: float) -> str:
    """A signal-to-noise ratio in few letters."""
    if value == 0 or 1e-3 <= value < 1e4:
        return f"{float(f'{value:.1g}' if value < 10 else f'{value:.2g}'):g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{value:+g}".replace("-", "\N{MINUS SIGN}")
