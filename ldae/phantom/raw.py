"""Raw scans: a whole head in native space as a scanner stores it, with the truth that preprocessing should find."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine

from ldae.atlas import Template
from ldae.base.files import write_json
from ldae.phantom.anatomy.deformation import structure_displacement
from ldae.phantom.anatomy.label_surroundings import LabelHead
from ldae.phantom.anatomy.lattice import Array
from ldae.phantom.anatomy.surroundings import TemplateHead
from ldae.phantom.anatomy.tissue import (
    BLOCK,
    WORKING_VOXEL_MM,
    Composition,
    RigidMotion,
    map_points,
    render,
    tissue_means,
)
from ldae.phantom.population import AnatomicalState
from ldae.phantom.pose import (
    HeadShape,
    Matrix,
    RawConfig,
    best_affine,
    draw_native_grid,
    draw_pose,
    template_points,
)
from ldae.phantom.scanner import Scan, ScannerConfig, receive
from ldae.volume import Grid, write_nifti

__all__ = ["TRUTH_FOLDER", "RawHead", "raw_scan", "write_raw_scan"]

TRUTH_FOLDER = "derivatives/truth"
# Enough voxels for an affine fit.
FIT_POINTS = 20_000
# Scanners store 12 bits.
LARGEST_STORED = (900, 4095)


@dataclass(frozen=True, eq=False)
class RawHead:
    """A subject's head, the same at every session: its shape, and brain and surroundings in template space."""

    shape: HeadShape
    anatomy: Template
    surroundings: TemplateHead | LabelHead


@dataclass(frozen=True, eq=False)
class RawScan:
    """An image in native space with its truth.

    Attributes:
        stored: integers as a scanner stores them, (D, H, W).
        slope: brightness of one.
        brain: brain and the fluid around it, (D, H, W).
        grid: of both.
        composition: tissue fractions and true volumes.
        affine_native_to_template: the affine that fits the whole map from native to template points best, RAS mm.
        residual_mm: root mean square of what that affine leaves, in native mm.
        pose: of the head in the scanner; see `draw_pose`.
    """

    stored: npt.NDArray[np.int16]
    slope: float
    brain: npt.NDArray[np.bool_]
    grid: Grid
    composition: Composition
    affine_native_to_template: Matrix
    residual_mm: float
    pose: Matrix


def raw_scan(
    head: RawHead,
    state: AnatomicalState,
    config: RawConfig,
    scan: Scan,
    scanner: ScannerConfig,
    *,
    voxel_size_mm: float,
    keep_displacement: bool = False,
    rng: np.random.Generator,
) -> RawScan:
    """Scan a whole head in some pose on some grid, whose voxels' smallest edge is given.

    Contrast and ghost are those of the scan, and the level of noise the scanner's; the scan's residual misregistration and bias
    field are replaced.
    """
    pose = draw_pose(config, rng)
    neck_mm = float(rng.uniform(*config.neck_mm))
    in_subject = head.shape.from_template(head.surroundings.points_mm(neck_mm))
    grid = draw_native_grid(config, voxel_size_mm, apply_affine(pose, in_subject), rng)

    i, j, k = np.maximum(1, np.round(np.array(grid.spacing) / WORKING_VOXEL_MM)).astype(int).tolist()
    factors = (i, j, k)
    points = template_points(grid, factors, pose, head.shape).reshape(-1, 3)
    # One spacing for all scans of a cohort, so that the template's maps are made once.
    working_mm = voxel_size_mm / max(1, round(voxel_size_mm / WORKING_VOXEL_MM))
    subject = map_points(grid, factors, points, working_mm, head.anatomy)
    composition = render(subject, state, RigidMotion(), keep_displacement=keep_displacement)
    brain_share = composition.grey + composition.white + composition.csf
    grey, white, csf = (np.float32(m * factor) for m, factor in zip(tissue_means(), scan.contrast, strict=True))
    white *= np.float32(1.0 - state.white_matter_darkening)
    signal = grey * composition.grey + white * composition.white + csf * composition.csf + composition.texture
    around = (1 - np.clip(brain_share, 0.0, 1.0)) * _pooled(points, grid, factors, head.surroundings)
    image = receive(signal + around, grid, scan, config.bias_sd * rng.standard_normal(9), scanner.noise_sd, rng)
    scale = np.exp(rng.uniform(*np.log(config.white_matter_range))) / tissue_means()[1]
    image = np.asarray(image * np.float32(scale), dtype=np.float32)
    slope = float(image.max()) / float(rng.integers(*LARGEST_STORED))
    brain = brain_share > 0.5
    affine, residual_mm = _true_affine(brain, grid, pose, head, state)
    stored = np.rint(image / np.float32(slope)).astype(np.int16)
    return RawScan(stored, slope, brain, grid, composition, affine, residual_mm, pose)


