"""Picture for quality control after preprocessing: brain mask, orientation and position against the template's."""

import io

import numpy as np

from ldae.atlas import load_template
from ldae.volume import Volume

__all__ = ["draw_overlay"]

# Positions of the sections in the template's space, in RAS mm: off the midline, through the thalami, the ventricles.
CUTS_MM = {0: (-24.0, 3.0), 1: (-52.0, -16.0), 2: (-14.0, 20.0)}
# Letters at the left and right edge of each plane's pictures: the radiological convention.
EDGES = {0: ("A", "P"), 1: ("R", "L"), 2: ("R", "L")}
MASK_COLOUR, TEMPLATE_COLOUR = "#ff4d4d", "#4dd2ff"


def draw_overlay(image: Volume, brain_mask: Volume, *, title: str) -> bytes:
    """PNG of two sections in each plane with the outlines of the brain mask (red) and of the template's brain (blue).

    Args:
        image: in template space, axis-aligned RAS.
        brain_mask: on the same grid.
        title: for the reader.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    template = load_template(1.0).brain_mask.resample_to(image.grid)
    bright = float(np.percentile(image.data[brain_mask.data > 0], 99.5))
    figure = Figure(figsize=(12.0, 8.4), facecolor="black", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(f"{title}   (red: brain mask, blue: template's brain)", color="white", fontsize=11)
    axes = figure.subplots(2, 3)
    for axis, places in CUTS_MM.items():
        step, origin = image.affine[axis, axis], image.affine[axis, 3]
        others = [other for other in range(3) if other != axis]
        edges = [image.affine[o, 3] + image.affine[o, o] * (np.array([0, image.data.shape[o]]) - 0.5) for o in others]
        extent = (*edges[0], *edges[1])
        for panel, place in zip(axes[:, axis], places, strict=True):
            index = int(np.clip(round((place - origin) / step), 0, image.data.shape[axis] - 1))
            section, mask, outline = (np.take(v.data, index, axis).T for v in (image, brain_mask, template))
            panel.imshow(section, origin="lower", extent=extent, cmap="gray", vmin=0.0, vmax=bright)
            for shape, colour in ((mask, MASK_COLOUR), (outline, TEMPLATE_COLOUR)):
                if shape.min() < 0.5 < shape.max():
                    panel.contour(shape, [0.5], origin="lower", extent=extent, colors=colour, linewidths=0.8)
            panel.set_facecolor("black")
            panel.invert_xaxis()
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_title(f"{'xyz'[axis]} = {place:g} mm", color="white", fontsize=9)
            for position, letter in zip((0.02, 0.95), EDGES[axis], strict=True):
                panel.text(position, 0.5, letter, color="white", transform=panel.transAxes)
    stream = io.BytesIO()
    canvas.print_png(stream)
    return stream.getvalue()
