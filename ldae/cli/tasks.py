"""`ldae encode`, `reconstruct`, `sample` and `code-usage`: codes of scans, and images of codes."""

import os
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ldae.base.files import atomic_file
from ldae.base.launch import is_rank, started_here
from ldae.base.part import Part
from ldae.cli.command import command
from ldae.cli.console import exit_code, interval, progress_bar, say, say_reasons, table
from ldae.cli.options import (
    Count,
    Folder,
    Model,
    Output,
    PartOf,
    PlacedScans,
    ScanFiles,
    Scans,
    Seed,
    checked_folder,
    open_scans,
)

if TYPE_CHECKING:
    from ldae.autoencoder import LatentDiffusionAutoencoder


@command("encode", launches=True)
def encode(
    scans: ScanFiles,
    model: Model,
    *,
    out: Output,
    noise: bool = False,
    round_trip: bool = False,
    baselines: bool = False,
    slices: bool = False,
    batch_size: Count = 16,
    seed: Seed = 0,
    workers: Count = 1,
    part: PartOf = None,
    devices: Count = 1,
    strict: bool = False,
    force: bool = False,
) -> int:
    """Encode scans to codes.

    Raw heads among image files, or in a BIDS folder, are preprocessed first. Writes OUT/codes.parquet. Exit code 1 if some
    scans could not be encoded. The same command after an interruption goes on.

    Args:
        scans: manifest of preprocessed scans (TSV or CSV), image files, or a BIDS folder.
        model: that encodes.
        out: folder for codes.parquet (and noise.safetensors); or the table's own name, ending in .parquet.
        noise: write the noise codes too.
        round_trip: with --noise, also decode the noise codes again and measure what is lost; takes about as long again.
        baselines: write the features to compare codes with in 'ldae probe': those of an encoder with random weights, of
            components of the scans, of their tissue maps and of their latents, and of tissue in blocks.
        slices: write slices.npz too, a vector a slice, for 'ldae probe --probe attention' (2.5D encoders only).
        batch_size: scans at a time.
        seed: of the random encoder.
        workers: processes that preprocess.
        part: K/N encodes the K-th of N parts of a manifest alone; once all are done, the command without it writes the table.
        devices: GPUs of this machine that each encode a part of a manifest, or processes with --device cpu.
        strict: exit code 2, not 1, if a scan could not be encoded; refuse scans whose header contradicts itself.
        force: encode scans that are no T1-weighted brain in template space too; column forced says which, and why.

    Examples:
        ldae encode head.nii.gz --out codes.parquet
        ldae encode preprocessed/manifest.tsv --model runs/mine/model --out codes --noise --baselines
    """
    from ldae.errors import TaskError
    from ldae.tasks.encode import CODES, check_place, encode_manifest, encode_part, write_slices
    from ldae.tasks.probe.baselines import COMPONENTS, write_baselines

    alone = out.suffix == ".parquet"
    if round_trip and not noise:
        msg = "--round-trip measures noise codes, and none are asked for; add --noise"
        raise TaskError(msg)
    if alone and (noise or baselines or slices):
        msg = f"{out}: holds codes alone; for --noise, --baselines or --slices give a folder"
        raise TaskError(msg)
    if is_rank() and not started_here():
        msg = "encode shares scans by --devices, and by --part on several machines, not by torchrun; start it without"
        raise TaskError(msg)
    if sharing := is_rank():  # the process that started them does what needs all codes
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        number, total = part or Part(1, 1)
        part, baselines, slices = Part(number + total * rank, total * world), False, False
    if part is not None and (baselines or slices or len(scans) > 1 or scans[0].suffix not in (".tsv", ".csv")):
        option = f"--devices {devices}" if sharing else f"--part {part}"
        msg = (
            f"{option}: takes a manifest (TSV or CSV), without --baselines and --slices; add those to the last command"
        )
        raise TaskError(msg)
    with TemporaryDirectory(prefix="ldae-encode-") if alone else nullcontext(checked_folder(out)) as place:
        light = not (noise or baselines)
        opened = open_scans(model, scans, Path(place), workers=workers, semantic_only=light)
        loaded = model.encoder if light else model.loaded
        check_place(out if alone else out / CODES, loaded)
        if slices:
            _ = loaded.slice_encoder  # refuses now, not after an hour of encoding
        records = opened.manifest.records
        how: dict[str, Any] = {"noise": noise, "round_trip": round_trip, "force": force, "batch_size": batch_size}
        cache = out.with_name(f".{out.stem}-encoding") if alone else None
        with progress_bar("encode") as move:
            if part is not None:
                failures = encode_part(loaded, records, Path(place), part, **how, cache=cache, progress=move)
                if sharing:
                    return 0
                say(f"part {part}: once all parts are done, the same command without --part writes the table")
                say_reasons("left out", failures)
                return exit_code(failures, strict=strict)
            result = encode_manifest(loaded, records, Path(place), **how, cache=cache, progress=move)
        if alone:
            with atomic_file(out) as temporary:
                shutil.copyfile(result.codes, temporary)
    codes = out if alone else result.codes
    say(f"codes of {result.encoded} scans: {codes}", codes=codes)
    if result.outside:
        say(
            f"note: {result.outside} of {result.encoded} scans lie outside the model's training domain (column "
            "domain_distance, above 1): look at their reconstructions"
        )
    if result.noise is not None:
        say(f"noise codes ({loaded.config.sampling}): {result.noise}", noise=result.noise)
    if result.worst_round_trip is not None:
        say(
            f"on the way there and back a latent loses {result.worst_round_trip:.1e} of its standard deviation at worst"
        )
    kept = [record for record in records if record.key not in result.failures]
    if slices:
        with progress_bar("slices") as move:
            path = write_slices(loaded, kept, out / "slices.npz", progress=move)
            say(f"slices: {path}", slices=path)
    if baselines:
        with progress_bar("baselines") as move:
            written = write_baselines(loaded, kept, out, seed=seed, progress=move)
        words = [f"{path.stem}={path}{'' if path.suffix == '.parquet' else f'@{COMPONENTS}'}" for path in written]
        say(f"to compare with: --baseline {' '.join(words)}", baselines=written)
    failures = opened.failures | result.failures
    say_reasons("left out", failures)
    say_reasons("encoded all the same", result.forced)
    return exit_code(failures, strict=strict)


