"""The report's section on missing sessions, predicted from a subject's other sessions."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ldae.report.blocks import Absence, Block, Picture, Row, Section, Table, Text
from ldae.report.plots.slice_panels import Array, PanelRow, Tile, TileKind, difference, draw_panel, symmetric_limit
from ldae.report.run_folder import RunFolder
from ldae.report.wording import METHODS, OWN_METHODS, RIVALS, capital, fixed, joined, verdict

__all__ = ["interpolation"]

METRICS = {
    "ssim": ("SSIM", max),
    "ssim_brain": ("SSIM in the brain", max),
    "change_error": ("Change error", min),
    "change_correlation": ("Change correlation", max),
}
IMAGES = ("first", "target", "predicted", "voxel_linear")
CODES_ALONE = "codes_alone"
CASES = {
    "only": "The only case",
    "typical": "A typical case, with the median change error",
    "worst": "The worst case, with the largest change error",
}


def interpolation(run: RunFolder) -> Section:
    """A missing session predicted from the others, beside the real scan."""
    title = "Interpolation: a missing scan between two sessions"
    result = run.results.get("interpolate")
    if not isinstance(result, Mapping):
        reason = "results.json holds no interpolation; run 'ldae study' again."
        return Section("interpolation", title, [run.missing("interpolate", reason)])
    text = (
        "Each session between two others was left out, predicted from the subject's other sessions, and compared with the "
        f"real scan: {result.get('n')} cases of {result.get('subjects')} subjects. The sessions before and after are "
        f"{fixed(result.get('gap_months'), 1)} months apart on average. Codes are interpolated in time, or the code carries "
        f"every other session to the month. Pictures show {OWN_METHODS[run.own_method]}. The residual correction adds the "
        "detail that compression lost from the given scans."
    )
    warning = (
        "SSIM alone cannot rank these methods: a copy of the nearer session scores high, because a brain changes little in "
        "months. The change error measures whether the change itself is predicted."
    )
    blocks = [
        Text(text),
        Text(warning, "note"),
        _method_table(run, result),
        _verdict(run, result),
        *_comparisons(run),
        *_cases(run),
    ]
    return Section("interpolation", title, blocks)


def _method_table(run: RunFolder, result: Mapping[str, Any]) -> Table:
    """Every method by every metric; the ceiling contains the true scan and is out of competition."""
    present = {name: spec for name, spec in METRICS.items() if isinstance(result.get(name), Mapping)}
    best = {
        metric: choose((value for name, value in result[metric].items() if name != "ceiling"), default=None)
        for metric, (_, choose) in present.items()
    }
    rows = []
    for name in METHODS:
        if not any(name in result[metric] for metric in present):
            continue
        marked = {m: name != "ceiling" and fixed(result[m].get(name)) == fixed(best[m]) for m in present}
        cells = [run.results.cell("interpolate", metric, name, best=marked[metric]) for metric in present]
        rows.append(Row(capital(METHODS[name]), cells, reference=name == "ceiling"))
    caption = (
        "Every method against the real scan. Change error: 0 is the true change since the first session, 1 is a copy of the "
        "first session. Change correlation: 1 is the true pattern of change. The best value of each column is bold; the "
        "ceiling is the true scan after compression and does not compete. Methods that keep voxels of real scans (copies, "
        "interpolated voxels, corrected codes) can pass it, because they lose nothing in compression."
    )
    return Table(caption, ("Method", *(title for title, _ in present.values())), rows)


def _differences(run: RunFolder) -> Mapping[str, Any]:
    """Differences of the own method's change error to that of others."""
    found = run.results.get("interpolate", "differences", "change_error", run.own_method)
    return found if isinstance(found, Mapping) else {}


def _comparisons(run: RunFolder) -> list[Block]:
    """The own method against methods that need no trained code, in the change error."""
    at = ("interpolate", "differences", "change_error", run.own_method)
    rows = [
        Row(capital(METHODS[name]), [*run.results.estimate(*at, name), run.results.p_value(*at, name, "p_holm")])
        for name in _differences(run)
    ]
    caption = (
        f"Change error of {OWN_METHODS[run.own_method]} minus that of each other method: below 0 the codes are better. "
        "Paired bootstrap over subjects; p adjusted for the comparisons (Holm)."
    )
    return [Table(caption, ("Against", "Difference", "95 % interval", "p (Holm)"), rows)] if rows else []


