"""`ldae interpolate`: scans at months without a session, and how well that works."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser
from ldae.cli.console import interval, p_value, progress_bar, say, table
from ldae.cli.images import add_inputs, add_space, open_scans

if TYPE_CHECKING:
    from ldae.tasks.longitudinal.trajectory import TrajectoryPrior

__all__ = ["register"]

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


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the commands."""
    group = Parser(description="Scans at months between two sessions.")
    commands.add_subcommand("interpolate", group, help="missing time points")
    kinds = group.add_subcommands(required=True, dest="subcommand")
    subject = Parser(
        description="Write a NIfTI for each month asked for, between two sessions of one subject, and a map of how much it "
        "depends on the noise code."
    )
    add_inputs(subject)
    add_space(subject)
    subject.add_argument("--subject", required=True, help="participant_id")
    subject.add_argument("--months", type=float, nargs="+", required=True, help="months since baseline")
    subject.add_argument(
        "--draws", type=int, default=0, help="noise codes to draw for a voxelwise uncertainty map; 0 writes none"
    )
    subject.add_argument(
        "--estimate",
        choices=["residual", "codes"],
        default="residual",
        help="residual (the default) adds what compression lost of the two scans around the month, each by its nearness; "
        "codes is what the codes decode to by themselves. On the raw scan (--space native) the nearer scan keeps all its detail "
        "either way",
    )
    kinds.add_subcommand("subject", subject, help="images of one subject")
    runs["interpolate", "subject"] = run_interpolate
    evaluate = Parser(
        description="Leave out every session of the test subjects that lies between two others, predict it, and score every "
        "method against the real scan."
    )
    add_inputs(evaluate)
    evaluate.add_argument(
        "--references",
        type=Path,
        default=None,
        help="manifest of noise-free twins of the same scans, to compare with instead of the scans themselves",
    )
    evaluate.add_argument(
        "--truth",
        type=Path,
        default=None,
        help="table of true values by participant_id and session_id: ventricles_ml, ventricle_mm (phantom_truth.tsv)",
    )
    evaluate.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    kinds.add_subcommand("evaluate", evaluate, help="every method against real scans")
    runs["interpolate", "evaluate"] = run_evaluate


def run_interpolate(options: Namespace) -> int:
    """One image a month."""
    import numpy as np

    from ldae.errors import TaskError
    from ldae.tasks.longitudinal.interpolate import draw_spread, interpolate_subject, nearest_session, with_residual
    from ldae.tasks.native.spaces import open_space

    model, scans = open_scans(options, options.subject)
    if len(scans) < 2:
        msg = f"subject {options.subject} has one session; two with months are needed to interpolate between"
        raise TaskError(msg)
    space = open_space(options.space, model)
    for between in interpolate_subject(scans, options.months):
        month, codes, ends = between.month, between.codes, (between.first, between.second)
        row = nearest_session(scans, month)
        session = scans.codes[row]
        image, *decoded = model.decode_images([codes, *(scans.codes[end] for end in ends)])
        # At a session's own month nothing has changed, whatever rounding there may be in decoding twice.
        reference = image if codes.same_image(session) else decoded[ends.index(row)]
        place = space.scan(scans.records[row], session)
        if not space.needs_reference and options.estimate == "residual":
            image = with_residual(image, between, scans.select(ends).images(), np.stack(decoded))
        name = f"{options.subject}_month-{month:g}_space-{space.label}"
        facts = {
            "month": month,
            "session": scans.records[row].session_id,
            "between": [scans.records[end].session_id for end in dict.fromkeys(ends)],
            "estimate": options.estimate,
        }
        path = options.out / f"{name}_desc-interpolated_T1w.nii.gz"
        say(f"{place.edited(image, reference).write(path, 'interpolation', **facts)}")
        if options.draws:
            spread = draw_spread(model, codes, draws=options.draws, seed=options.seed)
            path = options.out / f"{name}_desc-uncertainty_T1w.nii.gz"
            facts |= {"draws": options.draws, "seed": options.seed}
            say(f"{place.spread(spread).write(path, 'uncertainty', **facts)}")
    return 0


