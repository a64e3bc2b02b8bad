"""Memory while something runs: resident in this process on the CPU, allocated on a GPU."""

import ctypes
import gc
import os
import resource
import sys
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

__all__ = ["GIB", "LiveTensors", "PeakMemory", "available_gib", "peak_memory_gib", "release_memory", "resident_gib"]

GIB = 2**30
STATM = Path("/proc/self/statm")
MEMINFO = Path("/proc/meminfo")
SAMPLE_SECONDS = 0.005


def peak_memory_gib(device: torch.device | None = None) -> float:
    """Peak memory so far: of the GPU if one is named, else resident in this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def resident_gib(device: torch.device | None = None) -> float:
    """Memory in use now; where the system does not tell, the peak so far."""
    if device is not None and device.type == "cuda":
        return torch.cuda.memory_allocated(device) / GIB
    if not STATM.is_file():
        return peak_memory_gib()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / GIB


def available_gib(device: torch.device | None = None) -> float | None:
    """Memory that is free for this process; None where the system does not tell."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GIB
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 / GIB


def release_memory() -> None:
    """Give back what was freed: the C library keeps it otherwise, and it would count as in use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class PeakMemory:
    """Peak memory of a `with` block, not of the process: `with PeakMemory(device) as memory: ...; memory.peak_gib`.

    On a GPU the allocator counts. On the CPU a thread looks at the resident memory every few milliseconds, because the
    process's own high-water mark never falls.

    Args:
        device: where the block runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_gib = 0.0

    def __enter__(self) -> "PeakMemory":
        self.peak_gib = resident_gib(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._done = threading.Event()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.peak_gib = peak_memory_gib(self.device)
        else:
            self._done.set()
            self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.peak_gib = max(self.peak_gib, resident_gib())


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the tensors that a `with` block makes, alive at once, at most; it needs no device and knows no allocator.

    Resident memory does not grow in proportion to small tensors; this does, which is what an extrapolation wants.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._bytes = 0
        self._storages: dict[int, int] = {}

    @property
    def peak_gib(self) -> float:
        """The most that was alive at once."""
        return self.peak_bytes / GIB

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._storages:
                    self._storages[storage._cdata] = storage.nbytes()
                    self._bytes += storage.nbytes()
                    self.peak_bytes = max(self.peak_bytes, self._bytes)
                    weakref.finalize(storage, self._forget, storage._cdata)
        return made

    def _forget(self, key: int) -> None:
        self._bytes -= self._storages.pop(key, 0)
