"""Brain masks of `ldae cohort preprocess` against somebody's segmentations, scan by scan.

    python benchmarks/brain_extraction.py --images DIR --masks DIR [--out brain_extraction.json]

A mask belongs to the image whose name it begins with. Dice is between voxels inside our brain (on the scan's own grid) and
voxels of the segmentation above 0; `filled` is the same with the segmentation closed over 6 mm, because a segmentation of
tissue leaves out the fluid in the sulci.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from ldae.base.processes import one_itk_thread
from ldae.errors import LdaeError
from ldae.head.morphology import close
from ldae.head.preprocess import PreprocessConfig, preprocess_scan
from ldae.volume import read_volume


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def main() -> None:
    """Extract, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of T1w heads")
    parser.add_argument("--masks", type=Path, required=True, help="folder of segmentations")
    parser.add_argument("--out", type=Path, default=None, help="JSON record")
    options = parser.parse_args()
    rows = []
    print(f"{'scan':<24} Dice   filled  ours ml  theirs ml  correlation  CPU s  warnings")
    for image in sorted(options.images.glob("*.nii*")):
        stem = image.name.split(".nii")[0]
        (mask,) = (path for path in options.masks.glob("*.nii*") if path.name.startswith(stem))
        volume, truth = read_volume(image), read_volume(mask)
        start = time.process_time()
        try:
            with one_itk_thread():
                scan = preprocess_scan(volume, PreprocessConfig())
        except LdaeError as error:
            print(f"{stem:<24} FAILED: {error}", flush=True)
            rows.append({"scan": stem, "failed": str(error)})
            continue
        seconds = time.process_time() - start
        ours = scan.native_mask.resample_to(truth.grid, order=0).data > 0
        theirs = truth.data > 0
        ml = truth.grid.voxel_volume_ml
        row = {
            "scan": stem,
            "dice": dice(ours, theirs),
            "dice_filled": dice(ours, close(theirs, 6.0, truth.spacing)),
            "ours_ml": float(ours.sum() * ml),
            "theirs_ml": float(theirs.sum() * ml),
            "correlation": scan.quality.correlation,
            "cpu_s": seconds,
            "warnings": list(scan.warnings),
        }
        rows.append(row)
        print(
            f"{stem:<24} {row['dice']:.3f}  {row['dice_filled']:.3f}   {row['ours_ml']:6.0f}   {row['theirs_ml']:6.0f}     "
            f"{row['correlation']:.3f}        {seconds:4.0f}   {'; '.join(scan.warnings)}",
            flush=True,
        )
    done = np.array([[row["dice"], row["dice_filled"]] for row in rows if "failed" not in row])
    if len(done):
        (mean, filled), worst = done.mean(axis=0), done[:, 0].min()
        print(f"mean {mean:.4f} (filled {filled:.4f}), worst {worst:.4f}, {len(done)} of {len(rows)} scans")
    if options.out is not None:
        options.out.write_text(json.dumps({"scans": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
