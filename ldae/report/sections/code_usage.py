"""The report's section on code usage: own code, another subject's code and no code, and the spread of codes."""

from collections.abc import Mapping
from typing import Any

from ldae.report.blocks import Absence, Beside, Block, Cell, ChartFigure, Row, Section, Table, Text
from ldae.report.plots.chart import Axis, Chart, Series
from ldae.report.run_folder import RunFolder
from ldae.report.source import Source
from ldae.report.wording import fixed, words

__all__ = ["code_usage"]

AT = "code_usage"
CODES = {"right": "own code", "shuffled": "another subject's code", "none": "no code"}
METRICS = {"ssim": ("SSIM", 3), "ssim_brain": ("SSIM in the brain", 3), "mse": ("MSE", 5)}


def code_usage(run: RunFolder) -> Section:
    """Information of the semantic code that the denoiser uses."""
    title = "Code usage: information in the semantic code"
    if run.results.get(AT) is None:
        reason = "results.json holds no code usage; run 'ldae study' again."
        return Section("code", title, [run.missing(AT, reason)])
    text = (
        "A powerful decoder can ignore its code. To test this, noise of several levels was added to every compressed test "
        "scan, and the model denoised it three times from the same noise: with the scan's own semantic code, with another "
        "subject's code, and without a code. The gain over no code is the information in the code. The gain over another "
        "subject's code is the part that is specific to the scan."
    )
    blocks: list[Block] = [Text(text), *_verdict(run), _table(run), *_charts(run.task(AT)), _spread(run)]
    return Section("code", title, blocks)


def _percent(value: float) -> str:
    return fixed(100 * value, 0, " %")


def _verdict(run: RunFolder) -> list[Text]:
    """The rule's verdict in words."""
    share, shuffled, verdict = (
        run.results.get(AT, *keys) for keys in (("share", "value"), ("shuffled_share", "value"), ("verdict",))
    )
    if not isinstance(share, int | float) or not isinstance(shuffled, int | float):
        return []
    if verdict == "used":
        effect = f"removes {_percent(shuffled)}" if shuffled >= 0 else f"adds {_percent(-shuffled)}"
        return [
            Text(
                f"The code is used. Averaged over noise levels, the own code removes {_percent(share)} of the denoising error "
                f"without a code; another subject's code {effect}."
            )
        ]
    if verdict == "undecided":
        return [Text("There are too few subjects to tell if the code is used.", "note")]
    if verdict == "unhelpful":
        text = (
            "The code is read, but it does not help. The own code is better than another subject's code, but not reliably "
            "better than no code. The model has probably overfitted its training scans."
        )
    else:
        text = (
            "The code has collapsed. The own code is no better than another subject's code: the interval of their difference "
            "reaches 0. Decoded images do not depend on the code, so edits of the code mean nothing."
        )
    return [Text(text, "warning")]


def _table(run: RunFolder) -> Table:
    results, rows = run.results, []
    for name, share in (("right", "share"), ("shuffled", "shuffled_share"), ("none", None)):
        images = [results.cell(AT, metric, name, digits=digits) for metric, (_, digits) in METRICS.items()]
        cells = results.estimate(AT, share) if share else [Cell("0 by definition", prose=True), Cell("")]
        rows.append(Row(CODES[name].capitalize(), [*cells, *images]))
    gaps = [results.cell(AT, "image_gaps", metric, "value", digits=digits) for metric, (_, digits) in METRICS.items()]
    rows.append(
        Row("Gain of the own code over another subject's code", [*results.estimate(AT, "gap"), *gaps], reference=True)
    )
    scans = run.task(AT).get("images", "scans")
    caption = (
        "Explained variance of the denoising target: 0 is no better than no code, 1 is no error, and below 0 the code "
        "misleads. SSIM and MSE compare images decoded from the same noise with the real scans"
        + (f", one scan of each of {scans} subjects" if isinstance(scans, int) else "")
        + ". In the last row, positive values are in favour of the own code."
    )
    columns = ("Denoised with", "Explained variance", "95 % interval", *(title for title, _ in METRICS.values()))
    return Table(caption, columns, rows)


