"""Label maps as anatomy: a segmentation in FreeSurfer's numbering becomes a brain in template space.

The result has the very form of the template (`ldae.atlas.Template`), so that shapes, ageing, disease and truth work on
it as they do on the template's own brain.
"""

import functools
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import Template, load_template
from ldae.base.processes import one_itk_thread
from ldae.errors import CohortError, LdaeError
from ldae.head.morphology import close
from ldae.head.registration import register
from ldae.phantom.anatomy.lattice import Array, smooth_noise
from ldae.phantom.anatomy.tissue import tissue_means
from ldae.volume import SUFFIXES, Grid, Volume, read_volume

if TYPE_CHECKING:
    from ldae.phantom.anatomy.combination import Combination

__all__ = ["LabelMap", "LabelSource", "label_anatomy", "label_files", "place_label_map", "read_label_map"]

log = logging.getLogger(__name__)

Labels = npt.NDArray[np.int16]

# Shares of grey matter, white matter and fluid.
GREY, WHITE, FLUID = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
CHOROID = (0.3, 0.0, 0.7)
# Parcellations of the cortex and of the white matter below it.
CORTEX_PARCELS = (*range(1000, 3000), *range(11000, 13000))
WHITE_PARCELS = (*range(3000, 5002), *range(13000, 15000))
TISSUES: dict[tuple[int, ...], tuple[float, float, float]] = {
    (2, 7, 41, 46, 85, 192, 251, 252, 253, 254, 255, *WHITE_PARCELS): WHITE,
    (3, 8, 17, 18, 42, 47, 53, 54, 80, 81, 82, *CORTEX_PARCELS): GREY,
    (4, 5, 14, 15, 43, 44, 72): FLUID,
    (30, 31, 62, 63, 136, 137, 163, 164): CHOROID,
    (25, 57, 77, 78, 79, 100, 109): (0.7, 0.3, 0.0),  # lesions of white matter
    (9, 10, 48, 49): (0.5, 0.5, 0.0),
    (11, 50): (0.95, 0.05, 0.0),
    (12, 51): (0.75, 0.25, 0.0),
    (13, 52): (0.3, 0.7, 0.0),
    (16,): (0.25, 0.75, 0.0),
    (26, 58): (0.9, 0.1, 0.0),
    (28, 60): (0.35, 0.65, 0.0),
}
CSF_LABEL = 24
VENTRICLES = (4, 5, 43, 44, 31, 63, 136, 137, 163, 164)
HIPPOCAMPUS_LEFT, HIPPOCAMPUS_RIGHT = 17, 53
# Label 0 and these are outside the brain; other labels are not known.
HEAD_LABELS = range(500, 600)

NEEDED = {
    "white matter": (2, 41, *WHITE_PARCELS),
    "cortex": (3, 42, *CORTEX_PARCELS),
    "left lateral ventricle": (4,),
    "right lateral ventricle": (43,),
    "left hippocampus": (17,),
    "right hippocampus": (53,),
}
SPACING_MM = (0.5, 2.0)
LARGEST_LABEL = 15_000
# Fluid belongs to the brain where it lies in folds narrower than twice this.
FOLD_MM = 5.0
# Labels have stairs; partial volume has none.
SOFTENING_MM = 0.7
TEXTURE_SD, TEXTURE_MM = 0.03, 2.5


@dataclass(frozen=True)
class LabelSource:
    """A label map and its place.

    Attributes:
        path: the file.
        sha256: of its content.
        affine: RAS mm of the map to RAS mm of the template, (4, 4) row by row; a reflection shows the mirrored brain.
        combination: with another map, for the shape of a subject; the map's own brain is the same with any.
    """

    path: str
    sha256: str
    affine: tuple[tuple[float, ...], ...]
    combination: "Combination | None" = field(default=None, compare=False)

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The affine as an array, (4, 4)."""
        return np.array(self.affine)

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged."""
        return bool(np.linalg.det(self.matrix) < 0)

    def mirror(self) -> "LabelSource":
        """The same map with left and right exchanged in template space."""
        rows = (np.diag([-1.0, 1.0, 1.0, 1.0]) @ self.matrix).tolist()
        return replace(self, affine=tuple(tuple(row) for row in rows))


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation.

    Attributes:
        labels: FreeSurfer's numbers, (D, H, W).
        affine: voxel indices to RAS mm, (4, 4).
        unknown: numbers in it that this module does not know; they count as outside the brain.
    """

    labels: Labels
    affine: npt.NDArray[np.float64]
    unknown: tuple[int, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each axis in mm."""
        return Grid(self.labels.shape, self.affine).spacing

    def around(self, mask: npt.NDArray[np.bool_], margin: int) -> "LabelMap":
        """The box around a mask, (D, H, W), with some voxels to spare."""
        (box,) = ndimage.find_objects(mask.astype(np.uint8))
        box = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
        return replace(self, labels=self.labels[box], affine=affine)


