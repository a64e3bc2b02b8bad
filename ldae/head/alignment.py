"""Alignment of the template with a scan by mutual information, with SimpleITK.

Transforms take template points to scan points, both RAS mm, as (4, 4) matrices; ITK's LPS stays inside this module.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.atlas import load_template, template_grid
from ldae.base.files import atomic_file
from ldae.head.morphology import coarse_grid, grow, mask_volume
from ldae.image_files import LPS_TO_RAS
from ldae.volume import Volume, to_itk

__all__ = ["Alignment", "brain_centre", "write_transform"]

Matrix = npt.NDArray[np.float64]

# The template shows the brain alone; the metric also uses the dark rim of fluid and skull around it, not the scalp.
RIM_MM = 6.0
BINS = 32
# Radius of the neighbourhoods of local correlation.
NEIGHBOURHOOD_VOXELS = 3


def brain_centre() -> npt.NDArray[np.float64]:
    """Middle of the box around the template's brain in RAS mm, (3,)."""
    grid = template_grid(8.0)
    return np.asarray((grid.affine @ np.append((np.asarray(grid.shape) - 1) / 2, 1.0))[:3], dtype=np.float64)


@functools.lru_cache(maxsize=4)
def _fixed(voxel_size_mm: float) -> tuple[Volume, Volume]:
    """The template's T1 and the mask of brain and rim, with room around."""
    grid = template_grid(voxel_size_mm, multiple=1, margin_mm=RIM_MM + voxel_size_mm)
    brain = load_template(1.0).brain_mask.resample_to(grid).data > 0.5
    return load_template(1.0).t1.resample_to(grid), mask_volume(grow(brain, RIM_MM, grid.spacing), grid.affine)


def write_transform(affine_native_to_template: Matrix, path: Path) -> None:
    """Write an affine (RAS mm) in ITK's text format, .txt or .tfm, which maps points of the template (LPS mm) to the scan's.

    The file is written under another name first.
    """
    import SimpleITK

    lps = LPS_TO_RAS @ np.linalg.inv(affine_native_to_template) @ LPS_TO_RAS
    transform = SimpleITK.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist())
    with atomic_file(path) as temporary:
        SimpleITK.WriteTransform(transform, str(temporary))


class Alignment:
    """Template and scan on one pair of grids, ready to be compared under a transform.

    Both have voxels of `voxel_size_mm`, the scan where its own are finer.
    """

    def __init__(self, scan: Volume, voxel_size_mm: float) -> None:
        import SimpleITK

        template, rim = _fixed(voxel_size_mm)
        self.centre = (LPS_TO_RAS @ np.append(brain_centre(), 1.0))[:3]
        self.fixed = to_itk(template)
        self.rim = SimpleITK.Cast(to_itk(rim), SimpleITK.sitkUInt8)
        self.moving = to_itk(scan.resample_to(coarse_grid(scan.grid, voxel_size_mm)))

    def metric(self, transform: Matrix) -> float:
        """Negative mutual information, lower is better; 0 (none) where scan and template hardly overlap."""
        method = self._method()
        method.SetInitialTransform(self._affine(transform))
        try:
            return float(method.MetricEvaluate(self.fixed, self.moving))
        except RuntimeError:  # ITK raises when too few samples fall inside the scan
            return 0.0

    def optimise_similarity(self, start: Matrix) -> Matrix:
        """The best rotation, translation and single scale near a start that is itself of that kind."""
        import SimpleITK

        transform = self._placed(SimpleITK.Similarity3DTransform(), start, 1e-6)
        return self._optimise(transform, start, iterations=80)

    def optimise_affine(self, start: Matrix) -> Matrix:
        """The best affine, all twelve parameters, near a start."""
        return self._optimise(self._affine(start), start, iterations=100)

    def polish_affine(self, start: Matrix) -> Matrix:
        """The affine near a good start that correlates best in small neighbourhoods (Avants et al. 2008).

        It weighs all folds of the surface equally, where mutual information follows the strongest edges. It has a smaller
        basin and is slower, so it comes last.
        """
        method = self._method()
        method.SetMetricAsANTSNeighborhoodCorrelation(NEIGHBOURHOOD_VOXELS)
        return self._optimise(self._affine(start), start, iterations=60, method=method)

    def _method(self) -> Any:
        import SimpleITK

        method = SimpleITK.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricFixedMask(self.rim)
        method.SetInterpolator(SimpleITK.sitkLinear)
        return method

    def _optimise(self, transform: Any, start: Matrix, *, iterations: int, method: Any = None) -> Matrix:
        method = method or self._method()
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=2.0, minStep=1e-3, numberOfIterations=iterations, gradientMagnitudeTolerance=1e-6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(self.fixed, self.moving)
        except RuntimeError:  # the optimiser left the scan; the start is at least inside
            return start
        lps = np.eye(4)
        lps[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
        # ITK: x -> M (x - c) + c + t
        lps[:3, 3] = self.centre + np.asarray(transform.GetTranslation()) - lps[:3, :3] @ self.centre
        return np.asarray(LPS_TO_RAS @ lps @ LPS_TO_RAS, dtype=np.float64)

    def _affine(self, matrix: Matrix) -> Any:
        import SimpleITK

        return self._placed(SimpleITK.AffineTransform(3), matrix)

    def _placed(self, transform: Any, matrix: Matrix, *tolerance: float) -> Any:
        """ITK's transform about the brain's centre, set to a matrix."""
        lps = LPS_TO_RAS @ matrix @ LPS_TO_RAS
        transform.SetCenter(self.centre.tolist())
        transform.SetMatrix(lps[:3, :3].ravel().tolist(), *tolerance)
        transform.SetTranslation((lps[:3, :3] @ self.centre + lps[:3, 3] - self.centre).tolist())
        return transform
