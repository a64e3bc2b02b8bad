"""The report's section on edits: scans moved along the diagnosis direction."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any

from ldae.report.blocks import Absence, Beside, Block, Cell, ChartFigure, Picture, Row, Section, Table, Text, Viewer
from ldae.report.plots.chart import Axis, Chart, Series
from ldae.report.plots.slice_panels import Array, PanelRow, Tile, difference, draw_panel, symmetric_limit
from ldae.report.plots.volumes import viewer
from ldae.report.run_folder import RunFolder
from ldae.report.wording import STRUCTURES, capital, fixed, joined, long_class

__all__ = ["manipulation", "volume_trends"]

EXPECTED = {"ventricles_ml": 1, "hippocampus_left_ml": -1, "hippocampus_right_ml": -1, "brain_ml": -1}
"""Sign of the change of volumes in Alzheimer's disease."""
EFFECTS = {
    "real_scans": "the voxelwise difference of AD and CN in these real scans, adjusted for age and sex",
    "given_map": "the given map of disease effects",
}
FINDINGS = {"plain": "along the probe", "projected": "with predicted age held fixed"}


def manipulation(run: RunFolder) -> Section:
    """Edited scans with the probe's predictions and measured volumes."""
    title = "Manipulation: scans edited along the diagnosis direction"
    if run.results.get("manipulate") is None:
        reason = "results.json holds no manipulation; run 'ldae study' again."
        return Section("manipulation", title, [run.missing("manipulate", reason)])
    positive, negative = run.classes
    text = (
        f"The semantic code of a scan is moved along the probe's direction from {long_class(negative)} toward "
        f"{long_class(positive)}. It is decoded with the scan's own noise code, which preserves the subject's anatomy. A step "
        "is one standard deviation of the training cohort; step 0 is the reconstruction. Probabilities are the probe's on the "
        "edited image, encoded again; volumes are measured in the edited image. The probability follows partly by "
        "construction, since the same probe gave the direction. The volumes are the independent check."
    )
    blocks = [Text(text), *_dose(run), *_expectation(run), *_findings(run), *_panels(run)]
    return Section("manipulation", title, blocks)


def _dose(run: RunFolder) -> list[Block]:
    results, (positive, _) = run.results, run.classes
    steps, probability, change = (
        results.get("manipulate", name) for name in ("steps", "probability", "ventricle_change_ml")
    )
    if not steps or not probability or not change:
        return [Absence("The dose-response values are missing from results.json; run 'ldae study' again.")]
    volumes = results.get("manipulate", "volume_change_ml") or {}
    rows = [
        Row(
            _step(step),
            [
                results.cell("manipulate", "probability", i, digits=2),
                *(results.cell("manipulate", "volume_change_ml", name, i, digits=2, signed=True) for name in volumes),
            ],
        )
        for i, step in enumerate(steps)
    ]
    columns = (
        "Step (SD)",
        f"Mean probability of {positive}",
        *(f"{capital(_structure(name))} (ml)" for name in volumes),
    )
    x = Axis(f"step (SD; positive is toward {positive})", ticks={each: _step(each) for each in steps})
    verdict = "increases" if results.get("manipulate", "monotone") else "does not increase"
    over = f"mean over one scan of each of {results.get('manipulate', 'scans')} test subjects"
    response = ChartFigure(
        Chart(
            [Series("edited scans", steps, probability, "both"), Series("step 0", [0, 0], [0, 1], "reference")],
            x,
            Axis(f"mean probability of {positive}", limits=(-0.03, 1.03)),
        ),
        f"Mean probability of {positive} by step, from {fixed(probability[0], 2)} to {fixed(probability[-1], 2)}.",
        f"Probability of {positive} by step, {over}. It {verdict} with every step.",
    )
    ends = [fixed(each, 1, " ml", signed=True) for each in (change[0], change[-1])]
    ventricles = ChartFigure(
        Chart(
            [
                Series("edited scans", steps, change, "both"),
                Series("no change", [min(steps), max(steps)], [0, 0], "reference"),
            ],
            x,
            Axis("mean change of ventricle volume (ml)"),
        ),
        f"Mean change of ventricle volume by step, from {ends[0]} to {ends[1]}.",
        f"Change of ventricle volume against step 0, {over}.",
    )
    table = Table("Mean probability, and mean change of measured volumes against step 0", columns, rows)
    if all(each is None for each in change):
        return [response, run.missing("volumes", "No edited image shows its ventricles."), table]
    return [Beside([[response], [ventricles]]), table]


