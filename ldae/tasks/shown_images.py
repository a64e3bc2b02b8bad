"""Images that a task leaves for the report to show."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ldae.base.files import atomic_file

__all__ = ["save_images"]


def save_images(path: Path, **images: npt.NDArray[np.floating]) -> None:
    """Write arrays as NPZ, float16 to keep them small, under a temporary name first.

    Args:
        path: of the file.
        images: by name, (..., D, H, W).
    """
    with atomic_file(path) as temporary:
        np.savez_compressed(temporary, **{name: each.astype(np.float16) for name, each in images.items()})  # type: ignore[arg-type]
