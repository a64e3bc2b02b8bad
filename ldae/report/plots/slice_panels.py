"""Slice panels: sections of volumes side by side, labelled as a radiologist expects, as PNG.

Volumes are in RAS order: axis 0 increases to the patient's right, axis 1 to the front, axis 2 upward. Sections follow
the radiological convention: the patient's right is on the left of axial and coronal sections, front is up in axial
ones, the top of the head is up in coronal and sagittal ones, and in sagittal ones the face is on the left.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Cut",
    "PanelRow",
    "Tile",
    "choose_cuts",
    "difference",
    "draw_panel",
    "radiological_section",
    "symmetric_limit",
]

Array = npt.NDArray[np.floating]
Plane = Literal["axial", "coronal", "sagittal"]
Box = tuple[slice, slice, slice]
TileKind = Literal["original", "synthetic", "difference"]

# For each plane: the axis it cuts, and what stands at the left and right edge of its section.
PLANES: dict[Plane, tuple[int, str, str]] = {
    "axial": (2, "R", "L"),
    "coronal": (1, "R", "L"),
    "sagittal": (0, "A", "P"),
}
# Where each plane cuts, as a fraction of its axis: through the bodies of the ventricles, the hippocampi, the midline.
FRACTIONS: dict[Plane, float] = {"axial": 0.56, "coronal": 0.5, "sagittal": 0.5}
STRIPS: dict[TileKind, tuple[str, str]] = {
    "original": ("ORIGINAL", "#FFFFFF"),
    "synthetic": ("SYNTHETIC", "#FFD166"),
    "difference": ("", "#000000"),
}

# Voxels above this count as brain when empty margins are cut off.
VISIBLE = 0.05

# Lengths in inches; a page is 11.6 inches wide.
WIDTH, LABEL, GAP, STRIP, LINE, BAR, LARGEST_TILE = 11.6, 0.34, 0.05, 0.17, 0.165, 0.62, 2.25
INK = "#1B1F24"
DPI = 125
DIVERGING = "RdBu_r"

# An outline follows this intensity of its image.
EDGE = 0.2


@dataclass(frozen=True)
class Cut:
    """A cut through a volume.

    Attributes:
        plane: axial, coronal or sagittal.
        index: of the voxel layer along the plane's axis.
        label: for the reader.
    """

    plane: Plane
    index: int
    label: str

    @property
    def of_change(self) -> "Cut":
        """The same cut through a difference, which its label says."""
        return replace(self, label=f"change, {self.plane}")


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a panel.

    Attributes:
        volume: (D, H, W) in RAS order; in [0, 1], or a signed difference.
        kind: decides its scale and the word written on it.
        outline: an image whose contour is drawn into a difference, so that one sees where it is.
    """

    volume: Array
    kind: TileKind
    outline: Array | None = None


@dataclass(frozen=True, eq=False)
class PanelRow:
    """Tiles that are cut alike.

    Attributes:
        cut: where.
        tiles: from left to right; None leaves a place empty.
        captions: written below each tile, lines parted by line breaks.
    """

    cut: Cut
    tiles: Sequence[Tile | None]
    captions: Sequence[str] = ()


def choose_cuts(
    shape: Sequence[int],
    planes: Iterable[Plane] = ("axial", "coronal", "sagittal"),
    *,
    voxel_size_mm: float | None = None,
    centre_mm: Sequence[float] | None = None,
) -> list[Cut]:
    """Sections through the middle of the brain; labelled in MNI millimetres where the grid is known.

    Args:
        shape: of the volumes.
        planes: which sections.
        voxel_size_mm: edge of a voxel.
        centre_mm: middle of the grid, RAS mm.
    """
    cuts = []
    for plane in planes:
        axis = PLANES[plane][0]
        index = round(FRACTIONS[plane] * (shape[axis] - 1))
        label = str(plane)
        if voxel_size_mm is not None and centre_mm is not None:
            position = centre_mm[axis] + (index - (shape[axis] - 1) / 2) * voxel_size_mm
            label += f", {'xyz'[axis]} = {position:+.0f} mm".replace("-", "\N{MINUS SIGN}")
        cuts.append(Cut(plane, index, label))
    return cuts


def radiological_section(volume: Array, cut: Cut) -> Array:
    """The section as it is shown: row 0 on top, column 0 on the left.

    Args:
        volume: (D, H, W) in RAS order.
        cut: where.
    """
    return np.take(volume, cut.index, axis=PLANES[cut.plane][0]).T[::-1, ::-1]


