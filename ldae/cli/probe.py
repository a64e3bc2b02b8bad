"""`ldae probe`: what embeddings of scans predict, whichever model made them."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_manifest, add_out, add_seed
from ldae.cli.console import interval, p_value, progress_bar, say, table

if TYPE_CHECKING:
    from ldae.tasks.probe.embeddings import Embeddings
    from ldae.tasks.probe.result import ProbeReport

__all__ = ["read_named", "register"]

CONVERSION = "conversion"


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    probe = Parser(
        description="Probe embeddings of scans, whichever model made them: classes, numbers or time to conversion, beside "
        "baselines, on the same folds, with intervals over subjects. Leaves a report, every figure and every prediction."
    )
    probe.add_argument("--codes", type=Path, required=True, help="embeddings: .parquet, .csv, .tsv or .npz")
    add_manifest(probe)
    probe.add_argument(
        "--target",
        type=str,
        required=True,
        help=f"column of the manifest to predict, or '{CONVERSION}': months from MCI to AD, or from --negative to --positive, "
        "whose files are named probe_MCI_to_AD",
    )
    probe.add_argument(
        "--task",
        choices=["auto", "binary", "multiclass", "regression"],
        default="auto",
        help="what the column is read as",
    )
    probe.add_argument("--positive", type=str, default=None, help="class that counts as positive; AD for a diagnosis")
    probe.add_argument("--negative", type=str, default=None, help="class that counts as negative; CN for a diagnosis")
    probe.add_argument(
        "--baseline",
        type=str,
        nargs="+",
        default=[],
        help="NAME=TABLE of other embeddings of the same scans; NAME=TABLE@100 reduces them to 100 principal components",
    )
    probe.add_argument(
        "--volumes",
        type=str,
        nargs="+",
        default=[],
        help="columns of the manifest that are a baseline of image volumes",
    )
    probe.add_argument(
        "--protocol", choices=["split", "cv"], default="split", help="the manifest's split, or cross-validation"
    )
    probe.add_argument("--folds", type=int, default=5, help="of the cross-validation")
    probe.add_argument("--repeats", type=int, default=5, help="of the cross-validation")
    probe.add_argument("--subjects", choices=["all", "test"], default="all", help="whom to cross-validate over")
    probe.add_argument("--scans", choices=["all", "first"], default="all", help="of each subject")
    probe.add_argument(
        "--model",
        choices=["linear", "knn", "attention"],
        default="linear",
        help="the probe; attention pools the tokens (slices, patches) of NPZ embeddings",
    )
    probe.add_argument("--confounds", type=str, nargs="+", default=[], help="columns to control for")
    probe.add_argument(
        "--control",
        choices=["none", "residualise", "match"],
        default="none",
        help="take confounds out of the features, or match the classes on them",
    )
    probe.add_argument(
        "--by", type=str, nargs="+", default=["sex", "site"], help="columns whose values are scored apart"
    )
    probe.add_argument("--learning-curve", action="store_true", help="ask how many labelled subjects are needed")
    probe.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    probe.add_argument("--permutations", type=int, default=1000, help="of the labels; 0 for none")
    add_out(probe, "folder for report.html, probe_TARGET.json, probe_TARGET.csv and the fitted probe")
    add_seed(probe)
    commands.add_subcommand("probe", probe, help="what codes predict, with intervals")
    runs["probe",] = run_probe


def run_probe(options: Namespace) -> int:
    """Fit, ask, compare, report."""
    from ldae.data.manifest import read_manifest
    from ldae.io.files import sha256_of
    from ldae.report import write_probe_report
    from ldae.tasks.probe.confounds import encode_columns
    from ldae.tasks.probe.embeddings import embeddings_of, read_embeddings
    from ldae.tasks.probe.evaluate import evaluate_probe
    from ldae.tasks.probe.result import ProbeSettings
    from ldae.tasks.probe.survival import evaluate_conversion
    from ldae.tasks.probe.targets import choose_target, find_conversions

    manifest = read_manifest(options.manifest, images=False)
    held = [str(name) for name in manifest.table.columns]
    if options.codes.resolve() == options.manifest.resolve():
        # One table for both: what is asked, controlled for or compared with is no feature; the rest is said below.
        held = [options.target, *options.volumes, *options.confounds, *options.by]
    codes = read_embeddings(options.codes, held)
    others = read_named(options.baseline, held)
    settings = ProbeSettings(
        protocol=options.protocol,
        folds=options.folds,
        repeats=options.repeats,
        scans=options.scans,
        model=options.model,
        confounds=tuple(options.confounds),
        control=options.control,
        by=tuple(options.by),
        learning_curve=options.learning_curve,
        resamples=options.resamples,
        permutations=options.permutations,
        seed=options.seed,
    )
    if options.protocol == "cv" and options.subjects == "test":
        manifest = manifest.in_split("test")
    if options.target == CONVERSION:
        target = find_conversions(manifest, before=options.negative or "MCI", after=options.positive or "AD")
    else:
        target = choose_target(
            manifest, options.target, kind=options.task, positive=options.positive, negative=options.negative
        )
    if options.volumes:
        others["volumes"] = embeddings_of(target.records, encode_columns(target.records, options.volumes))
    with progress_bar("probe") as move:
        evaluate = evaluate_conversion if target.kind == "survival" else evaluate_probe
        report = evaluate(target, codes, others, settings, progress=move)
    features = {"features": ", ".join(codes.names), "left_out": ", ".join(codes.left_out)}
    inputs = {
        "codes": str(options.codes),
        **{name: each for name, each in features.items() if each},
        "manifest": str(options.manifest),
        "codes_sha256": sha256_of(options.codes),
    }
    paths = report.write(
        options.out,
        inputs | {f"baseline {item.partition('=')[0]}": item.partition("=")[2] for item in options.baseline},
    )
    show(report)
    say(described(codes, options.codes))
    page = write_probe_report(options.out)
    if settings.protocol == "cv" and options.subjects == "all" and manifest.table["split"].notna().any():
        say(
            "note: people of the training split are among those asked; if the embeddings' model was trained on them, say "
            "--subjects test"
        )
    say("\n".join([f"report: {page}", f"figures: {paths[0]}", f"predictions: {paths[1]}"]))
    for path in paths[2:]:
        say(f"probe: {path}")
    return 0


def show(report: "ProbeReport") -> None:
    """The figures of every kind of features, and the differences."""
    from ldae.report.wording import asked_for

    counts = report.counts
    names = list(next(iter(report.scored.values())).figures)[:4]
    table(
        f"{asked_for(report.target)}: {counts['asked_scans']} scans of {counts['asked_subjects']} people asked, "
        "95 % intervals over people",
        ["features", *(name.replace("_", " ") for name in names)],
        [[name, *(interval(each.figures[key]) for key in names)] for name, each in report.scored.items()],
    )
    if report.comparisons:
        table(
            f"codes minus the others, {report.primary}",
            ["against", "difference", "p (Holm)"],
            [[each.against, interval(each.difference), p_value(each.p_holm)] for each in report.comparisons],
        )
    if report.permutation_p is not None:
        p = p_value(report.permutation_p)
        say(f"exchanged labels do as well with p {p if p.startswith('<') else f'= {p}'}")


def described(codes: "Embeddings", path: Path) -> str:
    """How many features there are, which, and which columns were not taken."""
    width = codes.values.shape[-1]
    shown = codes.names if width <= 12 else (*codes.names[:6], "...", *codes.names[-2:])
    listed = f" ({', '.join(shown)})" if shown else ""
    words = f"{path.name}: {width} feature{'' if width == 1 else 's'}{listed}"
    if not codes.left_out:
        return words
    return f"{words}; not taken as features, since the manifest holds them: {', '.join(codes.left_out)}"


def read_named(items: list[str], manifest: Collection[str] = ()) -> dict[str, "Embeddings"]:
    """Embeddings by name, of NAME=TABLE options, and NAME=TABLE@COMPONENTS.

    Args:
        items: the options.
        manifest: columns that are no features.

    Raises:
        TaskError: for an option of another form, or a name that is taken.
    """
    from dataclasses import replace

    from ldae.errors import TaskError
    from ldae.tasks.probe.embeddings import read_embeddings
    from ldae.tasks.probe.result import CODES, MEDIAN

    found: dict[str, Embeddings] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or not name or name in (CODES, MEDIAN) or name in found:
            msg = f"--baseline {item}: expected NAME=TABLE with a new name, for example pca=pca.parquet"
            raise TaskError(msg)
        table_path, at, width = path.rpartition("@")
        if at and width.isdigit() and int(width) > 0:
            found[name] = replace(read_embeddings(Path(table_path), manifest), components=int(width))
        else:
            found[name] = read_embeddings(Path(path), manifest)
    return found
