"""Heads of the tests: the template's in a known pose, and in place with texture."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from ldae.atlas import load_template, template_grid
from ldae.data.manifest import write_manifest
from ldae.head.morphology import depth_mm
from ldae.volume import Grid, Volume, write_volume


@pytest.fixture
def pose() -> Callable[..., npt.NDArray[np.float64]]:
    """Makes a map from template to scan."""
    return _pose


@pytest.fixture
def synthetic_head() -> Callable[..., Volume]:
    """Makes a head in such a pose."""
    return _synthetic_head


@pytest.fixture
def head() -> Callable[[int], Volume]:
    """Makes a textured head, by seed."""
    return textured_head


def _pose(degrees: tuple[float, float, float], scale: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Template to scan: turned, scaled, and moved by 2 cm."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(scale)
    matrix[:3, 3] = (12.0, -9.0, 14.0)
    return matrix


def _synthetic_head(template_to_scan: npt.NDArray[np.float64], *, skull: bool = True) -> Volume:
    """The template's brain on an oblique, anisotropic grid; with a dark skull, a bright scalp and a bias, or stripped."""
    grid = template_grid(4.0, multiple=1, margin_mm=24.0)
    template = load_template(4.0)
    brain = template.t1.resample_to(grid).data
    outside = depth_mm(template.brain_mask.resample_to(grid).data < 0.5, grid.spacing)
    if skull:
        brain = brain + 0.05 * (outside > 0) * (outside < 20) + 0.7 * ((outside > 10) & (outside < 17))
    bias = np.exp((0.004 if skull else 0.0) * grid.world_coordinates()[1])
    head = Volume((400.0 * brain * bias).astype(np.float32), template_to_scan @ grid.affine)
    axes = Rotation.from_euler("xyz", (8.0, -6.0, 11.0), degrees=True).as_matrix()[:, [1, 0, 2]] * (-1.0, 1.0, 1.0)
    affine = np.eye(4)
    affine[:3, :3] = axes * (4.0, 3.6, 5.0)
    shape = (62, 56, 46)
    centre = (template_to_scan @ [0.0, -17.0, 5.0, 1.0])[:3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return head.resample_to(Grid(shape, affine))


def write_heads(folder: Path, rows: list[tuple], columns: str) -> Path:
    """A manifest of these rows in a folder; each image there is a head whose seed is the row's last value."""
    table = pd.DataFrame([row[:-1] for row in rows], columns=columns.split())
    for image, row in zip(table["image"], rows, strict=True):
        write_volume(textured_head(row[-1]), folder / image)
    return write_manifest(table, folder / "manifest.tsv")


@cache
def textured_head(seed: int) -> Volume:
    """The template's brain with texture of its own, on an oblique anisotropic grid in MNI space; kept, so not to be changed."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", 0.1).as_matrix() @ np.diag([4.0, 5.0, 6.0])
    shape = (40, 42, 30)
    affine[:3, 3] = np.array([0.0, -17.0, 5.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    brain = load_template(4.0).t1.resample_to(Grid(shape, affine)).data
    data = np.where(brain > 0.05, 500 * brain + rng.normal(0, 30, shape), 0.0)
    data = np.clip(data, 0, None).astype(np.float32)
    data.flags.writeable = False
    return Volume(data, affine)
