"""Encode and decode one large random volume with random weights; prints seconds and peak memory.

    python benchmarks/large_volume.py [--size 256] [--config paper] [--precision bf16] [--out large_volume.json]

Nothing else should run in the process: the peak is the process's own.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from ldae.base.hardware import PeakMemory, channels_last, choose_device, choose_precision, peak_memory_gib
from ldae.config import load_experiment
from ldae.models.compression import CompressionAutoencoder
from ldae.models.streaming import decode_latents, encode_images


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="voxels along each axis")
    parser.add_argument("--config", default="paper")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    device = choose_device(options.device)
    bf16 = choose_precision(options.precision, device) == torch.bfloat16
    model = load_experiment(options.config).compression.model
    torch.manual_seed(0)
    compression = channels_last(CompressionAutoencoder(model).eval().to(device))
    shape = (options.size,) * 3
    x = torch.rand(1, 1, *shape)
    record = {
        "shape": shape,
        "channels": model.channels,
        "device": str(device),
        "precision": "bf16" if bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        for name in ("encode", "decode"):
            start = time.perf_counter()
            with PeakMemory(device) as memory:
                if name == "encode":
                    latent = encode_images(compression, x).mean
                else:
                    image = decode_latents(compression, latent, shape)
            record[name] = {"seconds": time.perf_counter() - start, "peak_gib": memory.peak_gib}
            print(f"{name} {shape}: {record[name]['seconds']:.0f} s, peak {memory.peak_gib:.2f} GiB", flush=True)
    assert image.shape == x.shape
    record["process_peak_gib"] = peak_memory_gib()
    print(f"process: peak {peak_memory_gib():.2f} GiB resident")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
