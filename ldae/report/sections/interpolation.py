"""The report's page on missing sessions: scans between two others."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ldae.report.blocks import Absence, Block, Picture, Row, Section, Table, Text
from ldae.report.plots.panels import Image, cuts_of, difference, incomplete
from ldae.report.plots.slice_panels import PanelRow, Tile, draw_panel, symmetric_limit
from ldae.report.run_folder import RunFolder
from ldae.report.wording import (
    METHODS,
    OWN_METHODS,
    cell,
    fixed,
    interval_cell,
    joined,
    own_method,
    rivals,
)

__all__ = ["interpolation"]


def interpolation(run: RunFolder) -> Section:
    """A missing session predicted from the others, beside the real scan."""
    title = "Interpolation: a missing scan between two sessions"
    result = run.result("interpolate")
    if not isinstance(result, Mapping):
        reason = run.skipped("interpolate") or Absence("results.json holds no interpolation; run 'ldae study' again.")
        return Section("interpolation", title, [reason])
    text = (
        "A session was left out, predicted from the others of the same person, and compared with the real scan: every three "
        f"sessions of a subject in turn, {result.get('n')} cases of {result.get('subjects')} subjects, "
        f"{fixed(result.get('gap_months'), 1)} months between the session before and the one after on average. Codes are blended "
        f"in time, or the code carries every other session to the month; {OWN_METHODS[own_method(run)]} are shown below. The "
        "residual correction adds what compression had lost of the given scans, blended alike."
    )
    warning = Text(
        "SSIM alone cannot rank these methods: copying the nearer session scores high, because one brain changes "
        "little in months. The change error tells whether the change itself is predicted.",
        "note",
    )
    return Section(
        "interpolation",
        title,
        [
            Text(text),
            warning,
            _method_table(run, result),
            _change_verdict(run, result),
            *_against(run, result),
            *_cases(run),
        ],
    )


def _method_table(run: RunFolder, result: Mapping[str, Any]) -> Table:
    """Every method by every metric; the ceiling has seen the answer and is out of competition."""
    metrics = {
        "ssim": ("SSIM", 3, max),
        "ssim_brain": ("SSIM in the brain", 3, max),
        "change_error": ("Change error", 3, min),
        "change_correlation": ("Change correlation", 3, max),
    }
    present = {name: spec for name, spec in metrics.items() if isinstance(result.get(name), Mapping)}
    methods = [name for name in METHODS if any(name in result[metric] for metric in present)]
    best = {
        metric: choose((value for name, value in result[metric].items() if name != "ceiling"), default=None)
        for metric, (_, _, choose) in present.items()
    }
    rows = [
        Row(
            _capital(_called(result, name)),
            [
                cell(
                    run,
                    "interpolate",
                    metric,
                    name,
                    form=partial(fixed, digits=digits),
                    best=name != "ceiling" and fixed(result[metric].get(name), digits) == fixed(best[metric], digits),
                )
                for metric, (_, digits, _) in present.items()
            ],
            reference=name == "ceiling",
        )
        for name in methods
    ]
    caption = (
        "Every method against the real scan. Change error: 0 is the true change since the first session, 1 is what "
        "copying the first session scores. Change correlation: agreement of the pattern of change, 1 is perfect. "
        "Best value of each column in bold; the ceiling has seen the true scan and does not compete."
    )
    return Table(caption, ("Method", *(title for title, _, _ in present.values())), rows)


def _called(result: Mapping[str, Any], name: str) -> str:
    """A method in words; runs of before the own one was recorded had another line through all sessions."""
    if name == "trajectory_residual" and "own" not in result:
        return f"{METHODS['trajectory']}, residual-corrected"
    return METHODS[name]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _against(run: RunFolder, result: Mapping[str, Any]) -> list[Block]:
    """The own method against what needs no trained code, in the change error."""
    own = own_method(run)
    differences = ((result.get("differences") or {}).get("change_error") or {}).get(own)
    if not isinstance(differences, Mapping) or not differences:
        return []
    at = ("interpolate", "differences", "change_error", own)
    rows = [
        Row(
            _capital(_called(result, name)),
            [
                cell(run, *at, name, "value"),
                interval_cell(run, *at, name),
                cell(run, *at, name, "p_holm"),
            ],
        )
        for name in differences
    ]
    caption = (
        f"Change error of {OWN_METHODS[own]} minus that of each of the others: below 0 the codes are better. Paired "
        "bootstrap over subjects; p adjusted for the comparisons (Holm)."
    )
    return [Table(caption, ("Against", "Difference", "95 % interval", "p (Holm)"), rows)]


def _change_verdict(run: RunFolder, result: Mapping[str, Any]) -> Text:
    errors = {name: value for name, value in (result.get("change_error") or {}).items() if name != "ceiling"}
    method = own_method(run)
    own = errors.pop(method, None)
    better = rivals(own, errors, higher_is_better=False, name=partial(_called, result))
    if not better:
        against = ((result.get("differences") or {}).get("change_error") or {}).get(method) or {}
        level = [_called(result, name) for name, each in against.items() if each["low"] <= 0 <= each["high"]]
        chance = (
            f" What may be chance, as 0 is inside the interval, is the difference to: {'; '.join(level)}."
            if level
            else ""
        )
        return Text(f"No other method predicts the change with a smaller error than {OWN_METHODS[method]}.{chance}")
    names = joined([f"{name} ({fixed(value)})" for name, value in better.items()])
    return Text(f"Smaller change error than {OWN_METHODS[method]} ({fixed(own)}): {names}.", "note")


IMAGES = ("first", "target", "predicted", "voxel_linear")
CASES = {
    "only": "The only case",
    "typical": "A typical case, the median of all by its change error",
    "worst": "The worst case, the largest change error of all",
}
COMPARED = {
    "voxel_linear": "voxel blend",
    "voxel_trajectory": "line through the voxels of all sessions",
    "copy_nearest": "nearest copy",
}


def _cases(run: RunFolder) -> list[Block]:
    """What a radiologist would compare: the change that happened, and the change that was predicted."""
    shown = run.get("tasks/interpolate.json", "shown")
    if isinstance(shown, Mapping):  # as runs of earlier versions left it
        return [
            Absence(
                "There are no pictures: this run was made by an earlier version, which kept another case and predicted from two "
                "sessions only; run 'ldae study' again."
            )
        ]
    images = run.images("interpolate", *IMAGES)
    if isinstance(images, Absence):
        return [images]
    fits = isinstance(shown, list) and shown and all(len(each) == len(shown) for each in images.values())
    if not fits or not all(_is_case(each) for each in shown):
        return [incomplete("interpolate")]
    changes = [
        {name: difference(images[name][at], images["first"][at]) for name in IMAGES[1:]} for at in range(len(shown))
    ]
    limit = symmetric_limit([each for of in changes for each in of.values()])
    return [
        Text(
            "How to read the pictures: the right three columns show what changed since the first session, in the same colours. "
            "What became darker (blue) along the ventricles and sulci is fluid where tissue was. The true change also holds what "
            "no method can foresee: noise, the scanner's contrast of that day (a tint of the whole brain), and a slightly "
            "different position of the head (blue on one side of an edge, red on the other). A good prediction has the "
            "ventricles' part of it and none of the rest."
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
        *(
            Tile(changes[name], "difference", outline=images["first"])
            for name in ("target", "predicted", "voxel_linear")
        ),
    ]
    headers = (
        f"first session\nmonth {first}",
        f"true scan\nmonth {target}",
        f"predicted\nmonth {target}",
        f"true change\nto month {target}",
        "predicted\nchange",
        "change by the\nvoxel blend",
    )
    data = draw_panel(
        [PanelRow(cut, tiles) for cut in cuts_of(run, images["target"])],
        headers,
        limit=limit,
        limit_label="change since the first session (full grey scale = 1); blue: darker, red: brighter; grey line: first session",
    )
    errors = facts["change_error"]
    figures = [f"{fixed(errors.get(own_method(run)))} for the prediction"]
    figures += [f"{fixed(errors[name])} for the {word}" for name, word in COMPARED.items() if name in errors]
    keys = ", ".join(str(key) for key in facts["keys"])
    which = CASES.get(str(facts.get("case")), "A case")
    return Picture(
        data,
        "image/png",
        f"{which}: sections of the first session (month {first}), of the true scan and of the prediction (month {target}), and "
        f"what changed since the first session in truth, in the prediction and in the blend of the voxels. Scans: {keys}.",
        f"{which}: {keys} (the last at month {second}). Change error {joined(figures)}.",
    )