def _charts(task: Source) -> list[Block]:
    missing = Absence(
        f"There is no chart by noise level: {task.name} is missing or incomplete; run 'ldae study' again."
    )
    snr, rest, use = (task.get(name) for name in ("snr", "unexplained", "use"))
    if not isinstance(snr, list) or not isinstance(rest, Mapping) or not isinstance(use, Mapping):
        return [missing]
    places = list(range(len(snr)))
    labels = [f"signal-to-noise ratio {_ratio(value)}" for value in snr]
    explained, left = [], []
    try:
        for name, share in (("right", "share_by_level"), ("shuffled", "shuffled_share_by_level"), ("none", None)):
            left.append(Series(CODES[name], places, rest[name], "both", labels=labels))
            if share:
                value, low, high = ([level[end] for level in use[share]] for end in ("value", "low", "high"))
                band = None if None in low else (places, low, high)
                explained.append(Series(CODES[name], places, value, "both", band, labels))
        own = explained[0].y
    except (KeyError, TypeError):
        return [missing]
    explained.append(Series(CODES["none"], places, [0.0] * len(snr), "reference"))
    # Levels are drawn evenly spaced, as the schedule has them: the last ratio may be 0.
    x = Axis("signal-to-noise ratio (left: clean, right: noise)", ticks={place: _ratio(snr[place]) for place in places})
    best = max(places, key=lambda level: own[level])
    return [
        Text(
            "Where the latent is nearly clean (left), the code has little to add. Where noise hides the scan (right), only the "
            "code distinguishes subjects."
        ),
        Beside(
            [
                [
                    ChartFigure(
                        Chart(explained, x, Axis("explained variance")),
                        f"Explained variance by noise level. The own code explains most, {_percent(own[best])}, at a "
                        f"signal-to-noise ratio of {snr[best]:.2g}, and {_percent(own[0])} at the cleanest level.",
                        "Explained variance by noise level, with 95 % bands over subjects.",
                    )
                ],
                [
                    ChartFigure(
                        Chart(left, x, Axis("unexplained share of variance")),
                        f"Unexplained share of the latent's variance by noise level with {', '.join(CODES.values())}.",
                        "Unexplained share of the latent's variance by noise level.",
                    )
                ],
            ]
        ),
    ]


def _ratio(value: float) -> str:
    """A signal-to-noise ratio in few characters."""
    if value == 0 or 1e-3 <= value < 1e4:
        return f"{float(f'{value:.1g}' if value < 10 else f'{value:.2g}'):g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def _spread(run: RunFolder) -> Table:
    readings: dict[str, tuple[str, dict[str, Any], str]] = {
        "width": ("Dimensions of the code", {"form": str}, "Size of the vector."),
        "active_dimensions": (
            "Active dimensions",
            {"form": str},
            "Dimensions whose variance over scans exceeds 1 % of the codes' mean square. Near 0, all scans share one code.",
        ),
        "effective_rank": (
            "Effective rank",
            {"digits": 1},
            "Number of independent directions, weighted by their strength. It cannot exceed the number of scans minus one.",
        ),
        "components_95": (
            "Principal components for 95 % of the variance",
            {"form": str},
            "Number of directions that hold nearly all of the variance.",
        ),
        "between_subjects": (
            "Share of the variance between subjects",
            {},
            "1: all sessions of a subject share one code; 0: they are no closer than those of different subjects. Ageing and "
            "disease need room below 1.",
        ),
        "step_variation": (
            "Variation of steps along a line of codes",
            {},
            "Between the codes of two subjects, images are decoded at even steps: the standard deviation of their changes over "
            "the mean. 0: the image changes evenly.",
        ),
    }
    rows = [
        Row(title, [run.results.cell(AT, name, **form), words(reading)])
        for name, (title, form, reading) in readings.items()
    ]
    scans = run.results.get(AT, "scans")
    caption = "Spread of the codes" + (f" over {scans} test scans" if isinstance(scans, int) else "")
    return Table(caption, ("", "Value", "How to read it"), rows)
