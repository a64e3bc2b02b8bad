"""Brains between label maps: the shape of one moves part of the way to the shape of another.

Each map is registered to the template's brain without folds (diffeomorphic demons, Vercauteren et al. 2009), so that the
shapes of all maps are known in one space, where they can be averaged. A few maps then give a continuum of shapes.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ldae.atlas import Template, load_template
from ldae.image_files import LPS_TO_RAS
from ldae.phantom.anatomy.deformation import at_shape_lattice, shape_lattice
from ldae.phantom.anatomy.label_maps import LabelSource, label_anatomy
from ldae.phantom.anatomy.lattice import Array
from ldae.phantom.anatomy.tissue import tissue_means
from ldae.volume import Volume, to_itk

__all__ = ["Combination", "Warp", "find_warp"]

# Smoothing of the images, mm, and iterations, from coarse to fine; then the smoothing of the field, lattice points.
LEVELS = ((8.0, 40), (4.0, 40), (2.0, 40))
FIELD_SIGMA = 1.3


@dataclass(frozen=True, eq=False)
class Warp:
    """Where a map's brain and the template's show the same place; displacements in mm on the shape lattice, (X, Y, Z, 3).

    Attributes:
        into_map: from a point of the template to the point of the map (affinely aligned) that resembles it.
        into_template: the inverse.
    """

    into_map: Array
    into_template: Array

    def save(self, path: Path) -> Path:
        """Write it as NPY, which :class:`Combination` reads."""
        np.save(path, np.stack([self.into_map, self.into_template]))
        return path


@dataclass(frozen=True)
class Combination:
    """The brain of one map in a shape between its own and another's.

    Attributes:
        own: file of the warp of the map whose tissue is shown.
        other: that of the map whose shape it moves to.
        share: of the way, 0 (its own shape) to 1 (the other's).
        mirrored: whether both maps are mirrored left to right.
    """

    own: Path
    other: Path
    share: float
    mirrored: bool

    def move(self, points_mm: Array) -> Array:
        """The points of the map seen at points of the combination, both (..., 3), RAS mm in template space."""
        flip = np.array([-1.0 if self.mirrored else 1.0, 1.0, 1.0], dtype=np.float32)
        points, share = points_mm.reshape(-1, 3) * flip, np.float32(self.share)
        own, other = _saved_warp(self.own), _saved_warp(self.other)
        # A place of the template lies between its places in both maps.
        points = points + at_shape_lattice(own.into_template * (1 - share) + other.into_template * share, points)
        return np.asarray(((points + at_shape_lattice(own.into_map, points)) * flip).reshape(points_mm.shape))


@functools.lru_cache(maxsize=64)
def _saved_warp(path: Path) -> Warp:
    return Warp(*np.load(path))


def find_warp(source: LabelSource) -> Warp:
    """Register a label map's brain to the template's; call it under :func:`ldae.base.processes.one_itk_thread`."""
    import SimpleITK

    fixed, moving = _painted(load_template(1.0)), _painted(label_anatomy(source))
    demons = SimpleITK.DiffeomorphicDemonsRegistrationFilter()
    demons.SetStandardDeviations(FIELD_SIGMA)
    field = None
    for sigma_mm, iterations in LEVELS:
        demons.SetNumberOfIterations(iterations)
        images = [
            to_itk(Volume(ndimage.gaussian_filter(each.data, sigma_mm / each.spacing[0]), each.affine))
            for each in (fixed, moving)
        ]
        field = demons.Execute(*images) if field is None else demons.Execute(*images, field)
    inverse = SimpleITK.InvertDisplacementField(field, maximumNumberOfIterations=50)
    into_map, into_template = (_ras(SimpleITK.GetArrayFromImage(each)) for each in (field, inverse))
    return Warp(into_map, into_template)


def _ras(field: np.ndarray) -> Array:
    """ITK's vectors, (Z, Y, X, 3) in LPS, as (X, Y, Z, 3) in RAS."""
    return np.ascontiguousarray(field.transpose(2, 1, 0, 3) * np.diag(LPS_TO_RAS)[:3], dtype=np.float32)


def _painted(anatomy: Template) -> Volume:
    """A brain in the template's contrast on the shape lattice."""
    fractions = (anatomy.grey_matter, anatomy.white_matter, anatomy.csf)
    data = sum(np.float32(mean) * each.data for mean, each in zip(tissue_means(), fractions, strict=True))
    soft = ndimage.gaussian_filter(np.asarray(data, dtype=np.float32), 1.5)
    return Volume(soft, anatomy.grid.affine).resample_to(shape_lattice())
