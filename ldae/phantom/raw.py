"""Raw scans: a whole head in native space as a scanner stores it, with the truth that preprocessing should find."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.atlas import Template
from ldae.base.files import write_json
from ldae.phantom.anatomy.deformation import structure_displacement
from ldae.phantom.anatomy.label_surroundings import LabelHead
from ldae.phantom.anatomy.surroundings import TemplateHead
from ldae.phantom.anatomy.tissue import BLOCK, Composition, RigidMotion, map_points, render, tissue_means
from ldae.phantom.population import AnatomicalState
from ldae.phantom.pose import (
    HeadShape,
    RawConfig,
    best_affine,
    draw_native_grid,
    draw_pose,
    template_points,
)
from ldae.phantom.scanner import Scan, ScannerConfig, receive
from ldae.volume import Grid, write_nifti

__all__ = ["TRUTH_FOLDER", "RawHead", "RawScan", "raw_scan", "write_raw_scan"]

Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

TRUTH_FOLDER = "derivatives/truth"
WORKING_VOXEL_MM = 2.0
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
    """Scan a whole head in some pose on some grid.

    Args:
        head: of the subject.
        state: of the brain.
        config: ranges of pose, grid and brightness.
        scan: contrast and ghost of this session; its residual misregistration and bias field are replaced.
        scanner: the level of noise.
        voxel_size_mm: the smallest edge of a voxel.
        keep_displacement: also return the displacement field.
        rng: of this session.
    """
    pose = draw_pose(config, rng)
    neck_mm = float(rng.uniform(*config.neck_mm))
    in_subject = head.shape.from_template(head.surroundings.points_mm(neck_mm))
    in_scanner = in_subject @ pose[:3, :3].T + pose[:3, 3]
    grid = draw_native_grid(config, voxel_size_mm, in_scanner, rng)

    spacing = np.array(grid.spacing)
    i, j, k = np.maximum(1, np.round(spacing / WORKING_VOXEL_MM)).astype(int).tolist()
    factors = (i, j, k)
    points = template_points(grid, factors, pose, head.shape).reshape(-1, 3)
    # One spacing for all scans of a cohort, so that the template's maps are made once.
    working_mm = voxel_size_mm / max(1, round(voxel_size_mm / WORKING_VOXEL_MM))
    part_ml = float(np.prod(spacing)) / (i * j * k) / 1000.0
    subject = map_points(grid, factors, points, working_mm, part_ml, head.anatomy)
    composition = render(subject, state, RigidMotion(), keep_displacement=keep_displacement)
    surroundings = _pooled(points, grid, factors, head.surroundings)
    brain = composition.grey + composition.white + composition.csf > 0.5
    image = _acquire(composition, surroundings, grid, scan, config, scanner, state, rng)
    slope = float(image.max()) / float(rng.integers(*LARGEST_STORED))
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


def _acquire(
    brain: Composition,
    surroundings: Array,
    grid: Grid,
    scan: Scan,
    config: RawConfig,
    scanner: ScannerConfig,
    state: AnatomicalState,
    rng: np.random.Generator,
) -> Array:
    """Brightness of the whole head, (D, H, W), not negative."""
    grey, white, csf = (np.float32(m * factor) for m, factor in zip(tissue_means(), scan.contrast, strict=True))
    white *= np.float32(1.0 - state.white_matter_darkening)
    inside = np.clip(brain.grey + brain.white + brain.csf, 0.0, 1.0)
    signal = grey * brain.grey + white * brain.white + csf * brain.csf + brain.texture
    bias = config.bias_sd * rng.standard_normal(9)
    image = receive(signal + (1 - inside) * surroundings, grid, scan, bias, scanner.noise_sd, rng)
    scale = np.exp(rng.uniform(*np.log(config.white_matter_range))) / tissue_means()[1]
    return np.asarray(image * np.float32(scale), dtype=np.float32)


def _true_affine(
    brain: npt.NDArray[np.bool_], grid: Grid, pose: Matrix, head: RawHead, state: AnatomicalState
) -> tuple[Matrix, float]:
    """Native to template, and the rms in native mm of what the affine cannot express."""
    voxels = np.argwhere(brain)
    voxels = voxels[:: max(1, len(voxels) // FIT_POINTS)]
    native = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    back = np.linalg.inv(pose)
    seen = head.shape.to_template(native @ back[:3, :3].T + back[:3, 3])
    seen = seen + structure_displacement(state, seen, head.anatomy)
    template_to_native = best_affine(seen, native)
    left = seen @ template_to_native[:3, :3].T + template_to_native[:3, 3] - native
    return np.asarray(np.linalg.inv(template_to_native)), float(np.sqrt((left**2).sum(axis=1).mean()))


def write_raw_scan(folder: Path, image_path: str, raw: RawScan, shape: HeadShape, *, description: str) -> None:
    """Write a scan into a cohort's folder, and its truth into `derivatives/truth` under it."""
    _write_nifti(folder / image_path, raw.stored, raw.grid, raw.slope, description)
    truth = folder / TRUTH_FOLDER / image_path
    mask = truth.with_name(truth.name.replace("_T1w", "_desc-brain_mask"))
    _write_nifti(mask, raw.brain.astype(np.uint8), raw.grid, 1.0, description)
    source = {"Sources": [f"bids:raw:{image_path}"]}
    write_json(mask.with_name(mask.name.replace(".nii.gz", ".json")), {"Type": "Brain", **source})
    write_json(truth.with_name(truth.name.replace("_T1w.nii.gz", "_desc-truth.json")), {**_truth(raw, shape), **source})


def _truth(raw: RawScan, shape: HeadShape) -> dict[str, Any]:
    import nibabel

    return {
        "AffineNativeToTemplate": raw.affine_native_to_template.tolist(),
        "AffineResidualRmsMm": raw.residual_mm,
        "PoseHeadToNative": raw.pose.tolist(),
        "AffineHeadToTemplate": shape.affine.tolist(),
        "NativeGrid": raw.grid.to_dict(),
        "StorageOrder": "".join(nibabel.aff2axcodes(raw.grid.affine)),
        "VoxelSizeMm": list(raw.grid.spacing),
        "IntensitySlope": raw.slope,
    }


def _write_nifti(path: Path, data: npt.NDArray[Any], grid: Grid, slope: float, description: str) -> None:
    """Integers with a slope."""
    import nibabel

    image = nibabel.Nifti1Image(data, grid.affine)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_slope_inter(slope, 0.0)
    write_nifti(image, path, description=description)
