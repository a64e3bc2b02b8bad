"""`ldae manipulate`: scans moved along what a probe has learnt, and the smallest moves that change its mind."""

from pathlib import Path
from statistics import median
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser
from ldae.cli.console import interval, progress_bar, say, table
from ldae.cli.images import add_inputs, add_space, open_scans

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    manipulate = Parser(
        description="Move scans along a probe's direction. Steps are standard deviations of the training cohort; "
        "0 is the reconstruction, and in native space the raw scan itself."
    )
    add_inputs(manipulate)
    add_space(manipulate)
    manipulate.add_argument(
        "--subject",
        type=str,
        default=None,
        help="participant_id whose scans alone are edited; what is measured on training scans still is",
    )
    manipulate.add_argument("--probe", type=Path, required=True, help="probe_*_model.json that 'ldae probe' wrote")
    manipulate.add_argument(
        "--nuisance", type=Path, nargs="+", default=[], help="probes whose prediction must not move"
    )
    manipulate.add_argument(
        "--hold",
        choices=["images", "codes"],
        default="images",
        help="where nuisances must not move: in edited images, measured on training scans of the manifest, or in codes alone",
    )
    manipulate.add_argument(
        "--ask",
        type=Path,
        nargs="+",
        default=[],
        help="further probes to ask of the edited scans, beside the nuisances",
    )
    manipulate.add_argument("--steps", type=float, nargs="+", default=[-3, -2, -1, 0, 1, 2, 3], help="signed steps")
    manipulate.add_argument(
        "--effect",
        type=Path,
        nargs="+",
        default=[],
        help="volumes in MNI152 space of what the target is known to change, to correlate the mean change with",
    )
    manipulate.add_argument(
        "--counterfactual",
        type=float,
        default=None,
        help="also find, for each scan, the smallest step that takes the probe to this probability (or value)",
    )
    commands.add_subcommand("manipulate", manipulate, help="edit scans along a probe's direction")
    runs["manipulate",] = run_manipulate


def run_manipulate(options: Namespace) -> int:
    """An image a step, and what the probe and the volumes say of it."""
    from ldae.tasks.edit.counterfactual import check_target
    from ldae.tasks.edit.evaluate import manipulate
    from ldae.tasks.native.labels import write_synthetic
    from ldae.tasks.native.spaces import open_space
    from ldae.tasks.probe.linear import LinearProbe

    probe = LinearProbe.load(options.probe)
    nuisances = [LinearProbe.load(path) for path in options.nuisance]
    others = {path.stem: LinearProbe.load(path) for path in [*options.nuisance, *options.ask]}
    if options.counterfactual is not None:
        check_target(probe, options.counterfactual)
    known = _effects(options)
    model, scans = open_scans(options, options.subject)
    steps = sorted(options.steps if 0 in options.steps else [0, *options.steps])
    step = _step(options, model, probe, nuisances)
    space = open_space(options.space, model)

    def write(row: int, edits: Any) -> None:
        record, reference = scans.records[row], edits.images[steps.index(0)]
        place = space.scan(record, scans.codes[row])
        for amount, image, predicted in zip(edits.steps, edits.images, edits.predicted, strict=True):
            path = options.out / f"{record.key}_space-{space.label}_desc-step{amount:+g}_T1w.nii.gz"
            facts = _direction(options) | {"step": amount, "predicted": predicted}
            place.edited(image, reference).write(path, "edit", **facts)

    effects = {name: volume.resample_to(model.config.preprocessing.grid).data for name, volume in known.items()}
    with progress_bar("manipulate") as move:
        result = manipulate(
            model,
            scans,
            probe,
            others,
            steps=steps,
            step=step,
            effects=effects,
            seed=options.seed,
            visit=write,
            progress=move,
        )
    if options.counterfactual is not None:
        _counterfactuals(options, model, scans, space, probe, step)
    findings, subjects = result.findings, len(scans.first_rows)
    if result.map is not None:
        for name in known:
            value = result.map.effect_correlations.get(name)
            say(
                f"correlation of the mean change with {name}: {'none, as one is constant' if value is None else f'{value:.3f}'}"
            )
        for name, image in (("change", result.map.mean), ("significant", result.map.significant.astype("float32"))):
            path = options.out / f"group_space-MNI152_desc-{name}_T1w.nii.gz"
            facts = _direction(options) | {"space": "template", "subjects": subjects, "model": model.fingerprint()}
            write_synthetic(model.config.preprocessing.restore(image), path, f"mean {name}", **facts)
    elif known:
        say(f"note: {subjects} subjects are too few for a map, so --effect is not used")
    result.write(options.out)
    table(
        f"means over {result.scans} scans; changes against step 0",
        ["step", "probe", *(_structure(name) for name in result.volume_change_ml)],
        [
            [
                f"{step:+g}",
                f"{result.predicted[i]:.3f}",
                *(_millilitres(v[i]) for v in result.volume_change_ml.values()),
            ]
            for i, step in enumerate(result.steps)
        ],
    )
    table(
        f"every probe, over the first scans of {subjects} subjects",
        ["probe", "change a step (logit, or the target's unit)"],
        [
            [
                options.probe.stem if name == "direction" else name,
                interval(each) if subjects > 1 else f"{each.value:.3f}",
            ]
            for name, each in findings.probe_slopes.items()
        ],
    )
    if subjects > 1:
        say(f"nearest to their own scan at the last step: {findings.own_nearest_image[-1]:.0%} of edited scans")
    moved = findings.probe_slopes["direction"]
    if moved.low <= 0 <= moved.high:
        say("note: the probe does not follow the edit; these images show nothing of what it predicts")
    if findings.outside_brain is not None:
        say(f"change outside the brain: {findings.outside_brain:.3f} of that inside")
    if findings.flipped is not None:
        step = "" if findings.flip_step is None else f", at step {findings.flip_step:.1f} (median)"
        say(f"the edit takes {findings.flipped:.0%} of those below one half above it{step}")
    say(
        f"{result.scans * len(steps)} images ({result.scans} scans at {len(steps)} steps) and manipulate.json in "
        f"{options.out}"
    )
    return 0


