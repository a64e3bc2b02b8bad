"""`ldae discover`: what codes vary by without being asked."""

from typing import Any

from jsonargparse import Namespace

from ldae.cli.arguments import Parser
from ldae.cli.console import progress_bar, say, table
from ldae.cli.images import add_inputs, open_scans

__all__ = ["register"]


def register(commands: Any, runs: dict[tuple[str, ...], Any]) -> None:
    """Add the command."""
    parser = Parser(
        description="Find directions that codes vary by: principal components, directions that change decoded scans most, "
        "features of a sparse autoencoder; each with a strip of images and named only by its correlations with the manifest. "
        "Also nearest scans, test-retest reliability, and scans of two subjects that look like one."
    )
    add_inputs(parser)
    parser.add_argument("--components", type=int, default=8, help="principal components of the codes")
    parser.add_argument("--decoder", type=int, default=4, help="directions of the decoder's Jacobian; 0 for none")
    parser.add_argument("--sparse", type=int, default=64, help="features of a sparse autoencoder; 0 for none")
    parser.add_argument("--neighbours", type=int, default=3, help="nearest scans of each scan")
    commands.add_subcommand("discover", parser, help="directions that codes vary by")
    runs["discover",] = run


def run(options: Namespace) -> int:
    """Find, draw, print."""
    from ldae.report.plots.direction_strip import write_direction_strip
    from ldae.tasks.explore.discover import DirectionStrip, DiscoverSettings, discover

    model, scans = open_scans(options, noise=False)
    settings = DiscoverSettings(
        options.components, options.decoder, options.sparse, neighbours=options.neighbours, seed=options.seed
    )
    with progress_bar("discover") as move:

        def show(strip: DirectionStrip) -> None:
            write_direction_strip(options.out, strip, model.config.preprocessing)

        found = discover(model, scans, options.out, settings, show=show, progress=move)
    table(
        f"directions over {found['scans']} scans of {found['subjects']} subjects",
        ["direction", "strength", "goes with"],
        [
            [f"{kind} {index + 1}", f"{each['strength']:.3f}", each["name"]]
            for kind, of in found["directions"].items()
            for index, each in enumerate(of)
        ],
    )
    components = len(found["directions"]["principal"])
    if components < options.components:
        say(f"note: {found['scans']} scans have {components} principal components, not {options.components}")
    sparse = found["sparse"]
    if sparse is not None:
        say(
            f"sparse autoencoder: {sparse['features']} features, {sparse['dead']} dead, {sparse['active']:.1f} active a scan; "
            f"gives back {sparse['r2']:.0%} of the variance of other scans ({sparse['r2_fitted']:.0%} of its own)"
        )
        training = {record.split == "train" for record in scans.records}
        if len(training) == 1:
            say(
                f"note: that was learnt from {sparse['fitted_scans']} of these scans, half of the people; '--split all' "
                "learns it from the training subjects and asks it of the others"
            )
        if sparse["r2"] <= 0:
            say("note: its features do not hold beyond the scans they were learnt from; make nothing of their strips")
    if found["reliability"] is not None:
        say(f"test-retest reliability over sessions, median over numbers: {found['reliability']['median']:.2f} (ICC)")
    say(f"scans of two subjects nearer than sessions of one: {len(found['lookalikes'])} pairs")
    for pair in found["lookalikes"][:5]:
        say(f"  {pair['key']} and {pair['other']}: {pair['distance']:.2f}")
    say(f"discover.json, directions.npz and a strip for each direction in {options.out}")
    return 0
