"""`ldae encode` and `ldae probe`: scans to codes, and what codes predict."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_hardware, add_manifest, add_model, add_out, add_seed, load_model
from ldae.cli.console import interval, progress_bar, say, table

__all__ = ["read_baselines", "register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the commands."""
    encode = Parser(description="Encode every scan of a manifest to OUT/codes.parquet.")
    add_model(encode)
    add_manifest(encode)
    add_out(encode, "folder for codes.parquet (and noise.safetensors)")
    encode.add_argument("--noise", action="store_true", help="write the noise codes too")
    encode.add_argument("--batch-size", type=int, default=16, help="scans at a time")
    add_hardware(encode)
    commands.add_subcommand("encode", encode, help="scans to codes")
    runs["encode",] = run_encode

    probe = Parser(
        description="Probe codes: logistic regression for diagnosis, ridge regression for age, by the manifest's frozen split."
    )
    probe.add_argument("--codes", type=Path, required=True, help="table of 'ldae encode' or of any other model")
    add_manifest(probe)
    probe.add_argument("--target", choices=["diagnosis", "age"], required=True, help="what to predict")
    probe.add_argument("--positive", default="AD", help="diagnosis that counts as positive")
    probe.add_argument("--negative", default="CN", help="diagnosis that counts as negative")
    probe.add_argument(
        "--baseline",
        type=str,
        nargs="+",
        default=[],
        help="NAME=TABLE of other embeddings of the same scans, to set beside it",
    )
    add_out(probe, "folder for probe_TARGET.json and the fitted probe")
    add_seed(probe)
    commands.add_subcommand("probe", probe, help="what codes predict, with intervals")
    runs["probe",] = run_probe


def run_encode(options: Namespace) -> int:
    """Encode; exit code 1 if some scans could not be."""
    from ldae.data.manifest import read_manifest
    from ldae.tasks.encode import encode_manifest

    manifest = read_manifest(options.manifest)
    model = load_model(options)
    with progress_bar("encode") as move:
        result = encode_manifest(
            model, manifest.records, options.out, noise=options.noise, batch_size=options.batch_size, progress=move
        )
    say(f"codes of {result.encoded} scans: {result.codes}")
    if result.worst_round_trip is not None:
        say(
            f"noise codes ({model.config.sampling}): {result.noise}; on the way there and back a latent loses "
            f"{result.worst_round_trip:.1e} of its standard deviation at worst"
        )
    for key, reason in result.failures.items():
        say(f"left out {key}: {reason}")
    return 1 if result.failures else 0


def run_probe(options: Namespace) -> int:
    """Fit on training subjects, test on test subjects."""
    from ldae.data.manifest import read_manifest
    from ldae.tasks.encode import read_embeddings
    from ldae.tasks.evaluate_probe import evaluate_age_probe, evaluate_diagnosis_probe

    manifest = read_manifest(options.manifest, check_images=False)
    baselines = read_baselines(options.baseline)
    embeddings = read_embeddings(options.codes)
    if options.target == "diagnosis":
        report = evaluate_diagnosis_probe(
            manifest,
            embeddings,
            baselines,
            positive=options.positive,
            negative=options.negative,
            seed=options.seed,
        )
        names = ["auc", "balanced_accuracy", "sensitivity", "specificity"]
    else:
        report = evaluate_age_probe(manifest, embeddings, baselines, seed=options.seed)
        names = ["mae", "rmse", "r2"]
    rows = {"codes": report.result, **report.baselines}
    table(
        f"{options.target}: {report.result.test_scans} scans of {report.result.test_subjects} test subjects, "
        "95 % intervals over subjects",
        ["embeddings", *names],
        [[key, *(interval(getattr(each, name)) for name in names)] for key, each in rows.items()],
    )
    results, probe = report.write(options.out, options.target)
    say(f"results: {results}\nprobe: {probe}")
    return 0


def read_baselines(items: list[str]) -> dict[str, Any]:
    """Embeddings by name, of NAME=TABLE options."""
    from ldae.errors import TaskError
    from ldae.tasks.encode import read_embeddings

    baselines = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals:
            msg = f"--baseline {item}: expected NAME=TABLE, for example pca=pca.parquet"
            raise TaskError(msg)
        baselines[name] = read_embeddings(Path(path))
    return baselines
