"""Time and memory of a run that may be killed and continued."""

import time
from pathlib import Path
from typing import Any

from ldae.base.files import own_json, write_json
from ldae.base.hardware import peak_memory_gib
from ldae.errors import TaskError

__all__ = ["Clock"]


class Clock:
    """Seconds and peak memory of a run over all its sessions.

    Args:
        out: the run folder.
        request: options of the run; a folder that was started with others is refused.
        force: replace a run of other options.

    Raises:
        TaskError: if the folder belongs to another request.
    """

    def __init__(self, out: Path, request: dict[str, Any], *, force: bool = False) -> None:
        self.out, self.path = out, out / "clock.json"
        self.request = request
        self.before, self.peak_gib = 0.0, 0.0
        if self.path.is_file():
            former = own_json(self.path, "request", "seconds", "peak_gib")
            if former["request"] == request:
                self.before, self.peak_gib = former["seconds"], former["peak_gib"]
            elif not force:
                changed = sorted(
                    k for k in former["request"].keys() | request if former["request"].get(k) != request.get(k)
                )
                options = ", ".join(
                    f"--{name} was {former['request'].get(name)}, is {request.get(name)}" for name in changed
                )
                msg = f"{out} holds a run with other options ({options}); give another --out, or --force to replace it"
                raise TaskError(msg)
        self.start = time.perf_counter()

    def save(self) -> float:
        """Write the seconds so far, and return them."""
        seconds = self.before + time.perf_counter() - self.start
        self.peak_gib = max(self.peak_gib, peak_memory_gib())
        write_json(self.path, {"request": self.request, "seconds": seconds, "peak_gib": self.peak_gib})
        return seconds
