"""Volumes of ventricles, hippocampi and brain, measured in the image alone.

Meant for edited, sampled and reconstructed scans in template space: fast and without a network. Fluid is found by its
darkness relative to the image's own tissue, as a fraction of each voxel. It compares images; it is no segmentation.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.atlas import load_template
from ldae.errors import VolumeError
from ldae.head.morphology import depth_mm
from ldae.volume import Grid, Volume

__all__ = ["STRUCTURES", "known_volumes", "measure_volumes"]

Array = npt.NDArray[np.float32]

STRUCTURES = ("ventricles_ml", "hippocampus_left_ml", "hippocampus_right_ml", "brain_ml")
MAP_VOXEL_MM = 2.0

# Distance from the template's ventricle wall up to which fluid counts as ventricle, and the width of the fade.
VENTRICLE_REACH_MM = 10.0
WINDOW_FADE_MM = 4.0

# Only the core of the hippocampus: its surroundings differ between heads for other reasons than its size.
HIPPOCAMPUS_REACH_MM = -4.0

# Darker than this share of white matter is background.
BACKGROUND_LEVEL = 0.1

# Where the template has this much fluid around the brain, no fluid counts as ventricle.
OUTER_FLUID_LIMIT = 0.5

# Below this fraction, darkness is more often grey matter, bias or noise than fluid.
LEAST_FRACTION = 0.3

# The fluid's own level is the mean of the darkest voxels near the ventricles, this many millilitres of them.
PURE_FLUID_ML = 0.6


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of the template on the image's grid; all (D, H, W).

    Attributes:
        brain: inside the template's brain.
        grey: almost pure grey matter in the template.
        white: almost pure white matter in the template.
        grey_share: grey matter's share of the tissue nearby, 0..1.
        windows: weight of a voxel for each structure by name, 0..1.
        near_ventricles: where the darkest voxels are fluid.
        head_ml: volume of the template's brain mask, ml.
        structure_ml: the template's own volumes by name, ml.
    """

    brain: npt.NDArray[np.bool_]
    grey: npt.NDArray[np.bool_]
    white: npt.NDArray[np.bool_]
    grey_share: Array
    windows: dict[str, Array]
    near_ventricles: npt.NDArray[np.bool_]
    head_ml: float
    structure_ml: dict[str, float]


def _millilitres(volume: Volume) -> float:
    return float(volume.data.sum(dtype=np.float64)) * volume.grid.voxel_volume_ml


def _window(mask: Array, reach_mm: float) -> Array:
    """1 up to `reach_mm` outside a structure (inside if negative), fading to 0 over `WINDOW_FADE_MM`."""
    inside, spacing = mask >= 0.5, (MAP_VOXEL_MM, MAP_VOXEL_MM, MAP_VOXEL_MM)
    distance = depth_mm(~inside, spacing) - depth_mm(inside, spacing)
    fade = (reach_mm + WINDOW_FADE_MM / 2 - distance) / WINDOW_FADE_MM
    return np.asarray(np.clip(fade, 0.0, 1.0), dtype=np.float32)


@functools.lru_cache(maxsize=4)
def _regions(shape: tuple[int, int, int], affine: tuple[float, ...]) -> tuple[Regions, dict[str, float]] | None:
    """The template's regions on a grid, made once for each grid; None where it does not show all of them.

    And the factors by which the template's own image measures the template's own volumes there.
    """
    grid = Grid(shape, np.reshape(affine, (4, 4)))
    template = load_template(MAP_VOXEL_MM)

    def on_grid(data: Array, smoothing_mm: float = 0.0) -> Array:
        smooth = ndimage.gaussian_filter(data, smoothing_mm / MAP_VOXEL_MM) if smoothing_mm else data
        return Volume(smooth, template.grid.affine).resample_to(grid).data

    grey, white = template.grey_matter.data, template.white_matter.data
    smooth_grey, smooth_tissue = (ndimage.gaussian_filter(m, 3.0 / MAP_VOXEL_MM) for m in (grey, grey + white))
    near = on_grid(_window(template.ventricles.data, VENTRICLE_REACH_MM))
    # Fluid outside the ventricles, smoothed for the differences between heads.
    halo = ndimage.binary_dilation(template.ventricles.data > 0.3, iterations=2)
    not_outer = np.clip(1.0 - on_grid(template.csf.data * ~halo, 1.5) / OUTER_FLUID_LIMIT, 0.0, 1.0)
    structures = {
        "ventricles_ml": template.ventricles,
        "hippocampus_left_ml": template.hippocampus_left,
        "hippocampus_right_ml": template.hippocampus_right,
    }
    windows = {name: on_grid(_window(mask.data, HIPPOCAMPUS_REACH_MM)) for name, mask in structures.items()}
    windows["ventricles_ml"] = near * not_outer
    regions = Regions(
        brain=on_grid(template.brain_mask.data) > 0.5,
        grey=on_grid(grey, 2.0) > 0.6,
        white=on_grid(white, 2.0) > 0.8,
        grey_share=on_grid(smooth_grey / (smooth_tissue + 1e-3)),
        windows=windows,
        near_ventricles=near > 0.9,
        head_ml=_millilitres(template.brain_mask),
        structure_ml={name: _millilitres(mask) for name, mask in structures.items()},
    )
    landmarks = (regions.grey, regions.white, regions.near_ventricles, *windows.values())
    if not all(landmark.any() for landmark in landmarks):
        return None
    image = np.where(regions.brain, template.t1.resample_to(grid).data, np.float32(0.0))
    true = regions.structure_ml | {"brain_ml": _millilitres(template.grey_matter) + _millilitres(template.white_matter)}
    measured = _raw_measures(image, regions, grid.voxel_volume_ml)
    return regions, {name: true[name] / value for name, value in measured.items()}


