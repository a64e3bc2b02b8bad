"""How objects show themselves: their facts in a line, and in a notebook as a table with slices."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping
from html import escape
from io import BytesIO

import numpy as np
import numpy.typing as npt

__all__ = ["Shown", "slices_png"]

BRIGHT = 99.8
"""Percentile of the intensities that is drawn white."""


class Shown(ABC):
    """Base of objects that show their facts: in a line, and in a notebook as a table below a picture."""

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, str]:
        """What it shows of itself, by name."""

    def picture(self) -> bytes | None:
        """A PNG above the facts; None for none."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{fact}: {value}' for fact, value in self.facts.items())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(fact)}</th><td>{escape(value)}</td></tr>" for fact, value in self.facts.items()
        )
        png = self.picture()
        image = (
            ""
            if png is None
            else f'<img alt="slices" src="data:image/png;base64,{base64.b64encode(png).decode()}"><br>'
        )
        return f"<b>{type(self).__name__}</b><br>{image}<table>{rows}</table>"


def slices_png(data: npt.NDArray[np.float32], spacing: tuple[float, float, float]) -> bytes:
    """The middle sagittal, coronal and axial slice beside each other, a pixel a millimetre.

    Args:
        data: (D, H, W), axes to the right, anterior and superior.
        spacing: voxel size along each axis in mm.
    """
    from PIL import Image

    low, high = float(data.min()), float(np.percentile(data, BRIGHT))
    grey = (np.clip((data - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    size = [max(1, round(n * mm)) for n, mm in zip(data.shape, spacing, strict=True)]
    pictures = []
    for axis in range(3):
        across, up = (other for other in range(3) if other != axis)
        # Superior or anterior is up; in coronal and axial slices the left of the picture is the subject's right.
        plane = grey.take(data.shape[axis] // 2, axis=axis).T[::-1, :: 1 if axis == 0 else -1]
        pictures.append(Image.fromarray(np.ascontiguousarray(plane)).resize((size[across], size[up])))
    canvas = Image.new("L", (sum(each.width for each in pictures), max(each.height for each in pictures)))
    left = 0
    for each in pictures:
        canvas.paste(each, (left, 0))
        left += each.width
    buffer = BytesIO()
    canvas.save(buffer, format="png")
    return buffer.getvalue()