def volume_trends(run: RunFolder) -> dict[str, list[str]]:
    """Structures whose mean volume follows the disease, contradicts it, or follows it but not at every step, with their changes.

    Empty for a diagnosis of which the changes are not known here.
    """
    found: dict[str, list[str]] = {"along": [], "against": [], "unsteady": []}
    volumes = run.results.get("manipulate", "volume_change_ml")
    if run.classes[0] != "AD" or not isinstance(volumes, Mapping):
        return found
    for name, sign in EXPECTED.items():
        values = volumes.get(name)
        if not isinstance(values, list) or not values or values[0] is None or values[-1] is None:
            continue
        first, last = (fixed(each, 2, signed=True) for each in (values[0], values[-1]))
        if first != last:  # equal in the table: it does not move
            steady = all(sign * (b - a) > 0 for a, b in pairwise(each for each in values if each is not None))
            trend = "against" if sign * (values[-1] - values[0]) < 0 else "along" if steady else "unsteady"
            found[trend].append(f"{STRUCTURES[name]} ({first} to {last} ml)")
    return found


def _expectation(run: RunFolder) -> list[Block]:
    """Direction of the volume changes against that of the disease."""
    known = "In Alzheimer's disease ventricles grow, and hippocampi and brain tissue shrink."
    along, against, unsteady = volume_trends(run).values()
    rest = f" As expected at every step: {joined(along)}." if along else ""
    if unsteady:
        rest += f" As expected from the first to the last step, but not at every step: {joined(unsteady)}."
    if against:
        return [
            Text(
                f"{known} From the first to the last step, the edits contradict the disease in: {joined(against)}. Either the "
                f"edit or its measurement is wrong there; do not interpret the pictures as this disease.{rest}",
                "warning",
            )
        ]
    return [Text(known + rest, "note" if unsteady else "plain")] if rest else []


def _findings(run: RunFolder) -> list[Block]:
    """Other effects of the edits and preserved identity; once more with age projected out."""
    found = run.results.get("manipulate", "findings")
    if not isinstance(found, Mapping) or "plain" not in found:
        return []
    positive, _ = run.classes
    kinds = [name for name in FINDINGS if name in found]
    last = len(found["plain"]["steps"]) - 1

    at = ("manipulate", "findings")

    def slope(name: str, probe: str) -> Row:
        cells = (run.results.estimate(*at, kind, "probe_slopes", probe, digits=2, signed=True) for kind in kinds)
        return Row(name, list(chain(*cells)))

    def row(name: str, *keys: str | int, digits: int = 2) -> Row:
        cells = ([run.results.cell(*at, kind, *keys, digits=digits), Cell("")] for kind in kinds)
        return Row(name, list(chain(*cells)))

    others = [name for name in found["plain"]["probe_slopes"] if name != "direction"]
    rows = [
        slope(f"Change of the logit of {positive} per step", "direction"),
        *(slope(f"Change of the predicted {name} per step", name) for name in others),
        row("Edited scans nearest to their own scan, last step (share)", "own_nearest_image", last),
        row("Edited codes nearest to their own code, last step (share)", "own_nearest_code", last),
        row(f"Subjects predicted {positive} only after the edit (share of the others)", "flipped"),
        row("Median step of that prediction (SD)", "flip_step", digits=1),
        row("Change outside the brain, relative to inside", "outside_brain", digits=3),
    ]
    columns = ["Effect", *(each for kind in kinds for each in (capital(FINDINGS[kind]), "95 % interval"))]
    blocks: list[Block] = [
        Table("Effects of an edit, means over subjects; edited images are encoded again", columns, rows)
    ]
    for kind in kinds:
        where = run.results.get("manipulate", "where", kind)
        if not isinstance(where, Mapping) or not isinstance(where.get("effect_correlation"), Mapping):
            continue
        correlations = [
            f"{fixed(value, 2)} with {EFFECTS.get(name, name)}" for name, value in where["effect_correlation"].items()
        ]
        changed = (
            f"Edited {FINDINGS[kind]}, {fixed(100 * where['changed_share'], 0)} % of the brain's voxels change (false "
            "discovery rate 5 %)."
        )
        related = f" Correlation of the mean change: {joined(correlations)}." if correlations else ""
        blocks.append(Text(changed + related))
    return blocks