@dataclass(frozen=True, kw_only=True)
class ScansOrOne(PlacedScans):
    """Scans to reconstruct.

    Attributes:
        out: folder of the results; or NAME.nii.gz, for one scan, raw or not, or a manifest of one, on its own grid.
    """

    out: Output


@command("reconstruct")
def reconstruct(scans: ScansOrOne, *, keep_detail: bool = False) -> int:
    """Encode scans and decode them again.

    Writes NIfTI images and how well they agree with the scans.

    Args:
        scans: to reconstruct.
        keep_detail: in native space, keep the raw scan's own detail and change it by what the codes miss; without it the
            brain shows the codes' content alone.

    Examples:
        ldae reconstruct head.nii.gz --out reconstruction.nii.gz
        ldae reconstruct preprocessed/manifest.tsv --people test --out reconstructions
    """
    from ldae.tasks.reconstruct import reconstruct, write_reconstructions
    from ldae.volume import SUFFIXES

    if scans.out.name.lower().endswith(SUFFIXES):
        return _reconstruct_one(scans)
    checked_folder(scans.out)
    model, encoded = scans.open()
    place = scans.place(model)

    def write(batch: Any) -> None:
        write_reconstructions(batch, scans.out, place, keep_detail=keep_detail)

    with progress_bar("reconstruct") as move:
        result = reconstruct(model, encoded, seed=scans.seed, visit=write, progress=move)
    result.write(scans.out)
    rows = {
        "both codes": result.both,
        "semantic code alone, noise drawn": result.semantic_only,
        "semantic code alone, expected": result.semantic_mean,
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
    results = scans.out / "reconstruct.json"
    say(f"{result.scans} images and reconstruct.json in {scans.out}", folder=scans.out, results=results)
    return 0


def _reconstruct_one(scans: ScansOrOne) -> int:
    """One scan on its own grid."""
    from ldae.data.manifest import read_manifest
    from ldae.errors import TaskError
    from ldae.tasks.native.labels import write_synthetic

    files = scans.scans
    if len(files) == 1 and files[0].suffix in (".tsv", ".csv"):
        files = [record.image for record in read_manifest(files[0]).records]
    if len(files) != 1:
        msg = f"{scans.out}: takes one scan, got {len(files)}; give a folder for several"
        raise TaskError(msg)
    model = scans.loaded
    codes = model.encode(files[0])
    write_synthetic(model.decode(codes, space="scan"), scans.out, "reconstruction", model=model.fingerprint())
    say(f"reconstruction: {scans.out}", reconstruction=scans.out)
    return 0


@command("sample", launches=True)
def sample(
    model: Model,
    *,
    out: Folder,
    count: Count = 4,
    like: Path | None = None,
    against: Path | None = None,
    seed: Seed = 0,
    batch_size: Count = 16,
    devices: Count = 1,
) -> int:
    """Draw synthetic scans: unconditional, or variations of one scan.

    Args:
        model: that samples.
        out: folder of the images.
        count: number of images.
        like: a preprocessed scan, whose semantic code is kept.
        against: cohort table with a frozen split; says how near unconditional samples come to its test scans.
        seed: of the noise codes.
        batch_size: images at a time.
        devices: GPUs of this machine that share the batches, or processes with --device cpu.

    Examples:
        ldae sample --model runs/mine/model --count 16 --out samples
        ldae sample --like scan.nii.gz --count 4 --out variations
    """
    from ldae.base.ranks import barrier, join, own_part, together
    from ldae.io.bids import TEMPLATE, bids_path, describe_results
    from ldae.tasks.native.labels import write_synthetic
    from ldae.tasks.sample import sample
    from ldae.volume import read_volume

    loaded = model.loaded
    join(loaded.device)
    part, semantic = own_part(), None
    if (busy := -(-count // batch_size)) < part.total:
        fewer = "fewer --devices" if count < part.total else "a smaller --batch-size"
        say(f"note: {busy} of {part.total} devices have something to do; give {fewer}")
    if like is not None:
        semantic = loaded.encode_prepared([loaded.prepare(read_volume(like))], noise=False)[0].semantic
    facts: dict[str, Any] = {
        "space": "template",
        "seed": seed,
        "like": like and str(like),
        "model": loaded.fingerprint(),
    }
    images = sample(loaded, count, seed=seed, semantic=semantic, batch_size=batch_size, part=part)
    for index, image in zip(part.choose_batches(range(count), batch_size), images, strict=True):
        contract = loaded.config.preprocessing
        ending = f"_space-{TEMPLATE}_desc-sample_{contract.modality}.nii.gz"
        path = bids_path(out, f"sub-seed{seed}n{index:04d}", ending)
        write_synthetic(contract.restore(image), path, "sample", index=index, **facts)
    with together():
        barrier()
    if part.number > 1:
        return 0
    describe_results(out)
    say(f"{count} {'image' if count == 1 else 'images'} in {out}", folder=out)
    if against is not None:
        _compare_samples(loaded, against, out, seed)
    return 0


def _compare_samples(model: "LatentDiffusionAutoencoder", manifest: Path, out: Path, seed: int) -> None:
    from ldae.base.files import write_json
    from ldae.data.manifest import read_manifest
    from ldae.tasks.encode import encode_scans
    from ldae.tasks.probe.baselines import SimpleFeatures
    from ldae.tasks.sample import compare_samples

    cohort, simple = read_manifest(manifest), SimpleFeatures(model.config.preprocessing.voxel_size_mm)
    records = [*cohort.in_split("train").records, *cohort.in_split("test").records]
    with progress_bar("encode") as move:
        scans = encode_scans(model, records, visit=[simple.see], progress=move)
    found = compare_samples(model, scans, simple, seed=seed)
    path = write_json(out / "sample.json", found)
    rows = {name: each for name, each in found.items() if isinstance(each, dict)}
    names = list(rows["samples"])
    table(
        f"{found['count']} images of each kind against as many test scans, by mean tissue in blocks of 40 mm",
        ["images", *(name.replace("_", " ") for name in names)],
        [
            [kind.replace("_", " "), *("" if each[name] is None else f"{each[name]:.3f}" for name in names)]
            for kind, each in rows.items()
        ],
    )
    say(f"results: {path}", comparison=path)


@command("code-usage")
def code_usage(scans: Scans) -> int:
    """Measure how much the denoiser uses the semantic code.

    Denoises scans with their own semantic codes, with those of other subjects, and without: what the code explains, and
    whether it has collapsed. Writes OUT/code_usage.json.

    Args:
        scans: to denoise, of two subjects or more.

    Examples:
        ldae code-usage preprocessed/manifest.tsv --model runs/mine/model --out usage
    """
    from ldae.metrics.code_usage import VERDICTS
    from ldae.tasks.code_usage import code_usage

    model, encoded = scans.open(noise=False)
    with progress_bar("code usage") as move:
        result = code_usage(model, encoded, seed=scans.seed, progress=move)
    path = result.write(scans.out)
    use, spread, images = result.use, result.spread, result.images
    levels = zip(result.snr, use.share_by_level, use.shuffled_share_by_level, use.gap_by_level, strict=True)
    table(
        f"share of the denoiser's error that the code explains: {result.scans} scans of {result.subjects} subjects, "
        "95 % intervals over subjects",
        ["signal to noise", "own code", "another subject's", "difference"],
        [
            *([f"{snr:.2g}", *(f"{share.value:.3f}" for share in shares)] for snr, *shares in levels),
            ["mean", *map(interval, (use.share, use.shuffled_share, use.gap))],
        ],
    )
    table(
        f"images of {images.scans} scans from drawn noise, against the real scans",
        ["code", "SSIM", "SSIM in brain", "MSE"],
        [
            [name, f"{v['ssim']:.4f}", f"{v['ssim_brain']:.4f}", f"{v['mse']:.5f}"]
            for name, v in (("own", images.right), ("another subject's", images.shuffled), ("none", images.none))
        ],
    )
    between = "unknown" if spread.between_subjects is None else f"{spread.between_subjects:.3f}"
    say(
        f"codes of {spread.width} numbers: effective rank {spread.effective_rank:.1f}, {spread.components_95} components for "
        f"95 % of the variance, {spread.active_dimensions} active dimensions, share between subjects {between}"
    )
    say(f"{use.verdict}: {VERDICTS[use.verdict]}\nresults: {path}", results=path)
    return 0
