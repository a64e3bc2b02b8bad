"""`ldae cohort`: make, check, preprocess and split cohorts."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ldae.cli.command import command, options_named
from ldae.cli.console import exit_code, notice, progress_bar, say, say_reasons, table
from ldae.cli.options import Count, Folder, Manifest, PartOf, Seed, folder

if TYPE_CHECKING:
    from ldae.head.preprocess import PreprocessConfig
    from ldae.phantom.cohort import PhantomConfig

SCANS_SHOWN = 3


@command(
    "cohort synth",
    settings="ldae.phantom.settings:PhantomConfig",
    skip=("raw", "combine", "population", "head_shape", "scanner", "artefacts"),
    names={"n_subjects": "subjects", "save_displacement": "displacement"},
)
def synth(
    settings: "PhantomConfig",
    *,
    out: Folder,
    raw: bool = False,
    max_rotation: float | None = None,
    max_translation: float | None = None,
    noise_free: bool = False,
    varied: bool = False,
    force: bool = False,
    workers: Count = 2,
) -> int:
    """Generate a phantom cohort with known truth.

    The cohort is longitudinal, in BIDS layout, with a manifest.

    Args:
        settings: of the cohort.
        out: folder of the cohort.
        raw: whole heads in native space, as input of preprocessing.
        max_rotation: with --raw, heads are turned up to so many degrees, 15 if not given.
        max_translation: with --raw, heads are shifted up to so many mm, 20 if not given.
        noise_free: the same scans without noise and motion, to compare predictions with.
        varied: training data for models of real scans, from --anatomy: shapes between label maps and mirrored ones, all
            adult ages, the contrasts and artefacts of many scanners, errors of brain extraction.
        force: replace a phantom cohort of other settings.
        workers: processes; the result does not depend on it.

    Examples:
        ldae cohort synth --out phantoms --subjects 200 --voxel-size 3
    """
    from ldae.errors import CohortError
    from ldae.phantom.cohort import synthesise_cohort
    from ldae.phantom.pose import RawConfig
    from ldae.phantom.scanner import ScannerConfig

    limits = {"max_rotation_deg": max_rotation, "max_translation_mm": max_translation}
    given: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    if given and not raw:
        msg = "--max-rotation and --max-translation move whole heads; add --raw, or leave them out"
        raise CohortError(msg)
    if settings.anatomy is not None:
        say("each label map that is drawn is first registered to the template, which takes a quarter of a minute")
    with options_named({"max_rotation_deg": "--max-rotation", "max_translation_mm": "--max-translation"}):
        heads = RawConfig(**given) if raw else None
    if varied and noise_free:
        msg = "--varied draws the noise of many scanners; leave it out, or leave out --noise-free"
        raise CohortError(msg)
    settings = replace(settings, raw=heads)
    if noise_free:
        settings = replace(settings, scanner=ScannerConfig(noise_sd=0.0, ghost_probability=0.0))
    if varied:
        settings = settings.varied()
    with progress_bar("phantoms") as move:
        made = synthesise_cohort(out, settings, workers=workers, force=force, progress=move)
        say(f"manifest: {made}", manifest=made)
    return 0


@command("cohort check")
def check(
    manifest: Manifest,
    *,
    model: Path | None = None,
    out: Annotated[Path | None, folder] = None,
    anatomy: bool = True,
    fast: bool = False,
    workers: Count = 1,
    strict: bool = False,
) -> int:
    """Check images, table, duplicates and confounds of a cohort.

    Every image, the table, one brain under two names, confounding, and the contract of a model. Exit code 1 if there are
    errors.

    Args:
        manifest: cohort table, TSV or CSV.
        model: model folder whose contract scans should meet.
        out: folder for check.json and check.tsv.
        anatomy: align heads with the template, which takes longest, to compare brains and to test for T1w.
        fast: read the table and the headers of images, and no voxels.
        workers: processes.
        strict: exit code 2 if there are errors or warnings.

    Examples:
        ldae cohort check cohort.tsv --out check
    """
    from ldae.head.findings import Severity, group_findings
    from ldae.prepare.check.cohort import check_cohort
    from ldae.prepare.check.likeness import MIN_SUBJECTS

    with progress_bar("check") as move:
        report = check_cohort(manifest, model=model, anatomy=anatomy, fast=fast, workers=workers, progress=move)
    rows = []
    for group in group_findings(report.findings):
        more = f" and {len(group.scans) - SCANS_SHOWN} more" if len(group.scans) > SCANS_SHOWN else ""
        named = ", ".join(group.scans[:SCANS_SHOWN]) + more
        rows.append([group.severity.word, group.code, named or "the table", group.message, group.remedy])
    if rows:
        table("Findings, the worst first", ["severity", "finding", "scans", "for example", "remedy"], rows)
    times = [values["seconds"] for values in report.measurements.values() if "seconds" in values]
    mean = f", {sum(times) / len(times):.1f} s a scan" if times else ""
    say(f"{len(report.measurements)} scans in {report.seconds:.1f} s{mean} and process")
    if (like := report.likeness) is not None:
        within = "" if like.within_median is None else f", sessions of one subject at {like.within_median:.2f}"
        say(
            f"brains compared: different subjects correlate at {like.between_median:.2f} (at most {like.between_max:.2f})"
            f"{within}; above {like.limit:.2f} two count as one subject"
        )
    elif anatomy and not fast:
        say(
            f"with aligned scans of fewer than {MIN_SUBJECTS} subjects, one brain under two names is found, exchanged sessions "
            "are not"
        )
    if out is not None:
        written = report.write(out)
        say(f"all findings and measurements: {' and '.join(map(str, written))}", findings=written)
    counts = {severity: report.count(severity) for severity in Severity}
    say(", ".join(f"{count} {severity.word}{'' if count == 1 else 's'}" for severity, count in counts.items()))
    return exit_code(counts[Severity.ERROR] or (strict and counts[Severity.WARNING]), strict=strict)


@command(
    "cohort preprocess",
    settings="ldae.head.preprocess:PreprocessConfig",
    skip=("margin_mm", "multiple", "min_correlation"),
)
def preprocess(
    manifest: Manifest,
    settings: "PreprocessConfig",
    *,
    out: Folder,
    brain_mask: str | None = None,
    workers: Count = 1,
    scheduler: str | None = None,
    part: PartOf = None,
    strict: bool = False,
) -> int:
    """Preprocess raw T1w heads to brains in MNI space.

    N4 bias correction, affine registration to MNI152, brain extraction. Exit code 1 if some scans failed.

    Args:
        manifest: cohort table, TSV or CSV.
        settings: of the preprocessing.
        out: folder of the preprocessed cohort.
        brain_mask: masks of the raw scans to use instead of extracting brains: a column of the manifest, or a path with
            {participant_id} and {session_id} in it.
        workers: processes.
        scheduler: address of a Dask scheduler that does the work, such as tcp://host:8786.
        part: K/N preprocesses the K-th of N parts alone; once all are done, the command without it writes the manifest.
        strict: exit code 2 if a scan failed or has a warning.

    Examples:
        ldae cohort preprocess cohort.tsv --out preprocessed --workers 4
    """
    from ldae.data.manifest import read_manifest
    from ldae.prepare.preprocess.cohort import preprocess_manifest
    from ldae.report import write_preprocessing_page

    with progress_bar("preprocess") as move:
        report = preprocess_manifest(
            read_manifest(manifest),
            out,
            settings,
            brain_masks=brain_mask,
            workers=workers,
            scheduler=scheduler,
            part=part,
            progress=move,
        )
    say(f"{len(report.finished)} scans done now, {len(report.skipped)} done before")
    for key, reasons in report.warnings.items():
        say(f"look at {key}: {'; '.join(reasons)}")
    say_reasons("failed", report.failures)
    if report.manifest is None:
        say(f"part {part}: once all parts are done, the same command without --part writes the manifest")
    else:
        page = write_preprocessing_page(report, out / "quality.html")
        say(
            f"manifest: {report.manifest}; look at the pictures, worst first: {page}",
            manifest=report.manifest,
            pictures=page,
        )
    return exit_code(report.failures or (strict and report.warnings), strict=strict)


@command("cohort split")
def split(
    manifest: Manifest,
    *,
    out: Path | None = None,
    train: float = 0.7,
    validation: float = 0.1,
    test: float = 0.2,
    same_person: Path | None = None,
    force: bool = False,
    seed: Seed = 0,
) -> int:
    """Freeze a split by subject.

    The split is stratified by diagnosis and age, and written into the manifest.

    Args:
        manifest: cohort table, TSV or CSV.
        out: where to write; the manifest itself if not given.
        train: fraction of subjects.
        validation: fraction of subjects.
        test: fraction of subjects.
        same_person: table with the columns participant_id and person, of people with several identifiers; each gets the first
            one, and the others are kept in source_participant_id.
        force: replace an existing split.
        seed: of the draw.

    Examples:
        ldae cohort split preprocessed/manifest.tsv
        ldae cohort split few.tsv --train 0.6 --validation 0.2 --test 0.2
    """
    from ldae.data.identity import merge_people, read_same_person, shared_values
    from ldae.data.manifest import read_manifest
    from ldae.data.splits import assign_splits, thin_splits

    # The manifest itself is written again, so no row may be lost.
    cohort = read_manifest(manifest, check_images=False, strict=True)
    if same_person is not None:
        # A new split is drawn, so that the former one need not suit.
        cohort = replace(cohort, table=cohort.table.assign(split=None)) if force else cohort
        cohort = merge_people(cohort, read_same_person(same_person))
    for shared in shared_values(cohort.table):
        notice(str(shared))
    frozen = assign_splits(cohort, fractions=(train, validation, test), seed=seed, overwrite=force)
    path = out or manifest
    frozen.write(path)
    for name in ("train", "validation", "test"):
        part = frozen.in_split(name)
        say(f"{name}: {len(part.subjects)} subjects, {len(part)} scans")
    for thin in thin_splits(frozen):
        notice(f"{thin}; results on it say little: add subjects, or give it a larger share and --force")
    say(f"manifest: {path}", manifest=path)
    return 0