def _effects(options: Namespace) -> dict[str, Any]:
    """The maps to hold edits against, by file name; two of one name by their paths."""
    from ldae.volume import read_volume

    names = [path.name for path in options.effect]
    return {str(path) if names.count(path.name) > 1 else path.name: read_volume(path) for path in options.effect}


def _step(options: Namespace, model: Any, probe: Any, nuisances: list[Any]) -> Any:
    """The change of y that a step makes, with nuisances held as asked."""
    from ldae.data.manifest import read_manifest
    from ldae.metrics.statistics import rows_by_subject
    from ldae.tasks.edit.direction import MEASURED, hold_in_images, project_out, spread
    from ldae.tasks.encode import encode_scans

    if not nuisances:
        return probe.step
    training = [record for record in read_manifest(options.manifest).records if record.split == "train"]
    if options.hold == "codes" or not training:
        if options.hold == "images":
            say("note: the manifest has no training scans to measure on, so nuisances are held in codes alone")
        return project_out(probe, nuisances)
    first = [int(rows[0]) for rows in rows_by_subject([record.participant_id for record in training])]
    chosen = [training[row] for row in spread(first, MEASURED)]
    with progress_bar("measure nuisances") as move:
        measured = encode_scans(model, chosen).with_noise(model)
        return hold_in_images(model, measured.codes, probe, nuisances, progress=move)


def _direction(options: Namespace) -> dict[str, Any]:
    """What the edits follow, for side-cars."""
    return {"probe": str(options.probe), "nuisances": [str(path) for path in options.nuisance]}


def _counterfactuals(options: Namespace, model: Any, scans: Any, space: Any, probe: Any, step: Any) -> None:
    """An image and a row a scan: the smallest edit that takes the probe to the target."""
    import pandas as pd

    from ldae.io.files import write_text
    from ldae.tasks.edit.counterfactual import FARTHEST, find_counterfactuals

    rows = []
    with progress_bar("counterfactuals") as move:
        found = find_counterfactuals(model, scans.codes, probe, options.counterfactual, step=step)
        for record, codes, each in zip(scans.records, scans.codes, found, strict=True):
            facts = {"step": each.amount, "before": each.before, "after": each.after, "reached": each.reached}
            rows.append({"participant_id": record.participant_id, "session_id": record.session_id, **facts})
            path = options.out / f"{record.key}_space-{space.label}_desc-counterfactual_T1w.nii.gz"
            reference = model.decode_images([codes])[0] if space.needs_reference else each.image
            result = space.scan(record, codes).edited(each.image, reference)
            result.write(path, "counterfactual", **_direction(options), **facts)
            move(len(rows), len(scans))
    table_path = options.out / "counterfactuals.tsv"
    write_text(table_path, pd.DataFrame(rows).to_csv(sep="\t", index=False))
    reached = [abs(row["step"]) for row in rows if row["reached"]]
    middle = f"; the median length of their steps is {median(reached):.2f}" if reached else ""
    missed = ""
    if len(reached) < len(rows):
        missed = (
            f"; the other {len(rows) - len(reached)} do not within {FARTHEST:g} steps, the farthest that is tried, and keep "
            "the image of that step"
        )
    say(
        f"counterfactuals: the probe reaches {options.counterfactual:g} in {len(reached)} of {len(rows)} scans{middle}{missed}; "
        f"{len(rows)} images and {table_path}"
    )


def _structure(name: str) -> str:
    return f"{name.removesuffix('_ml').replace('_', ' ')}, ml"


def _millilitres(change: float | None) -> str:
    return "not measurable" if change is None else f"{change:+.2f}"