def _panels(run: RunFolder) -> list[Block]:
    images = run.images("manipulate", "images", "original")
    if isinstance(images, Absence):
        return [images]
    steps, shown = (run.task("manipulate").get(name) for name in ("steps", "shown"))
    fits = (
        isinstance(steps, list) and isinstance(shown, list) and images["images"].shape[:2] == (len(shown), len(steps))
    )
    if not fits or 0 not in steps:
        return [run.incomplete("manipulate")]
    zero = steps.index(0)
    changes = [[difference(image, edits[zero]) for image in edits] for edits in images["images"]]
    limit = symmetric_limit([each for row in changes for each in row])
    return [
        _viewer(run, images, steps, shown),
        *(
            _panel(run, images["original"][at], images["images"][at], changes[at], facts, limit)
            for at, facts in enumerate(shown)
        ),
    ]


def _viewer(
    run: RunFolder, images: Mapping[str, Any], steps: Sequence[float], shown: Sequence[Mapping[str, Any]]
) -> Viewer:
    """The edited scans, with a slider for the step."""
    positive, negative = run.classes
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
        step=steps.index(0),
        choices=[f"step {_step(step)}" for step in steps],
        captions=captions,
        change="change since step 0",
        grid=run.preprocessing,
    )


def _who(facts: Mapping[str, Any]) -> str:
    """A scan, its diagnosis and age."""
    who = str(facts["key"]) + (f", {facts['diagnosis']}" if facts.get("diagnosis") else "")
    return who + (f", {facts['age']:.0f} years" if facts.get("age") is not None else "")


def _panel(
    run: RunFolder, original: Array, edits: Array, changes: Sequence[Array], facts: Mapping[str, Any], limit: float
) -> Picture:
    """One subject: its scan, the edits, and their differences to step 0."""
    positive, _ = run.classes
    steps, ventricles = run.task("manipulate").get("steps"), facts["volumes"]["ventricles_ml"]
    headers = ["original\n", *(f"step {_step(step)}\n" + ("reconstruction" if step == 0 else "") for step in steps)]
    measured = [
        f"P({positive}) {p:.2f}\nventricles {fixed(v, 1)} ml"
        for p, v in zip(facts["predicted"], ventricles, strict=True)
    ]
    tiles = [Tile(original, "original"), *(Tile(image, "synthetic") for image in edits)]
    differences = [None, *(Tile(each, "difference", outline=edits[steps.index(0)]) for each in changes)]
    axial, coronal = run.cuts(original, "axial", "coronal")
    draw = partial(
        draw_panel,
        [
            PanelRow(axial, tiles),
            PanelRow(coronal, tiles, ["", *measured]),
            PanelRow(axial.of_change, differences),
            PanelRow(coronal.of_change, differences),
        ],
        headers,
        limit=limit,
        limit_label="change since step 0 (full grey scale = 1); blue: darker, red: brighter; grey line: step 0",
    )
    who = _who(facts)
    alt = (
        f"{who}: original and edits from step {_step(steps[0])} to step {_step(steps[-1])}, axial and coronal, with their "
        f"differences to step 0. Probability of {positive} {facts['predicted'][0]:.2f} to {facts['predicted'][-1]:.2f}, "
        f"ventricles {fixed(ventricles[0], 1)} to {fixed(ventricles[-1], 1)} ml."
    )
    caption = (
        f"{who}. Steps to the right go toward {positive}. Lower rows: change since step 0. Radiological convention: the "
        "patient's right (R) is on the left."
    )
    return Picture(draw, alt, caption)


def _step(value: float) -> str:
    return "0" if value == 0 else fixed(value, 0 if float(value).is_integer() else 1, signed=True)


def _structure(name: str) -> str:
    return STRUCTURES.get(name, name.removesuffix("_ml").replace("_", " "))
