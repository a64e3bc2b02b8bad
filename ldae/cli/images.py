"""`ldae reconstruct`, `sample`: codes back to images."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_hardware, add_manifest, add_model, add_out, add_seed, load_model
from ldae.cli.console import progress_bar, say, table

__all__ = ["add_inputs", "add_space", "open_scans", "register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the commands."""
    reconstruct = Parser(
        description="Encode scans and decode them again: NIfTI images and the agreement with the scans."
    )
    add_inputs(reconstruct)
    add_space(reconstruct)
    reconstruct.add_argument(
        "--keep-detail",
        action="store_true",
        help="in native space, keep the raw scan's own detail and change it by what the codes miss; without it the brain shows "
        "nothing but what they hold",
    )
    commands.add_subcommand("reconstruct", reconstruct, help="scans through their codes and back")
    runs["reconstruct",] = run_reconstruct

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


def add_space(parser: Parser) -> None:
    """`--space`."""
    parser.add_argument(
        "--space",
        choices=["template", "native"],
        default="template",
        help="template: images on the model's grid in MNI152; native: the difference is carried back and added to the raw scan "
        "that 'ldae cohort preprocess' was given",
    )


def open_scans(options: Namespace, subject: str | None = None, *, noise: bool = True) -> tuple[Any, Any]:
    """The model, and the scans asked for with both codes; without noise codes, which take longest, if they are not needed."""
    from ldae.data.manifest import read_manifest
    from ldae.errors import TaskError
    from ldae.tasks.encode import encode_scans
    from ldae.tasks.native.spaces import check_way_back

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
    if options.get("space") == "native":
        check_way_back(records)
    model = load_model(options)
    with progress_bar("encode") as move:
        scans = encode_scans(model, records, progress=move)
    if not noise:
        return model, scans
    with progress_bar("invert") as move:
        return model, scans.with_noise(model, progress=move)


def run_reconstruct(options: Namespace) -> int:
    """Images and metrics."""
    from ldae.tasks.native.spaces import open_space
    from ldae.tasks.reconstruct import reconstruct, write_reconstructions

    model, scans = open_scans(options)
    space = open_space(options.space, model)

    def write(batch: Any) -> None:
        write_reconstructions(batch, options.out, space, keep_detail=options.keep_detail)

    with progress_bar("reconstruct") as move:
        result = reconstruct(model, scans, seed=options.seed, visit=write, progress=move)
    result.write(options.out)
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
    say(f"{result.scans} images and reconstruct.json in {options.out}")
    return 0


def run_sample(options: Namespace) -> int:
    """One NIfTI an image."""
    from ldae.tasks.native.labels import write_synthetic
    from ldae.tasks.sample import sample
    from ldae.volume import read_volume

    model = load_model(options)
    semantic = None
    if options.like is not None:
        semantic = model.encode_prepared([model.prepare(read_volume(options.like))], noise=False)[0].semantic
    images, fingerprint = sample(model, options.count, seed=options.seed, semantic=semantic), model.fingerprint()
    for index, image in enumerate(images):
        path = options.out / f"sample-{options.seed}-{index:04d}_T1w.nii.gz"
        like = None if options.like is None else str(options.like)
        facts = {"space": "template", "seed": options.seed, "index": index, "like": like, "model": fingerprint}
        write_synthetic(model.config.preprocessing.restore(image), path, "sample", **facts)
    say(f"{options.count} images in {options.out}")
    return 0
