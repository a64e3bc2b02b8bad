"""The report's page on edits: scans moved along the diagnosis."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ldae.report.blocks import Absence, Block, Cell, Interactive, Picture, Row, Section, Table, Text, Viewer
from ldae.report.plots.charts import dose_response_chart
from ldae.report.plots.figures import draw_dose_response
from ldae.report.plots.panels import Image, cuts_of, difference, incomplete
from ldae.report.plots.slice_panels import PanelRow, Tile, draw_panel, symmetric_limit
from ldae.report.plots.volumes import viewer
from ldae.report.run_folder import RunFolder
from ldae.report.wording import (
    STRUCTURES,
    cell,
    class_names,
    fixed,
    interval_cell,
    joined,
    long_class,
    signed,
)

__all__ = ["manipulation"]


def manipulation(run: RunFolder) -> Section:
    """Edited scans with what the probe and the volumes say of them."""
    title = "Manipulation: a scan moved along the diagnosis"
    if run.result("manipulate") is None:
        reason = run.skipped("manipulate") or Absence("results.json holds no manipulation; run 'ldae study' again.")
        return Section("manipulation", title, [reason])
    positive, negative = class_names(run)
    text = (
        f"The semantic code of a scan is moved along the probe's direction from {long_class(negative)} toward "
        f"{long_class(positive)} and decoded with the scan's own noise code, so that the head stays the same "
        "person's. A step is one standard deviation of the training cohort. Step 0 is the plain reconstruction. The "
        "probability is the probe's on the edited image, encoded anew; volumes are measured in the edited image. "
        "That the probability follows is partly by construction, since the same probe gave the direction; the "
        "volumes are the independent check."
    )
    return Section(
        "manipulation", title, [Text(text), *_dose(run), *_expectation(run), *_findings(run), *_edit_panels(run)]
    )


def _dose(run: RunFolder) -> list[Block]:
    result = run.result("manipulate")
    positive, _ = class_names(run)
    steps, probability, change = (result.get(name) for name in ("steps", "probability", "ventricle_change_ml"))
    if not steps or not probability or not change:
        return [Absence("The dose-response figures are missing from results.json; run 'ldae study' again.")]
    volumes = result.get("volume_change_ml") or {}
    columns = ("Step", f"Mean probability of {positive}", *(f"{_structure(name)} (ml)" for name in volumes))
    rows = [
        Row(
            _step(step),
            [
                cell(run, "manipulate", "probability", i, form=lambda value: fixed(value, 2)),
                *(
                    cell(run, "manipulate", "volume_change_ml", name, i, form=lambda v: signed(v, 2))
                    for name in volumes
                ),
            ],
        )
        for i, step in enumerate(steps)
    ]
    verdict = "rises with every step" if result.get("monotone") else "does not rise with every step"
    picture = Picture(
        draw_dose_response(steps, probability, change, positive=positive),
        "image/svg+xml",
        f"Mean probability of {positive} from {fixed(probability[0], 2)} to {fixed(probability[-1], 2)} and "
        f"mean change of the ventricles from {signed(change[0])} to {signed(change[-1])} ml, by step.",
        f"Dose and response, means over one scan of each of {result.get('scans')} test subjects. The mean "
        f"probability {verdict}.",
    )
    return [
        Interactive(picture, dose_response_chart(steps, probability, change, positive=positive)),
        Table("Mean probability, and mean change of measured volumes against step 0", columns, rows),
    ]


EXPECTED = {"ventricles_ml": 1, "hippocampus_left_ml": -1, "hippocampus_right_ml": -1, "brain_ml": -1}
"""Which way volumes go in Alzheimer's disease."""