def _fluid_fraction(image: Array, inside: npt.NDArray[np.bool_], regions: Regions, voxel_ml: float) -> Array | None:
    """Fraction of fluid in each voxel, (D, H, W), from the image's own levels of grey matter, white matter and fluid.

    None if the image shows no brain in place, or no fluid darker than the tissue.
    """
    grey, white = image[inside & regions.grey], image[inside & regions.white]
    dark = image[inside & regions.near_ventricles]
    pure = max(3, round(PURE_FLUID_ML / voxel_ml))
    if min(grey.size, white.size) == 0 or dark.size < pure:
        return None
    fluid_level = np.partition(dark, pure - 1)[:pure].mean()
    share = regions.grey_share
    contrast = share * np.median(grey) + (1 - share) * np.median(white) - fluid_level
    if float(np.median(contrast[regions.brain])) <= 0:
        return None
    fraction = 1.0 - np.clip((image - fluid_level) / np.maximum(contrast, np.float32(1e-6)), 0.0, 1.0)
    return np.where(inside & (fraction >= LEAST_FRACTION), fraction, np.float32(0.0))


def _raw_measures(image: Array, regions: Regions, voxel_ml: float) -> dict[str, float]:
    """Volumes before calibration, ml; not a number where there is nothing to measure."""
    inside = image > BACKGROUND_LEVEL * max(float(np.median(image[regions.white])), 0.0)
    fluid = _fluid_fraction(image, inside, regions, voxel_ml)
    if fluid is None:
        return dict.fromkeys(STRUCTURES, float("nan"))
    head_ml = float(np.count_nonzero(inside)) * voxel_ml
    measures = {"ventricles_ml": float((fluid * regions.windows["ventricles_ml"]).sum()) * voxel_ml}
    for name in ("hippocampus_left_ml", "hippocampus_right_ml"):
        window = regions.windows[name]
        tissue_share = 1.0 - float((fluid * window).sum() / window.sum())
        measures[name] = regions.structure_ml[name] * tissue_share * head_ml / regions.head_ml
    measures["brain_ml"] = head_ml - float(fluid.sum()) * voxel_ml
    return measures


def measure_volumes(volume: Volume) -> dict[str, float]:
    """Volumes of a T1-weighted brain in template space.

    Ventricles are the fluid within 10 mm of the template's, without the fluid around the brain. A hippocampus is the
    template's, scaled by the head and by the share of tissue in its core, so it ranks subjects only roughly. Factors are
    exact for the template; other volumes are proportional: large ventricles are underestimated by about a fifth, and
    hippocampi keep less than half of their true spread.

    Args:
        volume: skull-stripped, (D, H, W), in MNI space on any grid, intensities in any unit, background about 0.

    Returns:
        `ventricles_ml`, `hippocampus_left_ml`, `hippocampus_right_ml` and `brain_ml` (grey and white matter); all NaN
        if the image shows no brain, or no fluid that is darker than its tissue.

    Raises:
        VolumeError: if the grid lies outside template space, or is too coarse to hold these structures.
    """
    found = _regions(volume.grid.shape, tuple(volume.affine.ravel().tolist()))
    if found is None:
        spacing = ", ".join(f"{size:.3g}" for size in volume.grid.spacing)
        msg = (
            f"volumes are measured in MNI space, where this image (shape {volume.grid.shape}, voxels of {spacing} mm) does not "
            "show the whole brain; register it to the template first ('ldae cohort preprocess')"
        )
        raise VolumeError(msg)
    regions, factors = found
    raw = _raw_measures(volume.data, regions, volume.grid.voxel_volume_ml)
    return {name: value * factors[name] for name, value in raw.items()}


def known_volumes(volume: Volume) -> dict[str, float]:
    """Volumes as :func:`measure_volumes` gives them; all NaN on a grid where none can be measured."""
    try:
        return measure_volumes(volume)
    except VolumeError:
        return dict.fromkeys(STRUCTURES, float("nan"))