def run_evaluate(options: Namespace) -> int:
    """A row a method."""
    from ldae.tasks.longitudinal.evaluate import evaluate_interpolation, read_truth

    truth = None if options.truth is None else read_truth(options.truth)
    model, scans = open_scans(options)
    prior = _prior(options, model, {record.participant_id for record in scans.records})
    references = None if options.references is None else _references(options.references, scans)
    with progress_bar("interpolate") as move:
        result = evaluate_interpolation(
            model,
            scans,
            prior=prior,
            references=references,
            truth=truth,
            resamples=options.resamples,
            seed=options.seed,
            progress=move,
        )
    paths = result.write(options.out)
    against = "noise-free twins" if references is not None else "the real scan"
    table(
        f"{result.n} missing sessions of {result.subjects} subjects, gap {result.gap_months:.1f} months, against {against}; "
        f"ventricles against {YARDSTICKS[result.ventricle_yardstick]}; 95 % intervals over subjects",
        ["method", *METRICS.values()],
        [
            [name, *(_figure(result.intervals, result.means, metric, name) for metric in METRICS)]
            for name in result.means["ssim"]
        ],
    )
    compared = {
        metric: of[result.own]
        for metric, of in result.differences.items()
        if result.own in of and metric != "ssim_brain"
    }
    if compared:
        table(
            f"{result.own} minus the others, paired over subjects, p of Holm; better is below 0 of errors, above 0 of the rest",
            ["against", *(METRICS[metric] for metric in METRICS if metric in compared)],
            [
                [rival, *(_difference(compared[metric][rival]) for metric in METRICS if metric in compared)]
                for rival in next(iter(compared.values()))
            ],
        )
    for kind, values in result.groups.items():
        asked = {name: each for name, each in values.items() if each["n"]}
        table(
            f"change error by {kind}",
            ["method", *(f"{name} (n {each['n']})" for name, each in asked.items())],
            [
                [name, *(f"{each['change_error'][name]:.3f}" for each in asked.values())]
                for name in result.means["ssim"]
            ],
        )
    say("\n".join(str(path) for path in paths))
    return 0


def _figure(intervals: Any, means: Any, metric: str, name: str) -> str:
    if name in intervals.get(metric, {}):
        return interval(intervals[metric][name])
    return f"{means[metric][name]:.3f}"


def _difference(found: Mapping[str, float]) -> str:
    return f"{found['value']:+.3f} [{found['low']:.3f}, {found['high']:.3f}], p {p_value(found['p_holm'])}"


def _prior(options: Namespace, model: Any, scored: set[str]) -> "TrajectoryPrior | None":
    """How codes of training subjects change who are not scored; None, said, where too few come twice."""
    from ldae.data.manifest import read_manifest
    from ldae.errors import TaskError
    from ldae.tasks.encode import encode_scans
    from ldae.tasks.longitudinal.trajectory import fit_trajectory_prior

    records = [
        r for r in read_manifest(options.manifest).records if r.split == "train" and r.participant_id not in scored
    ]
    if not records:
        say("trajectories are left out: no subject of the training split remains who is not scored")
        return None
    try:
        with progress_bar("encode training subjects") as move:
            training = encode_scans(model, records, progress=move)
        return fit_trajectory_prior(training.records, training.semantic)
    except TaskError as error:
        say(f"without trajectories: {error}")
        return None


def _references(path: Path, scans: Any) -> dict[str, Any]:
    """Twins of the scans, by key.

    Raises:
        TaskError: if one is missing.
    """
    from ldae.data.manifest import read_manifest
    from ldae.errors import TaskError

    twins = {record.key: record for record in read_manifest(path).records}
    missing = [record.key for record in scans.records if record.key not in twins]
    if missing:
        msg = f"{path}: holds no twin of {len(missing)} scans (first: {missing[0]}); give a manifest with the same keys"
        raise TaskError(msg)
    return twins
