"""Images of one grid beside each other, for a notebook or a file."""

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from ldae.errors import VolumeError
from ldae.report.plots.slice_panels import PanelRow, Tile, choose_cuts, draw_panel, symmetric_limit
from ldae.volume import Volume

__all__ = ["show_slices"]

BRIGHTEST = 1.5
"""Decoded images may be a little above 1."""


def show_slices(
    images: Mapping[str, Volume | npt.NDArray[np.floating]],
    *,
    originals: Collection[str] = (),
    changes: Sequence[tuple[str, str]] = (),
) -> Image.Image:
    """Sections of images beside each other, the patient's right on the left, and coloured differences of some.

    Args:
        images: by name, on the model's grid, (D, H, W) in [0, 1], to the right, anterior and superior.
        originals: names of images that no model made; all others are marked SYNTHETIC.
        changes: pairs of names; the first minus the second is shown too.

    Raises:
        VolumeError: for images of several shapes, or beyond [0, 1], such as those of `decode(space="scan")`.
    """
    data = {name: each.data if isinstance(each, Volume) else each for name, each in images.items()}
    shapes, brightest = {each.shape for each in data.values()}, max(float(each.max()) for each in data.values())
    if len(shapes) > 1 or brightest > BRIGHTEST:
        msg = (
            f"show_slices draws images of one grid with intensities from 0 to 1, got {' and '.join(map(str, shapes))} up to "
            f"{brightest:.4g}; give model.prepare(scan).data and model.decode(codes), without space='scan'"
        )
        raise VolumeError(msg)
    found = [data[one] - data[other] for one, other in changes]
    tiles = [Tile(each, "original" if name in originals else "synthetic") for name, each in data.items()]
    tiles += [Tile(each, "difference", data[other]) for each, (_, other) in zip(found, changes, strict=True)]
    rows = [PanelRow(cut, tiles) for cut in choose_cuts(tiles[0].volume.shape, ("axial", "coronal"))]
    headers = [*data, *(f"{one}\nminus {other}" for one, other in changes)]
    label = "difference of intensities, of a range of 1: red is brighter, blue is darker"
    limit = symmetric_limit(found) if found else None
    return Image.open(BytesIO(draw_panel(rows, headers, limit=limit, limit_label=label)))
