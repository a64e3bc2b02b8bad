"""Preprocess raw phantoms whose place in template space is known; prints how far the result is from the truth.

    python benchmarks/registration.py [--scans 20] [--voxel-size 2] [--rotation 45] [--translation 60]
                                      [--anatomy DIR] [--register-only] [--keep DIR] [--out registration.json]

Each scan is of another person, turned by up to --rotation degrees about any axis, shifted by up to --translation mm, and
stored in any of the 48 axis orders. Corner error of a scan: the eight corners of the bounding box of the template's
brain are taken to native space by the true affine and back by the one found; the mean and the largest of their eight
distances, in mm. Failed: refused by the registration. Silent: not refused, yet a corner is off by more than --silent mm.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ldae.atlas import load_template
from ldae.errors import CohortError
from ldae.head.bias_field import correct_bias
from ldae.head.preprocess import PreprocessConfig, preprocess_scan
from ldae.head.registration import register
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from ldae.phantom.pose import RawConfig
from ldae.volume import Grid, Volume, read_volume


def brain_corners_mm() -> np.ndarray:
    """Outer corners of the bounding box of the template's brain mask, RAS mm, homogeneous, (4, 8)."""
    mask = load_template(1.0).brain_mask
    occupied = np.argwhere(mask.data > 0.5)
    low, high = occupied.min(axis=0) - 0.5, occupied.max(axis=0) + 0.5
    voxels = np.array([[*corner, 1.0] for corner in itertools.product(*zip(low, high, strict=True))])
    return mask.affine @ voxels.T


def corner_errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distance of each corner after template -> native (true) -> template (found), mm, (8,)."""
    corners = brain_corners_mm()
    return np.linalg.norm((found @ np.linalg.inv(true) @ corners - corners)[:3], axis=0)


def dice_on(native: Grid, found: Volume, native_to_template: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of a template-space mask, brought back to the native grid, with the true mask."""
    back = Volume(found.data, np.linalg.inv(native_to_template) @ found.affine)
    mask = back.resample_to(native).data > 0.5
    return float(2 * (mask & truth).sum() / max(mask.sum() + truth.sum(), 1))


def measure(image: Path, cohort: Path, *, register_only: bool) -> dict[str, Any]:
    """One scan against its truth."""
    truth = cohort / "derivatives" / "truth" / image.relative_to(cohort)
    known = json.loads(truth.with_name(truth.name.replace("_T1w.nii.gz", "_desc-truth.json")).read_text())
    true = np.array(known["AffineNativeToTemplate"])
    volume = read_volume(image)
    row: dict[str, Any] = {"scan": image.name.removesuffix("_T1w.nii.gz"), "storage": known["StorageOrder"]}
    pose = np.array(known["PoseHeadToNative"])[:3, :3]
    row["rotation_deg"] = float(np.rad2deg(np.arccos(np.clip((np.trace(pose) - 1) / 2, -1, 1))))
    row["residual_rms_mm"] = known["AffineResidualRmsMm"]
    start = time.perf_counter()
    try:
        if register_only:
            registration = register(correct_bias(volume.to_ras()))
            found, quality = registration.affine_native_to_template, registration.correlation
        else:
            scan = preprocess_scan(volume, PreprocessConfig())
            found, quality = scan.affine_native_to_template, scan.quality.correlation
            mask = read_volume(truth.with_name(truth.name.replace("_T1w", "_desc-brain_mask"))).data > 0.5
            row["dice"] = dice_on(volume.grid, scan.brain_mask, found, mask)
            row["warnings"] = list(scan.warnings)
    except CohortError as error:
        return {**row, "failed": str(error), "seconds": time.perf_counter() - start}
    errors = corner_errors(found, true)
    row |= {"corner_mean_mm": float(errors.mean()), "corner_max_mm": float(errors.max()), "quality": float(quality)}
    return {**row, "seconds": time.perf_counter() - start}


def summary(rows: list[dict[str, Any]], silent_mm: float) -> dict[str, Any]:
    """Medians and worst cases over the scans that were not refused."""
    done = [row for row in rows if "failed" not in row]
    result: dict[str, Any] = {"scans": len(rows), "failed": len(rows) - len(done)}
    if not done:
        return result
    for name in ("corner_mean_mm", "corner_max_mm"):
        values = [row[name] for row in done]
        result |= {f"{name}_median": float(np.median(values)), f"{name}_worst": max(values)}
    result["silent"] = sum(row["corner_max_mm"] > silent_mm for row in done)
    dice = [row["dice"] for row in done if "dice" in row]
    if dice:
        result |= {"dice_mean": float(np.mean(dice)), "dice_worst": min(dice)}
    result["seconds_median"] = float(np.median([row["seconds"] for row in rows]))
    return result


def main() -> None:
    """Make, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=20, help="people, with one scan each")
    parser.add_argument("--voxel-size", type=float, default=2.0, help="smallest voxel edge, mm")
    parser.add_argument("--rotation", type=float, default=45.0, help="largest rotation, degrees")
    parser.add_argument("--translation", type=float, default=60.0, help="largest translation, mm")
    parser.add_argument(
        "--anatomy", type=Path, default=None, help="folder of label maps instead of the template's head"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--register-only", action="store_true", help="bias correction and registration, no brain mask")
    parser.add_argument("--silent", type=float, default=10.0, help="mm beyond which an accepted result is wrong")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the phantoms; used again if it is there")
    parser.add_argument("--out", type=Path, default=None, help="JSON record")
    options = parser.parse_args()
    raw = RawConfig(max_rotation_deg=options.rotation, max_translation_mm=options.translation)
    config = PhantomConfig(
        n_subjects=options.scans,
        voxel_size_mm=options.voxel_size,
        max_sessions=1,
        seed=options.seed,
        raw=raw,
        anatomy=None if options.anatomy is None else str(options.anatomy),
    )
    with tempfile.TemporaryDirectory() as scratch:
        cohort = synthesise_cohort(options.keep or Path(scratch) / "phantoms", config).parent
        rows = []
        for image in sorted(cohort.glob("sub-*/ses-*/anat/*_T1w.nii.gz")):
            row = measure(image, cohort, register_only=options.register_only)
            rows.append(row)
            head = f"{row['scan']} {row['storage']} {row['rotation_deg']:4.0f} deg {row['seconds']:4.0f} s"
            if "failed" in row:
                print(f"{head}  FAILED: {row['failed']}", flush=True)
                continue
            dice = f", Dice {row['dice']:.3f}" if "dice" in row else ""
            corners = f"corners {row['corner_mean_mm']:6.2f} mm (largest {row['corner_max_mm']:6.2f})"
            print(f"{head}  {corners}, correlation {row['quality']:.2f}{dice}", flush=True)
    result = summary(rows, options.silent)
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"voxel_size_mm": options.voxel_size, "rotation_deg": options.rotation}
        record |= {"translation_mm": options.translation, "seed": options.seed}
        record |= {"anatomy": options.anatomy and str(options.anatomy), "summary": result, "scans": rows}
        options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