def label_files(folder: Path) -> list[Path]:
    """The images in a folder, by name.

    Raises:
        CohortError: if there is no such folder or no image in it.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder; --anatomy names a folder of label maps (NIfTI or MGZ, FreeSurfer's numbering)"
        raise CohortError(msg)
    paths = sorted(p for p in folder.iterdir() if p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))
    if not paths:
        msg = f"{folder} holds no label map (a name ending in {', '.join(SUFFIXES)}); name the folder of segmentations"
        raise CohortError(msg)
    return paths


def read_label_map(path: Path) -> LabelMap:
    """Read and check a segmentation.

    Raises:
        CohortError: if it cannot be read, holds fractions, has the wrong voxel size, or lacks a structure that is needed.
    """
    try:
        volume = read_volume(path).to_ras()
    except LdaeError as error:
        msg = f"not a label map: {error}"
        raise CohortError(msg) from error
    low, high = SPACING_MM
    if min(volume.spacing) < low or max(volume.spacing) > high:
        size = " x ".join(f"{s:g}" for s in volume.spacing)
        msg = f"{path}: voxels of {size} mm; a label map needs {low:g} to {high:g} mm: resample it (nearest neighbour)"
        raise CohortError(msg)
    rounded = np.rint(volume.data)
    if np.abs(volume.data - rounded).max() > 1e-3 or rounded.min() < 0 or rounded.max() > LARGEST_LABEL:
        msg = (
            f"{path}: values are not FreeSurfer's numbers (whole, 0 to {LARGEST_LABEL}) but reach from "
            f"{volume.data.min():g} to {volume.data.max():g}; --anatomy wants segmentations, not scans"
        )
        raise CohortError(msg)
    labels = rounded.astype(np.int16)
    present = np.flatnonzero(np.bincount(labels.ravel()))
    missing = [name for name, numbers in NEEDED.items() if not np.isin(numbers, present).any()]
    if missing:
        msg = f"{path}: no {', no '.join(missing)} among its labels; the map must use FreeSurfer's numbering"
        raise CohortError(msg)
    table = _fractions()
    known = table[present].any(axis=1) | np.isin(present, (0, CSF_LABEL, *HEAD_LABELS))
    return LabelMap(labels, volume.affine, tuple(int(n) for n in present[~known]))


@functools.lru_cache(maxsize=1)
def _fractions() -> Array:
    """Shares of grey matter, white matter and fluid of every number, (LARGEST_LABEL + 1, 3)."""
    table = np.zeros((LARGEST_LABEL + 1, 3), dtype=np.float32)
    for numbers, shares in TISSUES.items():
        table[list(numbers)] = shares
    return table


@functools.lru_cache(maxsize=128)
def place_label_map(path: str, sha256: str) -> LabelSource:
    """Register a label map's brain, painted as a T1w image, to the template; done once for each content.

    Raises:
        CohortError: if the map is unusable or its registration fails.
    """
    label_map = read_label_map(Path(path))
    if label_map.unknown:
        log.warning("%s: labels %s are not known and count as outside the brain", path, label_map.unknown)
    brain = _brain(label_map, margin=0)
    painted = np.pad(_fractions()[brain.labels] @ np.array(tissue_means(), dtype=np.float32), 4)
    affine = brain.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [-4, -4, -4]
    try:
        with one_itk_thread():
            found = register(Volume(painted, affine), already_stripped=True)
    except LdaeError as error:
        msg = f"{path}: the label map does not fit the template ({error})"
        raise CohortError(msg) from error
    return LabelSource(path, sha256, tuple(tuple(row) for row in found.affine_native_to_template.tolist()))


def _brain(label_map: LabelMap, margin: int) -> LabelMap:
    """The box around the brain's tissue."""
    return label_map.around(np.asarray(_fractions()[:, :2].any(axis=1))[label_map.labels], margin)


@functools.lru_cache(maxsize=1)
def label_anatomy(source: LabelSource) -> Template:
    """The brain of a label map on the template's 1 mm grid; the last one is kept."""
    label_map = _brain(read_label_map(Path(source.path)), margin=3)
    labels, spacing = label_map.labels, label_map.spacing
    grid = load_template(1.0).grid
    to_template = source.matrix @ label_map.affine

    def on_template(mask: npt.NDArray[np.generic]) -> Array:
        soft = ndimage.gaussian_filter(mask.astype(np.float32), SOFTENING_MM / np.array(spacing))
        return Volume(soft, to_template).resample_to(grid).data

    table = _fractions()
    tissue = np.asarray(table.any(axis=1))[labels]
    brain = tissue | (close(tissue, FOLD_MM, spacing) & np.isin(labels, (0, CSF_LABEL)))
    shares = table[labels]
    shares[brain & ~tissue] = FLUID
    grey, white, csf = (on_template(shares[..., i]) for i in range(3))
    mask = grey + white + csf
    means = tissue_means()
    texture = np.float32(TEXTURE_SD) * smooth_noise(np.random.default_rng(0), grid.shape, TEXTURE_MM, grid.spacing)
    t1 = np.float32(means[0]) * grey + np.float32(means[1]) * white + np.float32(means[2]) * csf + texture * mask
    sides = (HIPPOCAMPUS_LEFT, HIPPOCAMPUS_RIGHT)[:: -1 if source.mirrored else 1]
    maps = {
        "t1": t1,
        "grey_matter": grey,
        "white_matter": white,
        "csf": csf,
        "brain_mask": mask,
        "ventricles": on_template(np.isin(labels, VENTRICLES)),
        "hippocampus_left": on_template(labels == sides[0]),
        "hippocampus_right": on_template(labels == sides[1]),
    }
    return Template(**{name: Volume(data, grid.affine) for name, data in maps.items()})
