"""Each network compiled by torch.compile against the same network as it is, side by side in one run, forward passes only.

    python benchmarks/compiled.py [--config demo paper] [--device auto] [--repeats 5] [--out benchmarks/results/compiled.json]

Weights are random. Prints the seconds of the first compiled pass, which compiles, and the ratio of the medians of later ones; the runs
alternate, so that a busy machine slows both.
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


def passes(name: str, batch: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    """A forward pass of each network of a configuration, by name."""
    config = load_experiment(name).autoencoder
    torch.manual_seed(0)
    networks = Networks(config).to(device).eval().requires_grad_(False)
    image = torch.rand(batch, 1, *config.preprocessing.shape, device=device)
    latent = networks.compression.encode(image).mean
    t = torch.full((batch,), 500, device=device)
    code = torch.rand(batch, config.semantic_encoder.semantic_width, device=device)
    features = networks.denoiser.features(latent, t)
    compression = networks.compression

    def with_inputs(function: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        return lambda: function(*inputs)

    compress: Callable[[Tensor], Tensor] = lambda x: compression.encode(x).mean  # noqa: E731
    decompress: Callable[[Tensor], Tensor] = lambda z: compression.decode(z, image.shape[2:])  # noqa: E731
    denoise: Callable[..., Tensor] = lambda z, t: networks.denoiser.predict(networks.denoiser.features(z, t))  # noqa: E731
    functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "compression encode": (compress, (image,)),
        "compression decode": (decompress, (latent,)),
        "denoiser": (denoise, (latent, t)),
        "gradient estimator": (networks.gradient_estimator, (features, code)),
        "semantic encoder": (networks.semantic_encoder, (image, latent, latent)),
    }
    found: dict[str, Callable[[], Any]] = {}
    for network, (function, inputs) in functions.items():
        found[network] = with_inputs(function, *inputs)
        found[f"{network}, compiled"] = with_inputs(torch.compile(function), *inputs)
    return found


def seconds(function: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> float:
    """Of one pass."""
    start = time.perf_counter()
    with torch.inference_mode(), autocast(device, dtype):
        function()
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
        found = passes(name, options.batch, device)
        for network in [each for each in found if not each.endswith("compiled")]:
            sides = [found[network], found[f"{network}, compiled"]]
            first = [seconds(side, device, dtype) for side in sides]
            taken = [[seconds(side, device, dtype) for side in sides] for _ in range(options.repeats)]
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
