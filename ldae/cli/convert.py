"""`ldae convert`: weights that others published to files that this package reads."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser, add_out
from ldae.cli.console import progress_bar, say, table

__all__ = ["register"]

FORMATS = "a Lightning checkpoint, a bare state dict or safetensors"


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command group."""
    group = Parser(
        description="Turn published weights into files of this package. Every tensor is accounted for; no pickled code is run."
    )
    commands.add_subcommand("convert", group, help="read weights that others published")
    kinds = group.add_subcommands(required=True, dest="subcommand")

    official = Parser(
        description="Turn the published checkpoints of the method into a model folder that every command takes as --model. "
        f"Each file is {FORMATS}; of averaged (ema_) and plain weights the averaged are taken. Sizes are read from the tensors. "
        "The options below are what no tensor tells; their defaults are the published values."
    )
    official.add_argument("--decoder", type=Path, required=True, help="file of the denoiser and gradient estimator")
    official.add_argument("--encoder", type=Path, required=True, help="file of the semantic encoder, or the same file")
    official.add_argument("--autoencoder", type=Path, required=True, help="file of the compression autoencoder")
    add_out(official, "model folder to write; must not exist yet")
    official.add_argument(
        "--shape", type=int, nargs=3, default=[128, 160, 128], help="voxels of a scan along right, anterior, superior"
    )
    official.add_argument("--voxel-size", type=float, default=1.5, help="edge of a voxel in mm")
    official.add_argument(
        "--latent-scale", type=float, default=0.873, help="factor that raw latents are multiplied with"
    )
    official.add_argument("--heads", type=int, default=1, help="attention heads of the denoiser")
    official.add_argument("--encoder-heads", type=int, default=8, help="attention heads of the semantic encoder")
    official.add_argument(
        "--stride", type=int, nargs=3, default=[1, 2, 2], help="downsampling of the denoiser along each latent axis"
    )
    official.add_argument("--groups", type=int, default=32, help="groups of the autoencoder's norms")
    official.add_argument("--steps", type=int, default=20, help="sampling steps that the model folder asks for")
    _add_ignore(official)
    kinds.add_subcommand("official", official, help="published checkpoints to a model folder")
    runs["convert", "official"] = convert_official

    autoencoder = Parser(
        description="Turn AutoencoderKL weights of MONAI, of MONAI GenerativeModels or of a bundle of the MONAI model zoo (the "
        "brain LDM's autoencoder, say) into weights.safetensors and config.json of a compression stage. "
        f"The file is {FORMATS}. Sizes are read from the tensors."
    )
    autoencoder.add_argument("--weights", type=Path, required=True, help="file of the weights")
    add_out(autoencoder, "folder to write; must not exist yet")
    autoencoder.add_argument("--groups", type=int, default=32, help="groups of its norms, which no tensor tells")
    autoencoder.add_argument(
        "--latent-scale",
        type=float,
        default=1.0,
        help="factor that brings its latents to unit variance, if it is known",
    )
    _add_ignore(autoencoder)
    kinds.add_subcommand("autoencoder", autoencoder, help="AutoencoderKL weights to a compression stage")
    runs["convert", "autoencoder"] = convert_autoencoder


def _add_ignore(parser: Parser) -> None:
    parser.add_argument(
        "--ignore",
        type=str,
        nargs="+",
        default=[],
        help="beginnings of tensor names that you know are not needed; they are recorded as left out",
    )


def convert_official(options: Namespace) -> int:
    """Three files to a model folder."""
    from ldae.tasks.conversion import unused_folder
    from ldae.tasks.convert import OfficialContract, plan_official

    unused_folder(options.out)
    contract = OfficialContract(
        heads=options.heads,
        encoder_heads=options.encoder_heads,
        stride=tuple(options.stride),
        groups=options.groups,
        shape=tuple(options.shape),
        voxel_size_mm=options.voxel_size,
        latent_scale=options.latent_scale,
        steps=options.steps,
    )
    plan = plan_official(options.decoder, options.encoder, options.autoencoder, contract, ignore=options.ignore)
    _write(plan, options.out)
    for name, fact in plan.facts.items():
        say(f"{name}: {fact}")
    say(f"model: {options.out}")
    return 0


def convert_autoencoder(options: Namespace) -> int:
    """One file to the weights of a compression stage."""
    from ldae.io.plain import to_plain
    from ldae.tasks.conversion import unused_folder
    from ldae.tasks.convert import plan_autoencoder

    unused_folder(options.out)
    plan = plan_autoencoder(
        options.weights, groups=options.groups, latent_scale=options.latent_scale, ignore=options.ignore
    )
    _write(plan, options.out)
    say("architecture: " + ", ".join(f"{name} {value}" for name, value in to_plain(plan.config).items()))
    say(f"weights: {options.out / 'weights.safetensors'}")
    return 0


def _write(plan: Any, out: Path) -> None:
    with progress_bar("write") as move:
        plan.write(out, move)
    table(
        "tensors",
        ["file", "used", "equal copies", "recomputed", "left out"],
        [
            [
                account.file.path.name,
                str(len(account.sources)),
                str(len(account.equal)),
                str(len(account.recomputed)),
                ", ".join(f"{len(names)} {reason}" for reason, names in account.left_out.items()) or "0",
            ]
            for account in plan.accounts.values()
        ],
    )
    for account in plan.accounts.values():
        for kind, count in account.widened.items():
            say(f"{account.file.path.name}: {count} tensors widened from {kind} to float32")