def difference(image: Array, reference: Array) -> Array:
    """Image minus reference, in float32."""
    return image.astype(np.float32) - reference.astype(np.float32)


def symmetric_limit(differences: Iterable[Array]) -> float:
    """A round number that all but the half per cent largest absolute differences of any volume stay below."""
    largest = max((float(np.percentile(np.abs(each), 99.5)) for each in differences), default=0.0)
    largest = max(largest, 0.01)
    decade = 10.0 ** np.floor(np.log10(largest))
    return float(next(m * decade for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * decade >= largest * (1 - 1e-9)))


def draw_panel(
    rows: Sequence[PanelRow],
    headers: Sequence[str],
    *,
    limit: float | None = None,
    limit_label: str = "",
) -> bytes:
    """Rows of sections with their headers, PNG.

    Every original and synthetic tile has the same grey scale, 0 black to 1 white, every difference the same diverging
    one; a synthetic tile carries the word SYNTHETIC.

    Args:
        rows: of as many tiles as there are headers.
        headers: above each column.
        limit: of the differences, symmetric about 0; needed where a tile is a difference.
        limit_label: what a difference is, below its colour bar.
    """
    from matplotlib.figure import Figure

    box = _visible_box([tile for row in rows for tile in row.tiles if tile is not None])
    shapes = [next(_section(tile.volume, row.cut, box).shape for tile in row.tiles if tile is not None) for row in rows]
    tile_width = min((WIDTH - LABEL) / len(headers) - GAP, LARGEST_TILE)
    scale = tile_width / max(columns for _, columns in shapes)
    header_height = LINE * max(header.count("\n") + 1 for header in headers) + 0.1
    caption_heights = [LINE * max((c.count("\n") + 1 for c in row.captions), default=0) for row in rows]
    tile_heights = [lines * scale + STRIP for lines, _ in shapes]
    bar_height = BAR if limit is not None else 0.0
    width = LABEL + len(headers) * (tile_width + GAP)
    height = header_height + sum(tile_heights) + sum(c + 2 * GAP for c in caption_heights) + bar_height

    figure = Figure(figsize=(width, height), facecolor="white")
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), frameon=False, xticks=[], yticks=[])
    lefts = [LABEL + column * (tile_width + GAP) for column in range(len(headers))]
    for left, header in zip(lefts, headers, strict=True):
        _write(page, left + tile_width / 2, height - header_height + 0.08, header, va="baseline", weight="bold")
    top = height - header_height
    for row, tile_height, caption_height in zip(rows, tile_heights, caption_heights, strict=True):
        _write(page, LABEL / 2, top - tile_height / 2, row.cut.label, rotation=90)
        for column, tile in enumerate(row.tiles):
            if tile is None:
                continue
            frame = (lefts[column], top - tile_height, tile_width, tile_height)
            _draw_tile(page, tile, row.cut, box, frame, scale, limit)
            if row.captions:
                _write(page, lefts[column] + tile_width / 2, frame[1] - 0.04, row.captions[column], va="top")
        top -= tile_height + caption_height + 2 * GAP
    page.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    if limit is not None:
        _draw_colour_bar(figure, (width, height), limit, limit_label)
    return _paletted_png(figure)


def _paletted_png(figure: Any) -> bytes:
    """The drawing in its few colours, a third of the size of true colours; only letters move by more than a few levels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image
    from scipy.spatial.distance import cdist

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    # Many pixels have few colours, so that the nearest of the palette is found for each colour once.
    packed = pixels @ np.array([1 << 16, 1 << 8, 1])
    nearest = np.zeros(1 << 24, dtype=np.uint8)
    nearest[packed] = 1
    seen, palette = np.flatnonzero(nearest), _palette()
    colours = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], axis=1)
    nearest[seen] = cdist(colours, palette).argmin(axis=1)
    image = Image.fromarray(nearest[packed], mode="P")
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def _palette() -> npt.NDArray[np.uint8]:
    """Greys, the differences' colours, and the amber of the word SYNTHETIC on black, (C, 3)."""
    import matplotlib
    from matplotlib.colors import to_rgb

    greys = np.linspace(0, 1, 96)[:, None].repeat(3, axis=1)
    amber = np.linspace(0, 1, 17)[1:, None] * to_rgb(STRIPS["synthetic"][1])
    diverging = matplotlib.colormaps[DIVERGING](np.linspace(0, 1, 95))[:, :3]
    return np.rint(255 * np.concatenate([greys, amber, diverging, [to_rgb(INK)]])).astype(np.uint8)


