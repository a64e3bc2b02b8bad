"""`ldae reconstruct`, `manipulate`, `sample`: codes back to images."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_hardware, add_manifest, add_model, add_out, add_seed, load_model
from ldae.cli.console import interval, progress_bar, say, table

__all__ = ["add_inputs", "open_scans", "register"]

MAPPED_SUBJECTS = 3


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the commands."""
    reconstruct = Parser(
        description="Encode scans and decode them again: NIfTI images and the agreement with the scans."
    )
    add_inputs(reconstruct)
    reconstruct.add_argument("--native", action="store_true", help="write on each scan's own grid and in its units")
    commands.add_subcommand("reconstruct", reconstruct, help="scans through their codes and back")
    runs["reconstruct",] = run_reconstruct

    manipulate = Parser(
        description="Move scans along a probe's direction. Steps are standard deviations of the training cohort; "
        "0 is the reconstruction."
    )
    add_inputs(manipulate)
    manipulate.add_argument("--probe", type=Path, required=True, help="probe_*_model.json that 'ldae probe' wrote")
    manipulate.add_argument(
        "--nuisance", type=Path, nargs="+", default=[], help="probes whose prediction must not move"
    )
    manipulate.add_argument(
        "--ask",
        type=Path,
        nargs="+",
        default=[],
        help="further probes to ask of the edited scans, beside the nuisances",
    )
    manipulate.add_argument("--steps", type=float, nargs="+", default=[-3, -2, -1, 0, 1, 2, 3], help="signed steps")
    commands.add_subcommand("manipulate", manipulate, help="edit scans along a probe's direction")
    runs["manipulate",] = run_manipulate

    sample = Parser(description="Draw synthetic scans: unconditional, or variations of one scan.")
    add_model(sample)
    add_out(sample, "folder")
    sample.add_argument("--count", type=int, default=4, help="number of images")
    sample.add_argument("--like", type=Path, default=None, help="a preprocessed scan, whose semantic code is kept")
    add_seed(sample)
    add_hardware(sample)
    commands.add_subcommand("sample", sample, help="draw synthetic scans")
    runs["sample",] = run_sample


def add_inputs(parser: Parser) -> None:
    """`--model`, `--manifest`, `--split`, `--out` and the rest of what a command on held-out scans takes."""
    add_model(parser)
    add_manifest(parser)
    parser.add_argument(
        "--split",
        choices=["train", "validation", "test", "all"],
        default=None,
        help="which scans; the test subjects where the manifest has a split, else all",
    )
    add_out(parser, "folder")
    add_seed(parser)
    add_hardware(parser)


def open_scans(options: Namespace, subject: str | None = None, *, noise: bool = True) -> tuple[Any, Any]:
    """The model, and the scans asked for with both codes; without noise codes, which take longest, if they are not needed."""
    from ldae.data.manifest import read_manifest
    from ldae.errors import TaskError
    from ldae.tasks.encode import encode_scans

    manifest = read_manifest(options.manifest)
    split = options.split
    if split is None:
        split = "test" if subject is None and manifest.table["split"].notna().any() else "all"
    records = manifest.records if split == "all" else manifest.in_split(split).records
    if subject is not None:
        records = tuple(record for record in records if record.participant_id == subject)
        if not records:
            some = ", ".join(manifest.subjects[:5])
            msg = f"{options.manifest}: no subject {subject!r} there; it holds {some}, ..."
            raise TaskError(msg)
    model = load_model(options)
    with progress_bar("encode") as move:
        scans = encode_scans(model, records, progress=move)
    if not noise:
        return model, scans
    with progress_bar("invert") as move:
        return model, scans.with_noise(model, progress=move)


def run_reconstruct(options: Namespace) -> int:
    """Images and metrics."""
    from ldae.io.files import write_json
    from ldae.tasks.reconstruct import evaluate_reconstruction, reconstruct, write_reconstructions

    model, scans = open_scans(options)
    images = reconstruct(model, scans, seed=options.seed)
    result = evaluate_reconstruction(model, scans, images)
    paths = write_reconstructions(model, scans, images.both, options.out, native=options.native)
    write_json(options.out / "reconstruct.json", asdict(result))
    rows = {
        "both codes": result.both,
        "semantic code alone": result.semantic_only,
        "compression (ceiling)": result.compression,
    }
    table(
        f"{result.scans} scans, {result.steps} steps, against the real scans",
        ["from", "SSIM", "SSIM in brain", "MSE", "PSNR dB"],
        [
            [k, f"{v['ssim']:.4f}", f"{v['ssim_brain']:.4f}", f"{v['mse']:.5f}", f"{v['psnr']:.2f}"]
            for k, v in rows.items()
        ],
    )
    say(f"{len(paths)} images and reconstruct.json in {options.out}")
    return 0


