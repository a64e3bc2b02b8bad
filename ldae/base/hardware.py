"""Device, precision and memory: where a network runs, in which precision, and what it takes."""

import ctypes
import gc
import mmap
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn

from ldae.base.launch import is_rank
from ldae.base.ranges import check_choice
from ldae.errors import ConfigError, DependencyError

if sys.platform != "win32":
    import resource

__all__ = [
    "GIB",
    "Device",
    "PeakMemory",
    "Precision",
    "autocast",
    "channels_last",
    "choose_device",
    "choose_precision",
    "compiled",
    "has_bf16",
    "peak_memory_gib",
    "release_memory",
    "resident_gib",
    "single_precision",
    "trim_heap",
]

GIB = 2**30

Network = TypeVar("Network", bound=nn.Module)
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]


def choose_device(device: Device = "auto") -> torch.device:
    """The device to run on; `auto` takes a GPU where there is one, and each of several processes its own.

    Raises:
        ConfigError: if the named device is not there, or there are fewer than processes.
    """
    available: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, there in available.items() if there)
    if not available.get(device, False):
        present = ", ".join(name for name, there in available.items() if there)
        msg = f"device {device!r} is not available to this torch ({torch.__version__}), which has {present}; use --device auto"
        raise ConfigError(msg)
    if device != "cuda" or not is_rank():
        return torch.device(device)
    place, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if place >= there:
        msg = f"{os.environ['LOCAL_WORLD_SIZE']} processes were started for {there} GPUs; give --devices {there}"
        raise ConfigError(msg)
    return torch.device(device, place)


def channels_last(module: Network) -> Network:
    """Lay a 3D network's weights out channels-last, in which CPUs and GPUs convolve fastest; returns the module."""
    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return module


def has_bf16(device: torch.device) -> bool:
    """True if the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported and supported())
    return False


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix work under autocast: bfloat16 or float32. fp16 is not offered: it overflows in the decoder."""
    if precision == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    check_choice("precision", precision, ("auto", "fp32", "bf16"))
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Context of matrix work in a dtype of :func:`choose_precision`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def single_precision(device: torch.device) -> AbstractContextManager[object]:
    """Context of float32 work inside an autocast; devices without one (`meta`) need none."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def peak_memory_gib(device: torch.device | None = None) -> float:
    """Peak memory so far, in GiB: allocated on a GPU if one is named, else resident in this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    if sys.platform == "win32":
        return 0.0  # not measured
    # Linux counts kibibytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB


def resident_gib() -> float:
    """Memory resident in this process now, in GiB; the peak so far where the system has no /proc."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * mmap.PAGESIZE / GIB if statm.is_file() else peak_memory_gib()


@contextmanager
def compiled(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block, calls of the modules run compiled; the modules and the names of their tensors are the same.

    Raises:
        DependencyError: if torch cannot compile here.
    """
    modules = list(modules)
    if not modules:  # torch's compiler is slow to import
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    for module in modules:
        module.compile(dynamic=False)
    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split())[:300]
        msg = (
            f"torch cannot compile the networks here ({reason}); install g++, on a GPU triton too, or set "
            "optimisation.compile=false"
        )
        raise DependencyError(msg) from error
    finally:
        for module in modules:
            module._compiled_call_impl = None


def release_memory() -> None:
    """Return all freed memory to the system, of the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_heap()


def trim_heap() -> None:
    """Return the C library's freed memory to the system: kept in pieces, it grows from batch to batch of equal size."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


class PeakMemory:
    """Peak memory of a `with` block, in GiB: `with PeakMemory(device) as memory: ...; memory.peak_gib`.

    The allocator counts on a GPU. On the CPU the system's peak is the block's own if the block raised it; if not, the
    peak is the largest of readings once a second.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_gib = 0.0
        self._done = threading.Event()

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return self
        self._before = peak_memory_gib()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        peak = peak_memory_gib(self.device)
        if self.device.type != "cuda":
            self._done.set()
            self._reader.join()
        if self.device.type == "cuda" or peak > self._before:
            self.peak_gib = peak

    def _read(self) -> None:
        while True:
            self.peak_gib = max(self.peak_gib, resident_gib())
            if self._done.wait(1.0):
                return
