"""Scans drawn from semantic codes in 1 to 50 steps: nearness to the own scan, and to the test scans as a whole.

    python benchmarks/few_steps.py RUN [--scans 60] [--steps 1 2 3 4 5 10 50]

RUN is a run folder of `ldae demo`. Codes of its test subjects are drawn by plain DDIM with the same noise. `expected` is the
estimate in one step, `ceiling` the compression alone. `benchmarks/solvers.py --steps 1 2 3 5` tells the same of both codes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder, SamplingConfig
from ldae.data.manifest import Record, read_manifest
from ldae.metrics.images import compare_images
from ldae.metrics.samples import coverage, kernel_distance
from ldae.tasks.encode import encode_scans
from ldae.tasks.probe.baselines import SimpleFeatures

BATCH = 16


def first_scans(run: Path, split: str, count: int) -> list[Record]:
    """The first scan of so many subjects."""
    table = read_manifest(run / "manifest.tsv").in_split(split)
    return list(table.select(~table.table["participant_id"].duplicated()).records)[:count]


def main() -> None:
    """Measure and print a row a number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scans", type=int, default=60)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 4, 5, 10, 50])
    options = parser.parse_args()
    model = LatentDiffusionAutoencoder.from_pretrained(options.run / "model", precision="fp32")
    blocks = SimpleFeatures(model.config.preprocessing.voxel_size_mm)
    encode_scans(model, first_scans(options.run, "train", 2 * options.scans), visit=[blocks.see])
    training = blocks.embeddings()["tissue_blocks"].values
    test = encode_scans(model, first_scans(options.run, "test", options.scans))
    images, y = test.images(), torch.stack([codes.semantic for codes in test.codes])
    noise = model.draw_noise(len(y), torch.Generator().manual_seed(0))

    def features(of: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return (blocks.tissue_blocks(of).numpy() - training.mean(axis=0)) / training.std(axis=0).clip(1e-6)

    real = features(images)

    def row(name: str, latents: Tensor, seconds: float) -> None:
        drawn = model.decompress(latents)
        of = features(drawn)
        near = compare_images(drawn, images).mean()
        cells = (kernel_distance(of, real), coverage(real, of), near["ssim_brain"])
        print(f"| {name} | {cells[0]:.1f} | {cells[1]:.2f} | {cells[2]:.3f} | {seconds:.1f} |", flush=True)

    print("| drawn in | kernel distance | coverage | SSIM in the brain | seconds |\n|---|---|---|---|---|")
    row("ceiling", test.latents(), 0.0)
    row("expected", model.expected_latents(noise, y), 0.0)
    for steps in options.steps:
        start = time.perf_counter()
        sampling = SamplingConfig("ddim", steps)
        parts = [
            model.sample_latents(some, codes, sampling)
            for some, codes in zip(noise.split(BATCH), y.split(BATCH), strict=True)
        ]
        row(f"{steps} steps", torch.cat(parts), time.perf_counter() - start)


if __name__ == "__main__":
    main()
