"""`ldae encode`: scans to codes."""

from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_hardware, add_manifest, add_model, add_out, add_seed, load_model
from ldae.cli.console import progress_bar, say

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    encode = Parser(description="Encode every scan of a manifest to OUT/codes.parquet.")
    add_model(encode)
    add_manifest(encode)
    add_out(encode, "folder for codes.parquet (and noise.safetensors)")
    encode.add_argument("--noise", action="store_true", help="write the noise codes too")
    encode.add_argument(
        "--baselines",
        action="store_true",
        help="write what the codes are to be compared with: random_encoder.parquet, latent_pca.npz and, of a symmetric "
        "encoder, latent_pca_symmetric.npz, for 'ldae probe'",
    )
    encode.add_argument(
        "--slices",
        action="store_true",
        help="write slices.npz too, a vector a slice, for 'ldae probe --model attention' (2.5D encoders only)",
    )
    encode.add_argument("--batch-size", type=int, default=16, help="scans at a time")
    add_seed(encode)
    add_hardware(encode)
    commands.add_subcommand("encode", encode, help="scans to codes")
    runs["encode",] = run_encode


def run_encode(options: Namespace) -> int:
    """Encode; exit code 1 if some scans could not be."""
    from ldae.data.manifest import read_manifest
    from ldae.tasks.encode import encode_manifest, write_slices
    from ldae.tasks.probe.baselines import COMPONENTS, write_baselines

    manifest = read_manifest(options.manifest)
    model = load_model(options)
    if options.slices:
        _ = model.slice_encoder  # refuses now, not after an hour of encoding
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
    kept = [record for record in manifest.records if record.key not in result.failures]
    if options.slices:
        with progress_bar("slices") as move:
            say(f"slices: {write_slices(model, kept, options.out / 'slices.npz', progress=move)}")
    if options.baselines:
        with progress_bar("baselines") as move:
            written = write_baselines(model, kept, options.out, seed=options.seed, progress=move)
        words = " ".join(
            f"{path.stem}={path}{'' if path.suffix == '.parquet' else f'@{COMPONENTS}'}" for path in written
        )
        say(f"to compare with: --baseline {words}")
    for key, reason in result.failures.items():
        say(f"left out {key}: {reason}")
    return 1 if result.failures else 0