def _expectation(run: RunFolder) -> list[Block]:
    """Whether volumes move as they do in the disease; nothing for a diagnosis of which that is not known here."""
    positive, _ = class_names(run)
    volumes = run.result("manipulate", "volume_change_ml")
    if positive != "AD" or not isinstance(volumes, Mapping):
        return []
    known = "In Alzheimer's disease ventricles grow, and hippocampi and brain tissue shrink."
    against: list[str] = []
    along: list[str] = []
    for name, sign in EXPECTED.items():
        values = volumes.get(name)
        if not isinstance(values, list) or not values or values[0] is None or values[-1] is None:
            continue
        if signed(values[0], 2) == signed(values[-1], 2):  # as far as the table tells, it does not move
            continue
        words = f"{STRUCTURES[name]} ({signed(values[0], 2)} to {signed(values[-1], 2, ' ml')})"
        (along if sign * (values[-1] - values[0]) > 0 else against).append(words)
    if against:
        rest = f" As expected: {joined(along)}." if along else ""
        return [
            Text(
                f"{known} From the first step to the last, against what is known of the disease: {joined(against)}. There the "
                f"edit is flawed, or the measurement is fooled by it; do not read the pictures as this disease.{rest}",
                "warning",
            )
        ]
    return [Text(f"{known} So do the edited scans: {joined(along)}, from the first step to the last.")] if along else []


EFFECTS = {
    "real_scans": "the voxelwise difference of AD and CN in these real scans, age and sex taken out",
    "given_map": "the map of what the disease is known to change",
}
FINDINGS = {"plain": "along the probe", "projected": "with the predicted age left alone"}


def _findings(run: RunFolder) -> list[Block]:
    """What else the edits change, and whose the edited scans still are; once more with age projected out."""
    found = run.result("manipulate", "findings")
    if not isinstance(found, Mapping) or "plain" not in found:
        return []
    positive, _ = class_names(run)
    kinds = [name for name in FINDINGS if name in found]
    at = {kind: ("manipulate", "findings", kind) for kind in kinds}
    others = [name for name in found["plain"]["probe_slopes"] if name != "direction"]

    def slope(kind: str, name: str) -> list[Cell]:
        where = (*at[kind], "probe_slopes", name)
        return [cell(run, *where, "value", form=lambda value: signed(value, 2)), interval_cell(run, *where, digits=2)]

    def alone(kind: str, *keys: str | int, digits: int = 2) -> list[Cell]:
        return [cell(run, *at[kind], *keys, form=partial(fixed, digits=digits)), Cell("")]

    last = len(found["plain"]["steps"]) - 1
    rows = [
        Row(f"Change of the logit of {positive} a step", [each for kind in kinds for each in slope(kind, "direction")]),
        *(
            Row(f"Change of the predicted {name} a step", [each for kind in kinds for each in slope(kind, name)])
            for name in others
        ),
        Row(
            "Edited scans nearest to their own scan among all, at the last step (share)",
            [each for kind in kinds for each in alone(kind, "own_nearest_image", last)],
        ),
        Row(
            "Their codes nearest to their own code (share)",
            [each for kind in kinds for each in alone(kind, "own_nearest_code", last)],
        ),
        Row(
            f"Subjects called {positive} only after the edit (share of those who were not)",
            [each for kind in kinds for each in alone(kind, "flipped")],
        ),
        Row("Median step at which they are", [each for kind in kinds for each in alone(kind, "flip_step", digits=1)]),
        Row(
            "Change outside the brain, relative to inside",
            [each for kind in kinds for each in alone(kind, "outside_brain", digits=3)],
        ),
    ]
    columns = ["", *(each for kind in kinds for each in (_capital(FINDINGS[kind]), "95 % interval"))]
    caption = "What else an edit changes: means over subjects, of edited images encoded anew"
    blocks: list[Block] = [Table(caption, columns, rows)]
    for kind in kinds:
        where = run.result("manipulate", "where", kind)
        if not isinstance(where, Mapping) or not isinstance(where.get("effect_correlation"), Mapping):
            continue
        against = [
            f"by {fixed(value, 2)} with {EFFECTS.get(name, name)}"
            for name, value in where["effect_correlation"].items()
        ]
        words = (
            f"Edited {FINDINGS[kind]}, {fixed(100 * where['changed_share'], 0)} % of the brain's voxels change beyond chance "
            "(false discovery rate 5 %)"
        )
        blocks.append(Text(words + (f"; the mean change correlates {joined(against)}." if against else ".")))
    return blocks