def run_manipulate(options: Namespace) -> int:
    """An image a step, and what the probe and the volumes say of it."""
    from ldae.io.files import write_json
    from ldae.tasks.evaluate_manipulation import evaluate_edits, map_edit
    from ldae.tasks.labels import write_synthetic
    from ldae.tasks.manipulate import manipulate, summarise_edits
    from ldae.tasks.probe import LinearProbe

    probe = LinearProbe.load(options.probe)
    nuisances = [LinearProbe.load(path) for path in options.nuisance]
    asked = {path.stem: LinearProbe.load(path) for path in [*options.nuisance, *options.ask]}
    model, scans = open_scans(options)
    steps = options.steps if 0 in options.steps else [0, *options.steps]
    with progress_bar("manipulate") as move:
        edits = manipulate(model, scans.codes, probe, steps=sorted(steps), nuisances=nuisances, progress=move)
    result = summarise_edits(edits)
    for record, codes, edit in zip(scans.records, scans.codes, edits, strict=True):
        for amount, image, predicted in zip(edit.steps, edit.images, edit.predicted, strict=True):
            name = f"{record.key}_desc-step{amount:+g}_T1w.nii.gz"
            volume = model.restore(image, codes)
            write_synthetic(
                volume, options.out / name, "edit", step=amount, predicted=predicted, probe=str(options.probe)
            )
    rows = scans.first_rows
    first, of_first = scans.select(rows), [edits[row] for row in rows]
    findings = evaluate_edits(of_first, first, probe, asked, seed=options.seed)
    plain = asdict(result) | {"monotone": result.monotone, "findings": asdict(findings)}
    if len(rows) >= MAPPED_SUBJECTS:
        mapped = map_edit(of_first, first.images)
        plain["changed_share"] = mapped.share
        for name, image in (("change", mapped.mean), ("significant", mapped.significant.astype("float32"))):
            path = options.out / f"group_desc-{name}_T1w.nii.gz"
            write_synthetic(model.config.preprocessing.restore(image), path, f"mean {name}", subjects=len(rows))
    write_json(options.out / "manipulate.json", plain)
    table(
        f"means over {result.scans} scans; changes against step 0",
        ["step", "probe", *result.volume_change_ml],
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
        f"every probe, over the first scans of {len(rows)} subjects",
        ["probe", "change a step (logit, or the target's unit)"],
        [
            [options.probe.stem if name == "direction" else name, interval(each)]
            for name, each in findings.probe_slopes.items()
        ],
    )
    say(f"nearest to their own scan at the last step: {findings.own_nearest_image[-1]:.0%} of edited scans")
    moved = findings.probe_slopes["direction"]
    if moved.low <= 0 <= moved.high:
        say("note: the probe does not follow the edit; these images show nothing of what it predicts")
    if findings.outside_brain is not None:
        say(f"change outside the brain: {findings.outside_brain:.3f} of that inside")
    if findings.flipped is not None:
        step = "" if findings.flip_step is None else f", at step {findings.flip_step:.1f} (median)"
        say(f"the edit takes {findings.flipped:.0%} of those below one half above it{step}")
    say(f"images and manipulate.json in {options.out}")
    return 0


def _millilitres(change: float | None) -> str:
    return "not measurable" if change is None else f"{change:+.2f} ml"


def run_sample(options: Namespace) -> int:
    """One NIfTI an image."""
    from ldae.tasks.labels import write_synthetic
    from ldae.tasks.sample import sample
    from ldae.volume import read_volume

    model = load_model(options)
    semantic = None
    if options.like is not None:
        semantic = model.encode_prepared([model.prepare(read_volume(options.like))], noise=False)[0].semantic
    images = sample(model, options.count, seed=options.seed, semantic=semantic)
    for index, image in enumerate(images):
        path = options.out / f"sample-{options.seed}-{index:04d}_T1w.nii.gz"
        like = None if options.like is None else str(options.like)
        write_synthetic(
            model.config.preprocessing.restore(image), path, "sample", seed=options.seed, index=index, like=like
        )
    say(f"{len(images)} images in {options.out}")
    return 0
