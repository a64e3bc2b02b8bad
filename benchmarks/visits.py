"""How near two scans of one head come to each other in template space after `ldae cohort preprocess`.

    python benchmarks/visits.py FIRST SECOND

Each is preprocessed by itself. For comparison the second is registered rigidly to the first in native space (SimpleITK, mutual
information, three levels). A point of the template's brain goes to the first scan by that scan's own affine, to the second
scan by the rigid transform, and back to the template by the second scan's affine; the distance to where it started is the error.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ldae.atlas import load_template
from ldae.base.processes import one_itk_thread
from ldae.head.preprocess import PreprocessConfig, preprocess_scan
from ldae.volume import Volume, read_volume, to_itk


def rigid(first: Volume, second: Volume) -> sitk.Euler3DTransform:
    """Points of the first scan to points of the second, LPS mm."""
    fixed, moving = to_itk(first), to_itk(second)
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    transform = sitk.Euler3DTransform(start)
    transform.SetTranslation((0.0, 0.0, 0.0))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(48)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform


def errors_mm(points: np.ndarray, first: np.ndarray, second: np.ndarray, between: sitk.Euler3DTransform) -> np.ndarray:
    """Distance of each template point (N, 3) from where both scans' affines and the rigid transform bring it back to."""
    homogeneous = np.column_stack([points, np.ones(len(points))]).T
    in_first = (np.linalg.inv(first) @ homogeneous)[:3].T
    flip = np.array([-1.0, -1.0, 1.0])
    in_second = np.array([between.TransformPoint((flip * point).tolist()) for point in in_first]) * flip
    back = (second @ np.column_stack([in_second, np.ones(len(points))]).T)[:3].T
    return np.linalg.norm(back - points, axis=1)


def main() -> None:
    """Preprocess, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args()
    scans = [read_volume(path) for path in (options.first, options.second)]
    with one_itk_thread():
        between = rigid(*scans)
        done = [preprocess_scan(scan, PreprocessConfig(voxel_size_mm=2.0)) for scan in scans]
    mask = load_template(4.0).brain_mask
    brain = mask.grid.world_coordinates()[:, mask.data > 0.5].T
    corners = np.array(list(itertools.product(*zip(brain.min(axis=0), brain.max(axis=0), strict=True))))
    affines = [scan.affine_native_to_template for scan in done]
    for name, points in (("voxels of the brain", brain), ("corners of its box", corners)):
        errors = errors_mm(points, affines[0], affines[1], between)
        print(f"{name}: mean {errors.mean():.2f} mm, largest {errors.max():.2f} mm")
    for path, scan in zip((options.first, options.second), done, strict=True):
        print(
            f"{path.name}: correlation {scan.quality.correlation:.3f}, brain {scan.brain_volume_ml:.0f} ml, {scan.warnings}"
        )


if __name__ == "__main__":
    main()
