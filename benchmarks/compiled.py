"""Each network compiled by torch.compile against the same network as it is, side by side in one run, forward passes only.

    python benchmarks/compiled.py [--config demo paper] [--device auto] [--repeats 5] [--out benchmarks/results/compiled.json]

Weights are random. Prints the seconds of the first compiled pass, which compiles, and the ratio of the medians of later ones; the
runs alternate, so that a busy machine slows both.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldae.autoencoder import Networks
from ldae.base.hardware import autocast, choose_device, choose_precision
from ldae.config import load_experiment

Pass = tuple[Callable[..., Tensor], tuple[Any, ...]]


def passes(name: str, batch: int, device: torch.device) -> dict[str, Pass]:
    """A forward pass of each network of a configuration and its inputs, the same on every device."""
    config = load_experiment(name).autoencoder
    torch.manual_seed(0)
    networks = Networks(config).eval().requires_grad_(False)
    for parameter in networks.parameters():  # layers that begin at zero would hide what they are given
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    networks.to(device)
    shape = config.preprocessing.shape
    image = torch.rand(batch, 1, *shape).to(device)
    z = torch.randn(batch, *config.compression.latent_shape(shape)).to(device)
    code = torch.randn(batch, config.semantic_encoder.semantic_width).to(device)
    t = torch.full((batch,), 500, device=device)
    compression, denoiser = networks.compression, networks.denoiser
    return {
        "compression encode": (lambda x: compression.encode(x).mean, (image,)),
        "compression decode": (lambda z: compression.decode(z, shape), (z,)),
        "denoiser": (lambda z, t: denoiser.predict(denoiser.features(z, t)), (z, t)),
        "gradient estimator": (networks.gradient_estimator, (denoiser.features(z, t), code)),
        "semantic encoder": (networks.semantic_encoder, (image,)),
    }


def seconds(
    function: Callable[..., Tensor], inputs: tuple[Any, ...], device: torch.device, dtype: torch.dtype
) -> float:
    """Of one pass."""
    start = time.perf_counter()
    with torch.no_grad(), autocast(device, dtype):
        function(*inputs)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", default=["demo", "paper"])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = choose_device(options.device)
    dtype = choose_precision("auto", device)
    rows = []
    for name in options.config:
        for network, (function, inputs) in passes(name, options.batch, device).items():
            sides = [function, torch.compile(function)]
            first = [seconds(side, inputs, device, dtype) for side in sides]
            taken = [[seconds(side, inputs, device, dtype) for side in sides] for _ in range(options.repeats)]
            plain, compiled = (statistics.median(each) for each in zip(*taken, strict=True))
            rows.append(
                {
                    "config": name,
                    "network": network,
                    "seconds": plain,
                    "compiled_seconds": compiled,
                    "ratio": plain / compiled,
                    "compile_seconds": first[1],
                }
            )
            print(
                f"{name:8s} {network:20s} {plain:9.4f} s  {plain / compiled:5.2f} x  compiled in {first[1]:.0f} s",
                flush=True,
            )
    record = {
        "torch": torch.__version__,
        "device": str(device),
        "precision": str(dtype),
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
