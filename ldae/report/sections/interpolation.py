"""The report's section on missing sessions, predicted from a subject's other sessions."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ldae.report.blocks import Absence, Block, Picture, Row, Section, Table, Text
from ldae.report.plots.panels import Image, cuts_of, difference, incomplete
from ldae.report.plots.slice_panels import PanelRow, Tile, draw_panel, symmetric_limit
from ldae.report.run_folder import RunFolder
from ldae.report.wording import METHODS, OWN_METHODS, RIVALS, better_than, capital, fixed, joined

__all__ = ["interpolation"]

METRICS = {
    "ssim": ("SSIM", max),
    "ssim_brain": ("SSIM in the brain", max),
    "change_error": ("Change error", min),
    "change_correlation": ("Change correlation", max),
}
IMAGES = ("first", "target", "predicted", "voxel_linear")
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
        absent = run.missing("interpolate", reason="results.json holds no interpolation; run 'ldae study' again.")
        return Section("interpolation", title, [absent])
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
        "ceiling contains the true scan and does not compete."
    )
    return Table(caption, ("Method", *(title for title, _ in present.values())), rows)


def _differences(run: RunFolder) -> Mapping[str, Any]:
    """Differences of the own method's change error to that of others."""
    found = run.results.get("interpolate", "differences", "change_error", run.own_method)
    return found if isinstance(found, Mapping) else {}


def _comparisons(run: RunFolder) -> list[Block]:
    """The own method against methods that need no trained code, in the change error."""
    at = ("interpolate", "differences", "change_error", run.own_method)
    cell, interval, p_value = run.results.cell, run.results.interval, run.results.p_value
    rows = [
        Row(capital(METHODS[name]), [cell(*at, name, "value"), interval(*at, name), p_value(*at, name, "p_holm")])
        for name in _differences(run)
    ]
    caption = (
        f"Change error of {OWN_METHODS[run.own_method]} minus that of each other method: below 0 the codes are better. "
        "Paired bootstrap over subjects; p adjusted for the comparisons (Holm)."
    )
    return [Table(caption, ("Against", "Difference", "95 % interval", "p (Holm)"), rows)] if rows else []


def _verdict(run: RunFolder, result: Mapping[str, Any]) -> Text:
    errors = {name: value for name, value in (result.get("change_error") or {}).items() if name != "ceiling"}
    method = run.own_method
    own = errors.pop(method, None)
    better = better_than(own, errors, higher_is_better=False, name=METHODS.__getitem__)
    if better:
        names = joined([f"{name} ({fixed(value)})" for name, value in better.items()])
        return Text(f"Smaller change error than {OWN_METHODS[method]} ({fixed(own)}): {names}.", "note")
    level = [
        METHODS[name]
        for name, each in _differences(run).items()
        if each["low"] is None or each["low"] <= 0 <= each["high"]
    ]
    chance = f" The difference may be chance for: {'; '.join(level)}." if level else ""
    return Text(f"No other method has a smaller change error than {OWN_METHODS[method]}.{chance}")


def _cases(run: RunFolder) -> list[Block]:
    """True and predicted change of a typical and the worst case."""
    shown = run.task("interpolate").get("shown")
    images = run.images("interpolate", *IMAGES)
    if isinstance(images, Absence):
        return [images]
    fits = isinstance(shown, list) and shown and all(len(each) == len(shown) for each in images.values())
    if not fits or not all(_is_case(each) for each in shown):
        return [incomplete(run, "interpolate")]
    changes = [
        {name: difference(images[name][at], images["first"][at]) for name in IMAGES[1:]} for at in range(len(shown))
    ]
    limit = symmetric_limit([each for of in changes for each in of.values()])
    return [
        Text(
            "The right three columns show the change since the first session, in the same colours. Blue along the ventricles "
            "and sulci is fluid that replaced tissue. The true change also contains what no method can predict: noise, the "
            "contrast of that day's scan (a tint of the whole brain), and a different head position (blue on one side of an "
            "edge, red on the other). Sections follow the radiological convention."
        ),
        *(
            _case_picture(run, {name: images[name][at] for name in IMAGES}, changes[at], facts, limit)
            for at, facts in enumerate(shown)
        ),
    ]


def _is_case(facts: Any) -> bool:
    return (
        isinstance(facts, Mapping)
        and all(isinstance(facts.get(name), list) and len(facts[name]) == 3 for name in ("keys", "months"))
        and isinstance(facts.get("change_error"), Mapping)
    )


def _case_picture(
    run: RunFolder,
    images: Mapping[str, Image],
    changes: Mapping[str, Image],
    facts: Mapping[str, Any],
    limit: float,
) -> Picture:
    first, target, second = (f"{month:g}" for month in facts["months"])
    tiles = [
        Tile(images["first"], "original"),
        Tile(images["target"], "original"),
        Tile(images["predicted"], "synthetic"),
    ]
    tiles += [Tile(changes[name], "difference", outline=images["first"]) for name in IMAGES[1:]]
    headers = (
        f"first session\nmonth {first}",
        f"true scan\nmonth {target}",
        f"predicted\nmonth {target}",
        f"true change\nto month {target}",
        "predicted\nchange",
        "change of inter-\npolated voxels",
    )
    draw = partial(
        draw_panel,
        [PanelRow(cut, tiles) for cut in cuts_of(run, images["target"])],
        headers,
        limit=limit,
        limit_label="change since the first session (full grey scale = 1); blue: darker, red: brighter; grey line: first session",
    )
    errors = facts["change_error"]
    values = [f"{fixed(errors.get(run.own_method))} for the prediction"]
    values += [f"{fixed(errors[name])} for the {word}" for name, word in RIVALS.items() if name in errors]
    keys = ", ".join(str(key) for key in facts["keys"])
    which = CASES.get(str(facts.get("case")), "A case")
    alt = (
        f"{which}: sections of the first session (month {first}), of the true scan and of the prediction (month {target}), "
        f"and the change since the first session in truth, in the prediction and in interpolated voxels. Scans: {keys}."
    )
    caption = f"{which}: {keys} (the last at month {second}). Change error {joined(values)}."
    return Picture(draw, alt, caption)
