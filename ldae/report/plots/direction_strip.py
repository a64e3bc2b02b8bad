"""The picture of one direction in code space: a scan moved along it, and the change since the reconstruction."""

from pathlib import Path

import numpy as np

from ldae.base.files import write_bytes
from ldae.contract import Preprocessing
from ldae.report.plots.slice_panels import PanelRow, Tile, choose_cuts, draw_panel
from ldae.tasks.explore.discover import STEPS, DirectionStrip

__all__ = ["write_direction_strip"]

WHY = {
    "principal": "principal component of the codes",
    "decoder": "direction in which decoded latents change most",
    "sparse": "feature of the sparse autoencoder",
}


def write_direction_strip(folder: Path, strip: DirectionStrip, contract: Preprocessing) -> Path:
    """Draw a strip as KIND-NN.png in a folder, and return the file."""
    images, zero = strip.images, STEPS.index(0.0)
    changes = [image - images[zero] for image in images]
    cuts = choose_cuts(
        images.shape[1:], ("axial", "coronal"), voxel_size_mm=contract.voxel_size_mm, centre_mm=contract.centre_mm
    )
    rows = [PanelRow(cut, [Tile(image, "synthetic") for image in images]) for cut in cuts]
    rows += [
        PanelRow(
            cut.of_change,
            [None if i == zero else Tile(each, "difference", outline=images[zero]) for i, each in enumerate(changes)],
        )
        for cut in cuts
    ]
    limit = max(0.02, float(np.percentile(np.abs(changes), 99.5)))
    headers = [f"{amount:+g} SD".replace("-", "\N{MINUS SIGN}") if amount else "reconstruction" for amount in STEPS]
    label = f"{WHY[strip.kind]}; goes with: {strip.name}; coloured: change since the reconstruction"
    path = folder / f"{strip.kind}-{strip.index + 1:02d}.png"
    write_bytes(path, draw_panel(rows, headers, limit=limit, limit_label=label))
    return path
