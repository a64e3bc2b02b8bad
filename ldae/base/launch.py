"""Start a command in several processes on this machine, one a device, which train together."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ["is_follower", "is_rank", "launch"]

GRACE = 10.0
"""Seconds in which processes end by themselves after one has failed, and again after they were asked to."""


def is_rank() -> bool:
    """True in a process that :func:`launch` or torchrun started."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= os.environ.keys()


def is_follower() -> bool:
    """True in every such process but the first, which alone writes files that all share."""
    return is_rank() and os.environ["RANK"] != "0"


def launch(command: Sequence[str], processes: int) -> int:
    """Run a command in several processes, which are told their ranks as by torchrun; when one fails, all end.

    The first writes to the terminal. What others said is shown only if one of them is the first to fail.

    Args:
        command: program and arguments.
        processes: how many.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGTERM, _end)
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        shared = {
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": processes,
            "GROUP_RANK": 0,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free.getsockname()[1],
            "TORCHELASTIC_RUN_ID": "ldae",  # by which Lightning knows them
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        }
        free.close()
        said = [Path(folder) / str(rank) for rank in range(processes)]
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank, path in enumerate(said):
                own = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
                with path.open("wb") as file:
                    output = None if rank == 0 else file
                    ranks.append(
                        subprocess.Popen(
                            command, env=os.environ | own, stdout=output, stderr=output, preexec_fn=_end_with_parent
                        )
                    )
            while None in (codes := [each.poll() for each in ranks]) and not any(codes):
                time.sleep(0.1)
        finally:
            failed = [rank for rank, each in enumerate(ranks) if each.poll()]
            if any(each.poll() is None for each in ranks):
                _wait(ranks)
                for end in ("terminate", "kill"):
                    for each in ranks:
                        getattr(each, end)()
                    _wait(ranks)
        first, lost = ranks[0].returncode, next(iter(failed), 0)
        if lost and (first <= 0 or ranks[lost].returncode < 0):
            code = ranks[lost].returncode
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            last = said[lost].read_text(errors="replace").strip().splitlines()[-3:]
            sys.stderr.write("\n".join([*last, f"error: process {lost + 1} of {processes} {how}\n"]))
        return first if first > 0 else int(bool(failed))


def _end_with_parent() -> None:
    """Have the system end this process with the one that started it, even if that is killed; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _wait(ranks: Sequence["subprocess.Popen[bytes]"]) -> None:
    end = time.monotonic() + GRACE
    while any(each.poll() is None for each in ranks) and time.monotonic() < end:
        time.sleep(0.1)


def _end(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)
