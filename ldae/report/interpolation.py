"""The report's page on missing sessions: scans between two others."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ldae.evaluation.slice_panels import PanelRow, Tile, draw_panel, symmetric_limit
from ldae.report.blocks import Absence, Block, Picture, Row, Section, Table, Text
from ldae.report.panels import cuts_of, difference, incomplete
from ldae.report.run_folder import RunFolder
from ldae.report.wording import (
    METHODS,
    cell,
    fixed,
    interval_cell,
    joined,
    rivals,
)

__all__ = ["interpolation"]


def interpolation(run: RunFolder) -> Section:
    """A missing session predicted from two others, beside the real scan."""
    title = "Interpolation: a missing scan between two sessions"
    result = run.result("interpolate")
    if not isinstance(result, Mapping):
        reason = run.skipped("interpolate") or Absence("results.json holds no interpolation; run 'ldae study' again.")
        return Section("interpolation", title, [reason])
    text = (
        "A session was left out, predicted from one before and one after it, and compared with the real scan: every three "
        f"sessions of a subject in turn, {result.get('n')} cases of {result.get('subjects')} subjects, "
        f"{fixed(result.get('gap_months'), 1)} months between the given sessions on average. Codes are blended in time; the "
        "residual correction adds what compression had lost of the two given scans, blended alike."
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
            _change_verdict(result),
            *_against(run, result),
            *_between(run),
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
            METHODS[name][:1].upper() + METHODS[name][1:],
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


def _against(run: RunFolder, result: Mapping[str, Any]) -> list[Block]:
    """The residual-corrected codes against what needs no model, in the change error."""
    own = "ldae_residual"
    differences = ((result.get("differences") or {}).get("change_error") or {}).get(own)
    if not isinstance(differences, Mapping) or not differences:
        return []
    at = ("interpolate", "differences", "change_error", own)
    rows = [
        Row(
            METHODS[name][:1].upper() + METHODS[name][1:],
            [
                cell(run, *at, name, "value"),
                interval_cell(run, *at, name),
                cell(run, *at, name, "p_holm"),
            ],
        )
        for name in differences
    ]
    caption = (
        "Change error of the residual-corrected codes minus that of each of the others: below 0 the codes are better. Paired "
        "bootstrap over subjects; p adjusted for the comparisons (Holm)."
    )
    return [Table(caption, ("Against", "Difference", "95 % interval", "p (Holm)"), rows)]


def _change_verdict(result: Mapping[str, Any]) -> Text:
    errors = {name: value for name, value in (result.get("change_error") or {}).items() if name != "ceiling"}
    own = errors.pop("ldae_residual", None)
    better = rivals(own, errors, higher_is_better=False, name=lambda key: METHODS.get(key, key))
    if not better:
        return Text("No other method predicts the change with a smaller error than the residual-corrected codes.")
    names = joined([f"{name} ({fixed(value)})" for name, value in better.items()])
    return Text(f"Smaller change error than the residual-corrected codes ({fixed(own)}): {names}.", "note")


def _between(run: RunFolder) -> list[Block]:
    names = ("first", "ldae_residual", "target", "second", "voxel_linear", "copy_nearest")
    images = run.images("interpolate", *names)
    if isinstance(images, Absence):
        return [images]
    shown = run.get("tasks/interpolate.json", "shown")
    if not isinstance(shown, Mapping) or len(shown.get("months", [])) != 3 or len(shown.get("keys", [])) != 3:
        return [incomplete("interpolate")]
    first, target, second = (f"{month:g}" for month in shown["months"])
    differences = [
        difference(images[name], images["target"]) for name in ("ldae_residual", "voxel_linear", "copy_nearest")
    ]
    tiles = [
        Tile(images["first"], "original"),
        Tile(images["ldae_residual"], "synthetic"),
        Tile(images["target"], "original"),
        Tile(images["second"], "original"),
        *(Tile(each, "difference", outline=images["target"]) for each in differences),
    ]
    headers = (
        f"first session\nmonth {first}",
        f"predicted\nmonth {target}",
        f"true scan\nmonth {target}",
        f"second session\nmonth {second}",
        "predicted\nminus true scan",
        "voxel blend\nminus true scan",
        "nearest copy\nminus true scan",
    )
    data = draw_panel(
        [PanelRow(cut, tiles) for cut in cuts_of(run, images["target"])],
        headers,
        limit=symmetric_limit(differences),
        limit_label="blue: darker than the true scan, red: brighter (full grey scale = 1); grey line: true scan",
    )
    keys = ", ".join(str(key) for key in shown["keys"])
    return [
        Picture(
            data,
            "image/png",
            f"Sections of the first session (month {first}), the prediction and the true scan (month {target}), the "
            f"second session (month {second}), and the differences of three predictions to the true scan. Scans: "
            f"{keys}.",
            f"{keys}: the widest gap. The prediction is the residual-corrected one. Differences also hold the noise "
            "and scanner contrast of the true scan, which no method can foresee.",
        )
    ]
