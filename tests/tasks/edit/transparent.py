"""A model whose images hold what is drawn from the code, and probes of given weights."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import torch

from ldae.codes import Codes
from ldae.tasks.probe.linear import LinearProbe
from ldae.volume import Grid

GRID = Grid((2, 2, 2), np.eye(4))


def probe(*weights: float, intercept: float = 0.0, logistic: bool = True) -> LinearProbe:
    """A probe of features that are as they are."""
    size = len(weights)
    return LinearProbe(np.zeros(size), np.ones(size), np.array(weights), intercept, 1.0, logistic, 1.0)


def codes_of(values: npt.ArrayLike) -> list[Codes]:
    """Codes with these semantic parts, one a row."""
    return [Codes(torch.tensor(row, dtype=torch.float32), None, GRID, (0.0, 1.0)) for row in np.asarray(values)]


def transparent(matrix: npt.ArrayLike, gain: float = 1.0) -> SimpleNamespace:
    """Draws `matrix` times the code into the first voxels; encoded anew, `gain` times what they hold."""
    width = len(np.asarray(matrix))

    def decode(batch: Sequence[Codes]) -> npt.NDArray[np.float32]:
        images = np.zeros((len(batch), *GRID.shape), np.float32)
        images.reshape(len(batch), -1)[:, :width] = [matrix @ each.semantic.double().numpy() for each in batch]
        return images

    return SimpleNamespace(
        decode_images=decode, semantic=lambda images: gain * images.reshape(len(images), -1)[:, :width]
    )
