"""`ldae diagnose`: whether the semantic code is used."""

from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser
from ldae.cli.console import interval, progress_bar, say, table
from ldae.cli.images import add_inputs, open_scans

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    diagnose = Parser(
        description="Denoise scans with their own semantic codes, with those of other people, and without: what the code "
        "explains, and whether it has collapsed. Writes OUT/diagnose.json."
    )
    add_inputs(diagnose)
    commands.add_subcommand("diagnose", diagnose, help="whether the semantic code is used")
    runs["diagnose",] = run_diagnose


def run_diagnose(options: Namespace) -> int:
    """Shares by noise level, spread of the codes, a verdict."""
    from ldae.metrics.code_usage import VERDICTS
    from ldae.tasks.code_usage import code_usage

    model, scans = open_scans(options, noise=False)
    with progress_bar("diagnose") as move:
        result = code_usage(model, scans, seed=options.seed, progress=move)
    path = result.write(options.out)
    use, spread, images = result.use, result.spread, result.images
    levels = zip(result.snr, use.share_by_level, use.shuffled_share_by_level, use.gap_by_level, strict=True)
    table(
        f"share of the denoiser's error that the code explains: {result.scans} scans of {result.subjects} subjects, "
        "95 % intervals over subjects",
        ["signal to noise", "own code", "somebody else's", "difference"],
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
            for name, v in (("own", images.right), ("somebody else's", images.shuffled), ("none", images.none))
        ],
    )
    between = "unknown" if spread.between_subjects is None else f"{spread.between_subjects:.3f}"
    say(
        f"codes of {spread.width} numbers: effective rank {spread.effective_rank:.1f}, {spread.components_95} components for "
        f"95 % of the variance, {spread.active_dimensions} active dimensions, share between subjects {between}"
    )
    say(f"{use.verdict}: {VERDICTS[use.verdict]}\nresults: {path}")
    return 0
