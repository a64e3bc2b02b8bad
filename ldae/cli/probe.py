"""`ldae discover`, `probe`, `predict` and `forecast`: what codes vary by, and what they predict, whichever model made them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from ldae.cli.command import command
from ldae.cli.console import exit_code, interval, p_value, progress_bar, say, say_reasons, table
from ldae.cli.options import Count, Folder, Input, Model, Output, ScanFiles, Scans, open_scans

if TYPE_CHECKING:
    from ldae.tasks.explore.discover import DiscoverSettings
    from ldae.tasks.probe.embeddings import Embeddings
    from ldae.tasks.probe.result import ProbeReport, ProbeSettings

CONVERSION = "conversion"
NAMES_SHOWN = 12


@command(
    "discover",
    settings="ldae.tasks.explore.discover:DiscoverSettings",
    names={"principal": "components"},
    skip=("shown", "seed"),
)
def discover(scans: Scans, settings: "DiscoverSettings") -> int:
    """Find directions that codes vary by, without labels.

    Principal components, directions that change decoded scans most, features of a sparse autoencoder; each with a strip of
    images and its correlations with the manifest's columns. Also nearest scans, test-retest reliability, and scans of two
    subjects that look like one.

    Args:
        scans: whose codes are explored.
        settings: of what is looked for.

    Examples:
        ldae discover preprocessed/manifest.tsv --model runs/mine/model --out directions
    """
    from dataclasses import replace
    from statistics import median

    from ldae.report.plots.direction_strip import write_direction_strip
    from ldae.tasks.explore.discover import DirectionStrip, discover

    model, encoded = scans.open(noise=False)

    def show(strip: DirectionStrip) -> None:
        write_direction_strip(scans.out, strip, model.config.preprocessing)

    with progress_bar("discover") as move:
        settings = replace(settings, seed=scans.seed)
        found = discover(model, encoded, scans.out, settings, show=show, progress=move)
    table(
        f"directions over {found.scans} scans of {found.subjects} subjects",
        ["direction", "strength", "goes with"],
        [
            [f"{kind} {index + 1}", f"{each.strength:.3f}", each.name]
            for kind, of in found.directions.items()
            for index, each in enumerate(of)
        ],
    )
    components = len(found.directions["principal"])
    if components < settings.principal:
        say(f"note: {found.scans} scans have {components} principal components, not {settings.principal}")
    if (sparse := found.sparse) is not None:
        say(
            f"sparse autoencoder: {sparse.features} features, {sparse.dead} dead, {sparse.active:.1f} active a scan; "
            f"explains {sparse.r2:.0%} of the variance of other scans ({sparse.r2_trained:.0%} of its own)"
        )
        if len({record.split == "train" for record in encoded.records}) == 1:
            say(
                f"note: it was trained on {sparse.trained_scans} of these scans, half of the subjects; '--people all' "
                "trains it on the training subjects and tests it on the others"
            )
        if sparse.r2 <= 0:
            say("note: its features do not hold beyond the scans they were trained on; make nothing of their strips")
    if found.reliability is not None:
        say(f"test-retest reliability over sessions, median over numbers: {median(found.reliability):.2f} (ICC)")
    if found.left_out:
        say(f"columns not compared with, since they name people: {', '.join(found.left_out)}")
    say(f"scans of two subjects nearer than sessions of one: {len(found.lookalikes)} pairs")
    for pair in found.lookalikes[:5]:
        say(f"  {pair.key} and {pair.other}: {pair.distance:.2f}")
    say(f"discover.json, directions.npz and a strip for each direction in {scans.out}", folder=scans.out)
    return 0


@command("probe", settings="ldae.tasks.probe.result:ProbeSettings", names={"model": "probe"})
def probe(
    codes: Input,
    settings: "ProbeSettings",
    *,
    manifest: Path,
    target: str,
    out: Folder,
    task: Literal["auto", "binary", "multiclass", "regression"] = "auto",
    positive: str | None = None,
    negative: str | None = None,
    baseline: list[str] | None = None,
    volumes: list[str] | None = None,
    people: Literal["all", "test"] = "all",
    external: tuple[Path, Path] | None = None,
) -> int:
    """Measure what codes predict, with intervals.

    Probes embeddings of scans, whichever model made them: classes, numbers or time to conversion, beside baselines, on the
    same folds, with intervals over subjects. Writes a report, every value and every prediction.

    Args:
        codes: embeddings, .parquet, .csv, .tsv or .npz.
        settings: of the evaluation.
        manifest: cohort table, TSV or CSV.
        target: column of the manifest to predict, or 'conversion': months from MCI to AD, or from --negative to --positive,
            whose files are named probe_MCI_to_AD.
        out: folder for report.html, probe_TARGET.json, probe_TARGET.csv and the fitted probe.
        task: kind of the target; auto takes text, and whole numbers with at most ten different values, as classes.
        positive: class that counts as positive; AD for a diagnosis.
        negative: class that counts as negative; CN for a diagnosis.
        baseline: NAME=TABLE of other embeddings of the same scans; NAME=TABLE@100 reduces them to 100 principal components.
        volumes: columns of the manifest that are a baseline of image volumes.
        people: subjects to cross-validate over.
        external: CODES and MANIFEST of another cohort: the probe is trained on all of this one and tested on all of that.

    Examples:
        ldae probe codes/codes.parquet --manifest cohort.tsv --target age --out probes
        ldae probe mine.csv --manifest cohort.tsv --target diagnosis --out probes --baseline theirs=theirs.csv
    """
    from ldae.base.files import sha256_of
    from ldae.data.manifest import read_manifest
    from ldae.data.splits import external_split
    from ldae.errors import TaskError
    from ldae.report import write_probe_report
    from ldae.tasks.probe.confounds import encode_columns
    from ldae.tasks.probe.embeddings import embeddings_of, joined, read_embeddings, read_named
    from ldae.tasks.probe.evaluate import evaluate_probe
    from ldae.tasks.probe.targets import choose_target, find_conversions

    cohort = read_manifest(manifest, images=False)
    held = [str(name) for name in cohort.table.columns]
    if codes.resolve() == manifest.resolve():
        # One table for both: the columns of this evaluation are no features; the rest is listed below.
        held = [target, *(volumes or []), *settings.confounds, *settings.by]
    features = read_embeddings(codes, held)
    others = read_named(baseline or [], held)
    if external is not None:
        if others or settings.protocol == "cv":
            msg = "--external trains on one cohort and tests on the other; leave out --protocol cv and --baseline"
            raise TaskError(msg)
        cohort = external_split(cohort, read_manifest(external[1], images=False))
        features = joined(features, read_embeddings(external[0], held))
    if settings.protocol == "cv" and people == "test":
        cohort = cohort.in_split("test")
    if target == CONVERSION:
        wanted = find_conversions(cohort, before=negative or "MCI", after=positive or "AD")
    else:
        wanted = choose_target(cohort, target, kind=task, positive=positive, negative=negative)
    if volumes:
        others["volumes"] = embeddings_of(wanted.records, encode_columns(wanted.records, volumes))
    with progress_bar("probe") as move:
        report = evaluate_probe(wanted, features, others, settings, progress=move)
    outside = f"{features.outside} of {len(features.values)} scans" if features.outside else ""
    listed = {
        "features": ", ".join(features.names),
        "left_out": ", ".join(features.left_out),
        "outside the model's training domain": outside,
    }
    inputs = {
        "codes": str(codes),
        **{name: each for name, each in listed.items() if each},
        "manifest": str(manifest),
        "codes_sha256": sha256_of(codes),
        **({} if external is None else {"external": " ".join(map(str, external))}),
        **{f"baseline {name}": path for name, _, path in (item.partition("=") for item in baseline or [])},
    }
    written = report.write(out, inputs)
    show(report)
    say(described(features, codes))
    if outside:
        say(
            f"note: {outside} lie outside the training domain of the model that encoded them; results may not hold for them"
        )
    page = write_probe_report(out)
    if settings.protocol == "cv" and people == "all" and cohort.table["split"].notna().any():
        say(
            "note: subjects of the training split are among those tested on; if the embeddings' model was trained on them, "
            "give --people test"
        )
    for name, path in {"report": page, "results": written[0], "predictions": written[1]}.items():
        say(f"{name}: {path}", **{name: path})
    for path in written[2:]:
        say(f"probe: {path}", probe=path)
    return 0


def show(report: "ProbeReport") -> None:
    """Print the metrics of every kind of features, and the differences."""
    from ldae.report.wording import target_name

    counts = report.counts
    names = list(next(iter(report.scored.values())).metrics)[:4]
    table(
        f"{target_name(report.target)}: tested on {counts['tested_scans']} scans of {counts['tested_subjects']} subjects, "
        "95 % intervals over subjects",
        ["features", *(name.replace("_", " ") for name in names)],
        [[name, *(interval(each.metrics[key]) for key in names)] for name, each in report.scored.items()],
    )
    if report.comparisons:
        table(
            f"codes minus the others, {report.primary}",
            ["against", "difference", "p (Holm)"],
            [[each.against, interval(each.difference), p_value(each.p_holm)] for each in report.comparisons],
        )
    if report.permutation_p is not None:
        p = p_value(report.permutation_p)
        say(f"permutation test of the labels: p {p if p.startswith('<') else f'= {p}'}")


def described(codes: "Embeddings", path: Path) -> str:
    """Number and names of the features, and the columns that were not taken."""
    width = codes.values.shape[-1]
    shown = codes.names if width <= NAMES_SHOWN else (*codes.names[:6], "...", *codes.names[-2:])
    listed = f" ({', '.join(shown)})" if shown else ""
    words = f"{path.name}: {width} feature{'' if width == 1 else 's'}{listed}"
    if not codes.left_out:
        return words
    left = ", ".join(codes.left_out)
    return f"{words}; not taken as features (the manifest holds them, they name people, or they are no numbers): {left}"


@command("predict")
def predict(
    probe: Input,
    scans: ScanFiles,
    model: Model,
    *,
    out: Output,
    workers: Count = 1,
    strict: bool = False,
) -> int:
    """Predict with a saved probe on new scans.

    Raw heads are preprocessed, and codes computed on the way. Writes one row a scan: the probability of the positive class, or
    the number, and how far the scan's code lies from those that the probe was trained on. Exit code 1 if some scans could not
    be encoded.

    Args:
        probe: probe_TARGET_model.json, which 'ldae probe' writes.
        scans: codes.parquet of 'ldae encode'; or a manifest of preprocessed scans, image files, or a BIDS folder.
        model: that the probe was trained on.
        out: table, .csv or .tsv.
        workers: processes that preprocess.
        strict: exit code 2, not 1, if a scan could not be encoded.

    Examples:
        ldae predict probes/probe_age_model.json heads/*.nii.gz --out predictions.csv
    """
    from ldae.codes import check_origin
    from ldae.errors import TaskError
    from ldae.tasks.encode import encode_scans
    from ldae.tasks.probe.embeddings import embeddings_of, read_embeddings
    from ldae.tasks.probe.linear import LinearProbe, predict, write_predictions

    if out.suffix not in (".csv", ".tsv"):
        msg = f"{out}: predictions are written as .csv or .tsv; change the name"
        raise TaskError(msg)
    saved = LinearProbe.load(probe)
    failures: dict[str, str] = {}
    if [each.suffix for each in scans] == [".parquet"]:
        codes = read_embeddings(scans[0])
    else:
        loaded = model.encoder
        check_origin(str(probe), saved.origin, loaded.origin)
        with TemporaryDirectory(prefix="ldae-predict-") as place:
            opened = open_scans(model, scans, Path(place), workers=workers, semantic_only=True)
            failures |= opened.failures
            with progress_bar("encode") as move:
                encoded = encode_scans(loaded, opened.manifest.records, failures=failures, progress=move)
        codes = embeddings_of(encoded.records, encoded.semantic, loaded.origin)
    found = predict(saved, codes.keys, codes.values, codes.origin)
    for key in write_predictions(out, found):
        say(f"look at {key}: its code is unlike those that the probe was trained on")
    say_reasons("left out", failures)
    say(f"predictions of {len(found)} scans: {out}", predictions=out)
    return exit_code(failures, strict=strict)


@command("forecast")
def forecast(
    codes: Input,
    *,
    manifest: Path,
    target: str,
    out: Folder,
    stage: str = "diagnosis",
    stage_from: Literal["code", "record"] = "code",
    months: tuple[float, ...] = (12.0, 24.0, 36.0),
    resamples: Count = 2000,
    seed: int = 0,
) -> int:
    """Forecast a measured value at later months, with intervals.

    A subject's values so far lie on a line. Where visits are few its slope is drawn toward the mean slope of subjects of the
    same stage. A linear probe of the code tells the stage, or the cohort's table does. Training subjects teach the probe and the
    slopes; of each test subject the later visits are forecast from the earlier ones and compared with simpler forecasts.

    Args:
        codes: embeddings, .parquet, .csv, .tsv or .npz.
        manifest: cohort table with months, splits, the stage, and the target at the visits so far.
        target: column of numbers to forecast, such as a volume.
        out: folder for forecast_TARGET.csv (all subjects, with 90 % prediction intervals), forecast_TARGET_cases.csv and
            forecast_TARGET.json (the test).
        stage: column that tells how fast subjects change; a diagnosis (AD against CN), another one of two classes, or numbers.
        stage_from: code, for subjects without a diagnosis; or record, which is better where it is known.
        months: months after a subject's last visit.
        resamples: of the bootstrap.
        seed: of the resamples.

    Examples:
        ldae forecast codes/codes.parquet --manifest cohort.tsv --target ventricles_ml --out forecast
    """
    from ldae.data.manifest import read_manifest
    from ldae.tasks.longitudinal.forecast import forecast
    from ldae.tasks.probe.embeddings import read_embeddings

    cohort = read_manifest(manifest, images=False)
    features = read_embeddings(codes, [str(name) for name in cohort.table.columns])
    result = forecast(
        features, cohort, target, stage=stage, stage_from=stage_from, ahead=months, resamples=resamples, seed=seed
    )
    written = result.write(out)
    plain = result.plain()
    table(
        f"{target}: {plain['cases']} forecasts for {plain['subjects']} test subjects, 95 % intervals over subjects",
        ["forecast", "mean absolute error", "own minus it", "p (Holm)"],
        [
            [name, interval(error)]
            + (
                ["", ""]
                if name == result.own
                else [interval(result.differences[name]), p_value(plain["differences"][name]["p_holm"])]
            )
            for name, error in result.errors.items()
        ],
    )
    say(f"90 % prediction intervals hold {interval(result.coverage)} of the values")
    for name, path in zip(("forecasts", "cases", "results"), written, strict=True):
        say(f"{name}: {path}", **{name: path})
    return 0
