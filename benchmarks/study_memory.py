"""Peak memory of `ldae study` with one model on phantom cohorts of several sizes: images stream, so it hardly grows.

python benchmarks/study_memory.py MODEL [--scans 100 1000] [--out runs/study_memory]
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import read_manifest, write_manifest
from ldae.data.splits import assign_splits
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort

SCANS_A_SUBJECT = 2.5
FRACTIONS = (0.7, 0.1, 0.2)


def main() -> None:
    """Make one cohort, run a study on a part of it for each size, and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--scans", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--out", type=Path, default=Path("runs/study_memory"))
    options = parser.parse_args()
    contract = LatentDiffusionAutoencoder.from_pretrained(options.model, device="cpu").config.preprocessing
    subjects = round(max(options.scans) / SCANS_A_SUBJECT)
    config = PhantomConfig(n_subjects=subjects, voxel_size_mm=contract.voxel_size_mm, max_sessions=4)
    whole = read_manifest(synthesise_cohort(options.out / "cohort", config, workers=2)).table
    for scans in options.scans:
        chosen = whole["participant_id"].drop_duplicates().head(round(scans / SCANS_A_SUBJECT))
        path = options.out / "cohort" / f"manifest_{scans}.tsv"
        write_manifest(whole[whole["participant_id"].isin(chosen)], path)
        assign_splits(read_manifest(path), fractions=FRACTIONS, overwrite=True).write(path)
        out = options.out / f"study_{scans}"
        command = [sys.executable, "-m", "ldae", "study", "--model", str(options.model), "--manifest", str(path)]
        subprocess.run([*command, "--out", str(out), "--device", "cpu", "--precision", "fp32"], check=True)
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        # Of the study alone; the largest child so far includes the report.
        print(f"{results['n_scans']} scans: peak {results['peak_memory_gib'] * 1024:.0f} MiB", flush=True)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(f"largest process, report included: {children:.0f} MiB")


if __name__ == "__main__":
    main()