def _pooled(points_mm: Array, grid: Grid, factors: tuple[int, int, int], head: TemplateHead | LabelHead) -> Array:
    """Brightness of the surroundings, mean over each voxel's parts, (D, H, W)."""
    signal = np.zeros(len(points_mm), dtype=np.float32)
    for start in range(0, len(points_mm), BLOCK):
        signal[start : start + BLOCK] = head.signal(points_mm[start : start + BLOCK])
    split = [n for pair in zip(grid.shape, factors, strict=True) for n in pair]
    return np.asarray(signal.reshape(split).mean(axis=(1, 3, 5)), dtype=np.float32)


def _true_affine(
    brain: npt.NDArray[np.bool_], grid: Grid, pose: Matrix, head: RawHead, state: AnatomicalState
) -> tuple[Matrix, float]:
    """Native to template, and the rms in native mm of what the affine cannot express."""
    voxels = np.argwhere(brain)
    voxels = voxels[:: max(1, len(voxels) // FIT_POINTS)]
    native = apply_affine(grid.affine, voxels)
    seen = head.shape.to_template(apply_affine(np.linalg.inv(pose), native))
    seen = seen + structure_displacement(state, seen, head.anatomy)
    template_to_native = best_affine(seen, native)
    left = apply_affine(template_to_native, seen) - native
    return np.asarray(np.linalg.inv(template_to_native)), float(np.sqrt((left**2).sum(axis=1).mean()))


def write_raw_scan(folder: Path, image_path: str, raw: RawScan, shape: HeadShape, *, description: str) -> None:
    """Write a scan into a cohort's folder, and its truth into `derivatives/truth` under it."""
    _write_nifti(folder / image_path, raw.stored, raw.grid, raw.slope, description)
    truth = folder / TRUTH_FOLDER / image_path
    mask = truth.with_name(truth.name.replace("_T1w", "_desc-brain_mask"))
    _write_nifti(mask, raw.brain.astype(np.uint8), raw.grid, 1.0, description)
    source = {"Sources": [f"bids:raw:{image_path}"]}
    write_json(mask.with_name(mask.name.replace(".nii.gz", ".json")), {"Type": "Brain", **source})
    known = {
        "AffineNativeToTemplate": raw.affine_native_to_template.tolist(),
        "AffineResidualRmsMm": raw.residual_mm,
        "PoseHeadToNative": raw.pose.tolist(),
        "AffineHeadToTemplate": shape.affine.tolist(),
        "NativeGrid": raw.grid.to_dict(),
        "StorageOrder": "".join(nibabel.aff2axcodes(raw.grid.affine)),
        "VoxelSizeMm": list(raw.grid.spacing),
        "IntensitySlope": raw.slope,
        **source,
    }
    write_json(truth.with_name(truth.name.replace("_T1w.nii.gz", "_desc-truth.json")), known)


def _write_nifti(path: Path, data: npt.NDArray[Any], grid: Grid, slope: float, description: str) -> None:
    """Integers with a slope."""
    image = nibabel.Nifti1Image(data, grid.affine)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_slope_inter(slope, 0.0)
    write_nifti(image, path, description=description)
