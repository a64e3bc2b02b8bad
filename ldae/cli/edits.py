"""`ldae manipulate` and `ldae interpolate`: scans edited along a probe's direction, and scans between two sessions."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ldae.base.ranges import Range
from ldae.cli.command import command
from ldae.cli.console import interval, p_value, progress_bar, say, table
from ldae.cli.options import Count, PlacedScans, Scans

if TYPE_CHECKING:
    from ldae.tasks.edit.evaluate import ManipulateResult

METRICS = {
    "ssim_brain": "SSIM, brain",
    "change_error": "change error",
    "change_correlation": "change correl.",
    "ventricle_error_ml": "ventricle error, ml",
}
YARDSTICKS = {
    "truth": "their true change",
    "measured": "the change measured in real scans",
    "mixed": "their true change, or where the table lacks it the change measured in real scans",
}
STEPS = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]


@command("manipulate")
def manipulate(
    scans: PlacedScans,
    *,
    direction: Path,
    nuisance: list[Path] | None = None,
    hold: Literal["images", "codes"] = "images",
    ask: list[Path] | None = None,
    steps: list[float] = STEPS,
    render: Literal["decoded", "deformed"] = "decoded",
    effect: list[Path] | None = None,
    counterfactual: float | None = None,
    subject: str | None = None,
) -> int:
    """Edit scans along a probe's direction.

    Steps are standard deviations of the training cohort; 0 is the reconstruction, and in native space the raw scan itself.

    Args:
        scans: to edit.
        direction: probe_*_model.json that 'ldae probe' wrote, or a direction of the model, such as ventricles.
        nuisance: probes whose prediction must not move.
        hold: where nuisances must not move: in edited images, measured on training scans of the manifest, or in codes alone.
        ask: further probes to test on the edited scans, beside the nuisances.
        steps: signed steps.
        render: decoded shows what the codes decode to; deformed shows the scan itself, deformed as the decoded edit is against
            the reconstruction: boundaries move and detail stays, which suits real heads. Only changes above 0.05 of the
            range of intensities count.
        effect: volumes in MNI152 space of known effects of the target, to correlate the mean change with.
        counterfactual: also find, for each scan, the smallest step that takes the probe to this probability (or value).
        subject: participant_id whose scans alone are edited; training scans are still measured.

    Examples:
        ldae manipulate head.nii.gz --direction ventricles --steps -1 1 --out edits
        ldae manipulate preprocessed/manifest.tsv --direction probes/probe_diagnosis_model.json --out edits
    """
    from ldae.errors import TaskError
    from ldae.io.bids import TEMPLATE, bids_number, bids_path
    from ldae.io.model_names import find_direction
    from ldae.tasks.edit.counterfactual import FARTHEST, check_target, write_counterfactuals
    from ldae.tasks.edit.direction import choose_step
    from ldae.tasks.edit.evaluate import manipulate
    from ldae.tasks.native.labels import write_synthetic
    from ldae.tasks.probe.linear import LinearProbe
    from ldae.volume import read_volume

    spared, paths = nuisance or [], effect or []
    chosen = find_direction(direction, scans.model)
    probe, nuisances = LinearProbe.load(chosen), [LinearProbe.load(path) for path in spared]
    others = {path.stem: LinearProbe.load(path) for path in [*spared, *(ask or [])]}
    if counterfactual is not None:
        check_target(probe, counterfactual)
        if render != "decoded":
            msg = "counterfactuals are decoded images; leave out --counterfactual or --render deformed"
            raise TaskError(msg)
    names = [path.name for path in paths]
    known = {str(path) if names.count(path.name) > 1 else path.name: read_volume(path) for path in paths}
    model, encoded = scans.open(subject, round_trip=True)
    amounts = sorted({0.0, *steps})
    training = [record for record in scans.manifest.records if record.split == "train"] if nuisances else []
    if nuisances and not training and hold == "images":
        say("note: the manifest has no training scans to measure on, so nuisances are held in codes alone")
    with progress_bar("measure nuisances") as move:
        step = choose_step(model, probe, nuisances, training if hold == "images" else [], progress=move)
    place = scans.place(model)
    modality = model.config.preprocessing.modality
    followed = {"probe": str(direction), "nuisances": [str(path) for path in spared], "render": render}

    def write(row: int, edits: Any) -> None:
        record, reference = encoded.records[row], edits.images[amounts.index(0)]
        of_scan = place.scan(record, encoded.codes[row])
        for index, (amount, image) in enumerate(zip(edits.steps, edits.images, strict=True)):
            ending = f"_space-{place.label}_desc-step{bids_number(amount)}_{modality}.nii.gz"
            path = bids_path(scans.out, record.stem, ending)
            fields = edits.displacements
            shown = of_scan.edited(image, reference) if fields is None else of_scan.deformed(image, fields[index])
            shown.write(path, "edit", **followed, step=amount, predicted=edits.predicted[index])

    effects = {name: volume.resample_to(model.config.preprocessing.grid).data for name, volume in known.items()}
    with progress_bar("manipulate") as move:
        result = manipulate(
            model,
            encoded,
            probe,
            others,
            steps=amounts,
            step=step,
            deformed=render == "deformed",
            effects=effects,
            seed=scans.seed,
            visit=write,
            progress=move,
        )
    result.write(scans.out)
    if counterfactual is not None:
        with progress_bar("counterfactuals") as move:
            rows = write_counterfactuals(
                model, encoded, probe, counterfactual, scans.out, place, step=step, facts=followed, progress=move
            )
        reached = [abs(row["step"]) for row in rows if row["reached"]]
        middle = f"; the median length of their steps is {median(reached):.2f}" if reached else ""
        missed = f"; the other {len(rows) - len(reached)} do not within {FARTHEST:g} steps, the farthest tried"
        say(
            f"counterfactuals: the probe reaches {counterfactual:g} in {len(reached)} of {len(rows)} scans{middle}"
            f"{missed if len(reached) < len(rows) else ''}; {len(rows)} images and counterfactuals.tsv in {scans.out}",
            counterfactuals=scans.out / "counterfactuals.tsv",
        )
    subjects = len(encoded.first_rows)
    if result.map is not None:
        for name in known:
            value = result.map.effect_correlations.get(name)
            number = "none, as one is constant" if value is None else f"{value:.3f}"
            say(f"correlation of the mean change with {name}: {number}")
        facts: dict[str, Any] = {**followed, "space": "template", "subjects": subjects, "model": model.fingerprint()}
        for name, image in (("change", result.map.mean), ("significant", result.map.significant.astype("float32"))):
            path = scans.out / f"group_space-{TEMPLATE}_desc-{name}_{modality}.nii.gz"
            write_synthetic(model.config.preprocessing.restore(image), path, f"mean {name}", **facts)
    elif known:
        say(f"note: {subjects} subjects are too few for a map, so --effect is not used")
    show_edits(result, direction.stem, subjects)
    say(
        f"{result.scans * len(amounts)} images ({result.scans} scans at {len(amounts)} steps) and manipulate.json in {scans.out}",
        folder=scans.out,
        results=scans.out / "manipulate.json",
    )
    return 0


def show_edits(result: "ManipulateResult", name: str, subjects: int) -> None:
    """Print what the edits, along the probe of this name, changed in so many subjects."""
    findings, volumes = result.findings, result.volume_change_ml
    rows = []
    for index, amount in enumerate(result.steps):
        changes = [each[index] for each in volumes.values()]
        cells = ["not measurable" if change is None else f"{change:+.2f}" for change in changes]
        rows.append([f"{amount:+g}", f"{result.predicted[index]:.3f}", *cells])
    structures = [f"{each.removesuffix('_ml').replace('_', ' ')}, ml" for each in volumes]
    table(f"means over {result.scans} scans; changes against step 0", ["step", "prediction", *structures], rows)
    table(
        f"every probe, over the first scans of {subjects} subjects",
        ["probe", "change a step (logit, or the target's unit)"],
        [[name if each == "direction" else each, interval(slope)] for each, slope in findings.probe_slopes.items()],
    )
    if subjects > 1:
        say(f"nearest to their own scan at the last step: {findings.own_nearest_image[-1]:.0%} of edited scans")
    moved = findings.probe_slopes["direction"]
    if moved.ends[0] <= 0 <= moved.ends[1]:
        say("note: the probe does not follow the edit; these images show nothing of what it predicts")
    if findings.outside_brain is not None:
        say(f"change outside the brain: {findings.outside_brain:.3f} of that inside")
    if findings.flipped is not None:
        at = "" if findings.flip_step is None else f", at step {findings.flip_step:.1f} (median)"
        say(f"the edit takes {findings.flipped:.0%} of those below one half above it{at}")


@command("interpolate subject")
def interpolate_subject(
    scans: PlacedScans,
    *,
    subject: str,
    months: list[float],
    draws: Annotated[int, Range(0)] = 0,
    estimate: Literal["residual", "codes"] = "residual",
) -> int:
    """Write one subject's scan at months between two sessions.

    One NIfTI a month, and a map of how much it depends on the noise code.

    Args:
        scans: of which the subject's are used.
        subject: participant_id.
        months: months since baseline.
        draws: noise codes to draw for a voxelwise uncertainty map; 0 writes none.
        estimate: residual adds what compression lost of the two scans around the month, each by its nearness; codes is what
            the codes decode to by themselves. On the raw scan (--space native) the nearer scan keeps all its detail either way.

    Examples:
        ldae interpolate subject preprocessed/manifest.tsv --subject sub-01 --months 6 12 18 --out months
    """
    from ldae.tasks.longitudinal.months import write_months

    model, encoded = scans.open(subject)
    residual = estimate == "residual"
    place = scans.place(model)
    paths = []
    for path in write_months(model, encoded, months, scans.out, place, residual=residual, draws=draws, seed=scans.seed):
        paths.append(path)
        say(str(path), images=paths)
    return 0


@command("interpolate evaluate")
def interpolate_evaluate(
    scans: Scans, *, references: Path | None = None, truth: Path | None = None, resamples: Count = 1000
) -> int:
    """Score every method of interpolation against real scans.

    Leaves out every session of the test subjects that lies between two others, and predicts it.

    Args:
        scans: of subjects with three sessions or more.
        references: manifest of noise-free twins of the same scans, to compare with instead of the scans themselves.
        truth: table of true values by participant_id and session_id: ventricles_ml, ventricle_mm (phantom_truth.tsv).
        resamples: of the bootstrap.

    Examples:
        ldae interpolate evaluate preprocessed/manifest.tsv --people test --out interpolation
    """
    from ldae.data.manifest import read_manifest
    from ldae.errors import TaskError
    from ldae.tasks.longitudinal.evaluate import evaluate_interpolation, read_truth
    from ldae.tasks.longitudinal.trajectory import train_trajectory_prior

    true_values = None if truth is None else read_truth(truth)
    model, encoded = scans.open()
    prior = None
    try:
        with progress_bar("encode training subjects") as move:
            prior = train_trajectory_prior(model, scans.manifest.records, encoded.subjects, progress=move)
    except TaskError as error:
        say(f"without trajectories: {error}")
    twins = None if references is None else {record.key: record for record in read_manifest(references).records}
    with progress_bar("interpolate") as move:
        result = evaluate_interpolation(
            model,
            encoded,
            prior=prior,
            references=twins,
            truth=true_values,
            resamples=resamples,
            seed=scans.seed,
            progress=move,
        )
    against = "noise-free twins" if twins is not None else "the real scan"
    table(
        f"{result.n} missing sessions of {result.subjects} subjects, gap {result.gap_months:.1f} months, against {against}; "
        f"ventricles against {YARDSTICKS[result.ventricle_yardstick]}; 95 % intervals over subjects",
        ["method", *METRICS.values()],
        [
            [name, *(_value(result.intervals, result.means, metric, name) for metric in METRICS)]
            for name in result.means["ssim"]
        ],
    )
    compared = {
        metric: result.differences[metric][result.own]
        for metric in METRICS
        if metric != "ssim_brain" and result.own in result.differences.get(metric, {})
    }
    if compared:
        table(
            f"{result.own} minus the others, paired over subjects, p of Holm; better is below 0 of errors, above 0 of the rest",
            ["against", *(METRICS[metric] for metric in compared)],
            [
                [rival, *(_difference(each[rival]) for each in compared.values())]
                for rival in next(iter(compared.values()))
            ],
        )
    for kind, values in result.groups.items():
        known = {name: each for name, each in values.items() if each["n"]}
        table(
            f"change error by {kind}",
            ["method", *(f"{name} (n {each['n']})" for name, each in known.items())],
            [
                [name, *(f"{each['change_error'][name]:.3f}" for each in known.values())]
                for name in result.means["ssim"]
            ],
        )
    written = result.write(scans.out)
    say("\n".join(map(str, written)), results=written)
    return 0


def _value(intervals: Any, means: Any, metric: str, name: str) -> str:
    if name in intervals.get(metric, {}):
        return interval(intervals[metric][name])
    return f"{means[metric][name]:.3f}"


def _difference(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['value']:+.3f} (no interval: {found['reason']})"
    return f"{found['value']:+.3f} [{found['low']:.3f}, {found['high']:.3f}], p {p_value(found['p_holm'])}"