def _verdict(run: RunFolder, result: Mapping[str, Any]) -> Text:
    method, errors = run.own_method, result.get("change_error") or {}
    others = {name: fixed(value) for name, value in errors.items() if name in _differences(run) or name in RIVALS}
    if method not in errors or not others:
        return Text("No other method was compared in the change error.", "note")
    text, best = verdict(
        f"the change error of {OWN_METHODS[method]} ({fixed(errors[method])})",
        others,
        _differences(run),
        higher_is_better=False,
        name=METHODS.__getitem__,
    )
    return Text(text, "plain" if best else "note")


def _cases(run: RunFolder) -> list[Block]:
    """True and predicted change of a typical and the worst case."""
    shown = run.task("interpolate").get("shown")
    images = run.images("interpolate", *IMAGES, CODES_ALONE)
    if isinstance(images, Absence):  # runs of earlier versions have no images of the codes alone
        images = run.images("interpolate", *IMAGES)
    if isinstance(images, Absence):
        return [images]
    fits = isinstance(shown, list) and shown and all(len(each) == len(shown) for each in images.values())
    if not fits or not all(_is_case(each) for each in shown):
        return [run.incomplete("interpolate")]
    cases = [{name: each[at] for name, each in images.items()} for at in range(len(shown))]
    limit = symmetric_limit(
        [difference(image, case["first"]) for case in cases for name, image in case.items() if name != "first"]
    )
    return [
        Text(
            "Below each scan stands its change since the first session, in the same colours. Blue along the ventricles and "
            "sulci is fluid that replaced tissue. The correction is what the real sessions add to the codes alone. The true "
            "change also contains what no method can predict: noise, the contrast of that day's scan (a tint of the whole "
            "brain), and a different head position (blue on one side of an edge, red on the other). Sections follow the "
            "radiological convention."
        ),
        *(_case_picture(run, case, facts, limit) for case, facts in zip(cases, shown, strict=True)),
    ]


def _is_case(facts: Any) -> bool:
    return (
        isinstance(facts, Mapping)
        and all(isinstance(facts.get(name), list) and len(facts[name]) == 3 for name in ("keys", "months"))
        and isinstance(facts.get("change_error"), Mapping)
    )


def _case_picture(run: RunFolder, images: Mapping[str, Array], facts: Mapping[str, Any], limit: float) -> Picture:
    first, target, second = (f"{month:g}" for month in facts["months"])
    start, alone = images["first"], images.get(CODES_ALONE)
    # Header, image and its kind, and what stands below it.
    columns: list[tuple[str, Tile, Tile | None]] = [(f"first session\nmonth {first}", Tile(start, "original"), None)]

    def add(header: str, name: str, kind: TileKind = "synthetic") -> None:
        change = Tile(difference(images[name], start), "difference", outline=start)
        columns.append((header, Tile(images[name], kind), change))

    add(f"true scan\nmonth {target}", "target", "original")
    if alone is not None:
        add("codes alone\n", CODES_ALONE)
        correction = difference(images["predicted"], alone)
        columns.append(("correction\n", Tile(correction, "difference", outline=start), None))
    add("predicted\n" if alone is None else "codes with\ncorrection", "predicted")
    add("interpolated\nvoxels", "voxel_linear")
    rows = []
    for cut in run.cuts(start, "axial", "coronal"):
        rows.append(PanelRow(cut, [image for _, image, _ in columns]))
        rows.append(PanelRow(cut.of_change, [change for *_, change in columns]))
    draw = partial(
        draw_panel,
        rows,
        [header for header, *_ in columns],
        limit=limit,
        limit_label="change since the first session, and correction (full grey scale = 1); blue: darker, red: brighter",
    )
    errors = facts["change_error"]
    values = [f"{fixed(errors.get(run.own_method))} for the prediction"]
    values += [f"{fixed(errors[name])} for the {word}" for name, word in RIVALS.items() if name in errors]
    keys = ", ".join(str(key) for key in facts["keys"])
    which = CASES.get(str(facts.get("case")), "A case")
    alt = (
        f"{which}: sections of the first session (month {first}), and of the true scan (month {target}), the codes alone, "
        f"their correction, the prediction and interpolated voxels with their change since then. Scans: {keys}."
    )
    caption = f"{which}: {keys} (the last at month {second}). Change error {joined(values)}."
    return Picture(draw, alt, caption)
