"""What a machine can do, and how much of it the networks get: matrix rate, copy bandwidth, achieved FLOP/s and bytes."""

import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.networks import semantic_predict

__all__ = ["machine_rates", "roofline"]


def clock(device: torch.device) -> float:
    """The time, once the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def machine_rates(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Measured matrix rate in FLOP/s, in the precision that the networks run in, and copy bandwidth in bytes/s."""
    side = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty((2**30 if device.type == "cuda" else 2**27) // 4, device=device)
    target = torch.empty_like(source)
    products, copies = [], []
    for _ in range(6):
        start = clock(device)
        a @ b
        products.append(clock(device) - start)
        start = clock(device)
        target.copy_(source)
        copies.append(clock(device) - start)
    return {
        "matrix_flops_per_second": 2 * side**3 / statistics.median(products[1:]),
        # A copy reads and writes.
        "copy_bytes_per_second": 2 * source.numel() * 4 / statistics.median(copies[1:]),
    }


class Traffic:
    """Bytes that layers read and write: inputs, outputs and weights, each once a call. Fused kernels move fewer."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.bytes = 0
        self.size = torch.empty((), dtype=dtype).element_size()
        self.handles = [
            leaf.register_forward_hook(self._count) for leaf in module.modules() if not list(leaf.children())
        ]

    def _count(self, leaf: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [each for each in (*inputs, output) if isinstance(each, Tensor)]
        self.bytes += self.size * sum(t.numel() for t in (*tensors, *leaf.parameters(recurse=False)))

    def stop(self) -> int:
        """Bytes so far; counts no more."""
        for handle in self.handles:
            handle.remove()
        return self.bytes


@torch.inference_mode()
def roofline(model: LatentDiffusionAutoencoder, rates: dict[str, float], batch: int) -> dict[str, Any]:
    """FLOP/s and bytes/s of each part, against what the machine was measured to do.

    Args:
        model: what runs.
        rates: of :func:`machine_rates`.
        batch: scans at a time.
    """
    device, networks = model.device, model.networks
    images = torch.rand(batch, 1, *model.config.preprocessing.shape, device=device)
    z_0 = networks.compression.encode(images[:1]).mean.expand(batch, -1, -1, -1, -1).contiguous()
    y = networks.semantic_encoder(images[:1]).float().expand(batch, -1).contiguous()
    t = torch.full((batch,), 500, device=device)
    parts = {
        "one denoiser and gradient pass": lambda: semantic_predict(networks, y, model.config)(z_0, t),
        "semantic encoder": lambda: networks.semantic_encoder(images),
        "compress": lambda: networks.compression.encode(images),
        "decompress": lambda: networks.compression.decode(z_0),
    }
    found = {}
    for name, part in parts.items():
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=model.dtype == torch.bfloat16):
            counter, traffic = FlopCounterMode(display=False), Traffic(networks, model.dtype)
            with counter:
                part()
            moved = traffic.stop()
            seconds = []
            for _ in range(4):
                start = clock(device)
                part()
                seconds.append(clock(device) - start)
        median = statistics.median(seconds[1:])
        flops = counter.get_total_flops()
        found[name] = {
            "seconds": median,
            "flops": flops,
            "bytes": moved,
            "flops_per_second": flops / median,
            "bytes_per_second": moved / median,
            "share_of_matrix_rate": flops / median / rates["matrix_flops_per_second"],
            "share_of_copy_bandwidth": moved / median / rates["copy_bytes_per_second"],
        }
    return found
