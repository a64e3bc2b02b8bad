"""Time and memory of preprocessing a head of 256 x 256 x 192 voxels of 1 mm, and what a second process gains.

    python benchmarks/preprocessing.py [--scans 4] [--workers 2] [--image FILE] [--out preprocessing.json]

The head is a raw phantom, or `--image` resampled to that grid. Each figure is of fresh processes, starting included: one
process with one scan (seconds and peak memory), then `--scans` scans by one and by `--workers` processes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ldae.data.manifest import write_manifest
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from ldae.phantom.pose import RawConfig
from ldae.volume import Grid, read_volume, write_volume

SHAPE = (256, 256, 192)


def head(image: Path | None, folder: Path) -> Path:
    """A head on the grid that is asked for."""
    if image is None:
        config = PhantomConfig(n_subjects=1, voxel_size_mm=1.0, max_sessions=1, raw=RawConfig())
        synthesise_cohort(folder / "phantom", config)
        image = next((folder / "phantom").glob("sub-*/ses-*/anat/*_T1w.nii.gz"))
    volume = read_volume(image)
    middle = (volume.affine @ np.append((np.asarray(volume.data.shape) - 1) / 2, 1.0))[:3]
    x, y, z = (float(value) for value in middle)
    return write_volume(volume.resample_to(Grid.centred(SHAPE, 1.0, (x, y, z)), order=3), folder / "head.nii.gz")


def preprocess(manifest: Path, out: Path, workers: int) -> float:
    """Seconds of one run of the command."""
    command = [sys.executable, "-m", "ldae", "cohort", "preprocess", "--manifest", str(manifest), "--out", str(out)]
    start = time.perf_counter()
    subprocess.run([*command, "--workers", str(workers)], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=4, help="scans of the comparison")
    parser.add_argument("--workers", type=int, default=2, help="processes of the comparison")
    parser.add_argument("--image", type=Path, default=None, help="a T1w head instead of a phantom")
    parser.add_argument("--out", type=Path, default=None, help="JSON record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        image = head(options.image, folder)

        def manifest(n: int) -> Path:
            table = pd.DataFrame(
                {"participant_id": [f"s{i}" for i in range(n)], "session_id": "01", "image": str(image)}
            )
            return write_manifest(table, folder / f"{n}.tsv")

        one = preprocess(manifest(1), folder / "one", 1)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = {
            "shape": SHAPE,
            "one_scan_s": one,
            "one_scan_cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_gib": usage.ru_maxrss / 2**20,
            "scans": options.scans,
            "workers": options.workers,
            "alone_s": preprocess(manifest(options.scans), folder / "alone", 1),
            "together_s": preprocess(manifest(options.scans), folder / "together", options.workers),
        }
    record["scaling"] = record["alone_s"] / record["together_s"]
    print(json.dumps(record, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