def _visible_box(tiles: Sequence[Tile]) -> Box:
    """The part of the grid where any image shows something, with a margin."""
    shape = np.array(tiles[0].volume.shape)
    seen = np.any([tile.volume > VISIBLE for tile in tiles if tile.kind != "difference"], axis=0)
    places = np.argwhere(seen) if np.any(seen) else np.array([[0, 0, 0], shape - 1])
    margin = np.maximum(1, np.rint(0.03 * shape).astype(int))
    low, high = np.maximum(0, places.min(axis=0) - margin), np.minimum(shape, places.max(axis=0) + 1 + margin)
    x, y, z = map(slice, low.tolist(), high.tolist())
    return x, y, z


def _section(volume: Array, cut: Cut, box: Box) -> Array:
    """The visible part of a section."""
    axis = PLANES[cut.plane][0]
    whole: list[Any] = list(box)
    whole[axis] = slice(None)
    return radiological_section(np.asarray(volume[tuple(whole)], dtype=np.float32), cut)


def _draw_tile(
    page: Any,
    tile: Tile,
    cut: Cut,
    box: Box,
    frame: tuple[float, float, float, float],
    scale: float,
    limit: float | None,
) -> None:
    """A section in its frame (left, bottom, width, height; inches), the strip with its word below."""
    import matplotlib
    from matplotlib.patches import Rectangle

    left, bottom, width, height = frame
    shades: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0}
    face: Any = "#000000"
    edge, ink = "none", "#FFFFFF"
    if tile.kind == "difference":
        assert limit is not None, "a difference needs a limit"
        shades = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
        face, edge, ink = matplotlib.colormaps[DIVERGING](0.5), "#B8BEC6", INK
    section = _section(tile.volume, cut, box)
    lines, columns = section.shape
    start = left + (width - columns * scale) / 2
    extent = (start, start + columns * scale, bottom + STRIP, bottom + STRIP + lines * scale)
    page.add_patch(Rectangle((left, bottom), width, height, facecolor=face, edgecolor="none"))
    page.add_patch(Rectangle((left, bottom), width, height, fill=False, edgecolor=edge, linewidth=0.6, zorder=3))
    page.imshow(section, extent=extent, origin="upper", interpolation="bilinear", zorder=2, **shades)
    if tile.outline is not None:
        around = _section(tile.outline, cut, box)
        page.contour(around, [EDGE], extent=extent, origin="upper", colors="#6B7480", linewidths=0.6, zorder=3)
    _, at_left, at_right = PLANES[cut.plane]
    for x, letter, side in ((left + 0.06, at_left, "left"), (left + width - 0.06, at_right, "right")):
        _write(page, x, bottom + height - 0.05, letter, va="top", ha=side, color=ink, weight="bold")
    word, colour = STRIPS[tile.kind]
    _write(page, left + width / 2, bottom + STRIP / 2 + 0.01, word, color=colour, weight="bold", size=8)


def _draw_colour_bar(figure: Any, size: tuple[float, float], limit: float, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    width, height = size
    axes = figure.add_axes(((width - 4.2) / 2 / width, 0.44 / height, 4.2 / width, 0.13 / height))
    ticks = [-limit, -limit / 2, 0, limit / 2, limit]
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), DIVERGING), cax=axes, orientation="horizontal")
    words = ["0" if tick == 0 else f"{tick:+.2g}".replace("-", "\N{MINUS SIGN}") for tick in ticks]
    bar.set_ticks(ticks, labels=words, fontsize=8.5)
    bar.outline.set_linewidth(0.5)
    figure.text(0.5, 0.03 / height, label, ha="center", va="bottom", fontsize=9, color=INK, parse_math=False)


def _write(page: Any, x: float, y: float, text: str, *, size: float = 9, **how: Any) -> None:
    """Text at a place in inches; dollar signs in names stay what they are."""
    style = {"ha": "center", "va": "center", "color": INK, "family": "DejaVu Sans", "linespacing": 1.15} | how
    page.text(x, y, text, fontsize=size, parse_math=False, **style)
