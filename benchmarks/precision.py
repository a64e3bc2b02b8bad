"""Compression steps in bf16 with channels-last against fp32, side by side in one run.

    python benchmarks/precision.py [--repeats 5] [--out benchmarks/results/precision.json]

Prints the ratio of medians; the runs alternate, so that a busy machine slows both.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from ldae.config import load_experiment
from ldae.models.compression import CompressionAutoencoder


def step(model: CompressionAutoencoder, x: torch.Tensor, *, bf16: bool) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = (model.decode_raw(model.posterior(x).mean).float() - x).abs().mean()
    loss.backward()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    experiment = load_experiment("phantom_5mm")
    x = torch.rand(4, 1, *experiment.preprocessing.shape)
    plain = CompressionAutoencoder(experiment.compression.model)
    fast = CompressionAutoencoder(experiment.compression.model).to(memory_format=torch.channels_last_3d)
    sides = {
        "fp32": (plain, x, False),
        "bf16_channels_last": (fast, x.contiguous(memory_format=torch.channels_last_3d), True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(options.repeats + 1):
        for name, (model, image, bf16) in sides.items():
            taken = step(model, image, bf16=bf16)
            if repeat:  # the first of each warms up
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    record = {
        "what": "one training step of the compression of phantom_5mm, batch 4",
        "seconds": seconds,
        "median_seconds": medians,
        "ratio": medians["fp32"] / medians["bf16_channels_last"],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
    }
    print(
        f"fp32 {medians['fp32']:.2f} s, bf16 + channels-last {medians['bf16_channels_last']:.2f} s: {record['ratio']:.1f} x"
    )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