def _edit_panels(run: RunFolder) -> list[Block]:
    images = run.images("manipulate", "images", "original")
    if isinstance(images, Absence):
        return [images]
    steps, shown = run.get("tasks/manipulate.json", "steps"), run.get("tasks/manipulate.json", "shown")
    fits = (
        isinstance(steps, list) and isinstance(shown, list) and images["images"].shape[:2] == (len(shown), len(steps))
    )
    if not fits or 0 not in steps:
        return [incomplete("manipulate")]
    zero = steps.index(0)
    changes = [[difference(image, edits[zero]) for image in edits] for edits in images["images"]]
    limit = symmetric_limit([each for row in changes for each in row])
    return [
        _edit_viewer(run, images, steps, shown),
        *(
            _edit_panel(run, images["original"][at], images["images"][at], changes[at], facts, limit)
            for at, facts in enumerate(shown)
        ),
    ]


def _edit_viewer(
    run: RunFolder, images: Mapping[str, Any], steps: Sequence[float], shown: Sequence[Mapping[str, Any]]
) -> Viewer:
    """The edited scans, with a slider for the step."""
    positive, negative = class_names(run)
    zero = steps.index(0)
    captions = [
        [
            f"step {_step(step)}: P({positive}) {p:.2f}, ventricles {fixed(v, 1)} ml"
            for step, p, v in zip(steps, facts["predicted"], facts["volumes"]["ventricles_ml"], strict=True)
        ]
        for facts in shown
    ]
    return viewer(
        f"The edits in three planes: move the slider from {long_class(negative)} toward {long_class(positive)}.",
        [_who(facts) for facts in shown],
        images["original"],
        images["images"],
        [edits[zero] for edits in images["images"]],
        choices=[f"step {_step(step)}" for step in steps],
        captions=captions,
        start=zero,
        slider=True,
        change="change since step 0",
        grid=run.preprocessing,
    )


def _who(facts: Mapping[str, Any]) -> str:
    """A scan, its diagnosis and age."""
    who = str(facts["key"]) + (f", {facts['diagnosis']}" if facts.get("diagnosis") else "")
    return who + (f", {facts['age']:.0f} years" if facts.get("age") is not None else "")


def _edit_panel(
    run: RunFolder, original: Image, edits: Image, changes: Sequence[Image], facts: Mapping[str, Any], limit: float
) -> Picture:
    """One subject: its scan, the edits, and their differences to step 0."""
    positive, _ = class_names(run)
    steps = run.get("tasks/manipulate.json", "steps")
    headers = ["original\n", *(f"step {_step(step)}\n" + ("reconstruction" if step == 0 else "") for step in steps)]
    ventricles = facts["volumes"]["ventricles_ml"]
    captions = [
        "",
        *(
            f"P({positive}) {p:.2f}\nventricles {fixed(v, 1)} ml"
            for p, v in zip(facts["predicted"], ventricles, strict=True)
        ),
    ]
    tiles = [Tile(original, "original"), *(Tile(image, "synthetic") for image in edits)]
    differences = [None, *(Tile(each, "difference", outline=edits[steps.index(0)]) for each in changes)]
    axial, coronal = cuts_of(run, original, "axial", "coronal")
    data = draw_panel(
        [
            PanelRow(axial, tiles),
            PanelRow(coronal, tiles, captions),
            PanelRow(replace(axial, label="change, axial"), differences),
            PanelRow(replace(coronal, label="change, coronal"), differences),
        ],
        headers,
        limit=limit,
        limit_label="change since step 0 (full grey scale = 1); blue: darker, red: brighter; grey line: step 0",
    )
    who = _who(facts)
    return Picture(
        data,
        "image/png",
        f"{who}: original and edits from step {_step(steps[0])} to step {_step(steps[-1])}, axial and coronal, with "
        f"their differences to step 0. Probability of {positive} {facts['predicted'][0]:.2f} to "
        f"{facts['predicted'][-1]:.2f}, ventricles {fixed(ventricles[0], 1)} to {fixed(ventricles[-1], 1)} ml.",
        f"{who}. Steps to the right go toward {positive}. Lower rows: what each edit changed.",
    )


def _step(value: float) -> str:
    return "0" if value == 0 else signed(value, 0 if float(value).is_integer() else 1)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _structure(name: str) -> str:
    return STRUCTURES.get(name, name.removesuffix("_ml").replace("_", " ")).capitalize()
