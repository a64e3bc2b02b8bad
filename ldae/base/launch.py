"""Start a command in several processes on this machine, one a device, which train together."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

__all__ = ["ENDED", "PEER_LOST", "ended_tidily", "is_follower", "is_rank", "launch", "started_here"]

RUN, NAME = "TORCHELASTIC_RUN_ID", "ldae"
"""By which Lightning knows processes that were started together."""
PEER_LOST = 3
"""Exit code of a process that ended because another had."""
ENDED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM ended."""
GRACE = 10.0
"""Seconds in which processes end by themselves after one has failed, and again after they were asked to."""


@contextmanager
def ended_tidily() -> Iterator[None]:
    """Let SIGTERM leave the block as an exit with code 143, so that it can tidy up; processes started together end at once."""
    if is_rank() or threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former or signal.SIG_DFL)


def is_rank() -> bool:
    """True in a process that :func:`launch` or torchrun started."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= os.environ.keys()


def started_here() -> bool:
    """True in a process that :func:`launch` started."""
    return is_rank() and os.environ.get(RUN) == NAME


def is_follower() -> bool:
    """True in every such process but the first, which alone writes files that all share."""
    return is_rank() and os.environ["RANK"] != "0"


def launch(command: Sequence[str], processes: int, *, output: int | None = None) -> int:
    """Exit code of a command run in several processes, which are told their ranks as by torchrun; when one fails, all end.

    The first writes to the terminal, or to the file descriptor `output`. What others said is shown only if one of them is
    the first to fail.
    """
    with ended_tidily(), socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        shared = {
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": processes,
            "GROUP_RANK": 0,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free.getsockname()[1],
            RUN: NAME,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // processes)),
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        }
        free.close()
        said = [Path(folder) / str(rank) for rank in range(processes)]
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank, path in enumerate(said):
                own = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
                with path.open("wb") as file:
                    out, err = (file, file) if rank else (output, None)
                    tie = _end_with_parent if sys.platform == "linux" else None
                    ranks.append(
                        subprocess.Popen(command, env=os.environ | own, stdout=out, stderr=err, preexec_fn=tie)
                    )
            while None in (now := [each.poll() for each in ranks]) and not any(now):
                time.sleep(0.1)
        finally:
            failed = [rank for rank, each in enumerate(ranks) if each.poll()]
            if any(each.poll() is None for each in ranks):
                _wait(ranks)
                for end in ("terminate", "kill"):
                    for each in ranks:
                        getattr(each, end)()
                    _wait(ranks)
        codes = [each.wait() for each in ranks]
        if not failed:
            return 0
        # Not one that only followed another.
        cause = next((rank for rank in failed if codes[rank] != PEER_LOST), failed[0])
        told = codes[0] > 0 and codes[0] != PEER_LOST  # by the first, which writes to the terminal
        if codes[cause] < 0 or not told:
            how = f"was ended by signal {-codes[cause]}" if codes[cause] < 0 else f"ended with exit code {codes[cause]}"
            last = said[cause].read_text(errors="replace").strip().splitlines()[-3:] if cause else []
            sys.stderr.write("\n".join([*last, f"error: process {cause + 1} of {processes} {how}\n"]))
        return codes[0] if told else max(codes[cause], 1)


def _end_with_parent() -> None:
    """Have the system end this process with the one that started it, even if that is killed; Linux alone can."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _wait(ranks: Sequence["subprocess.Popen[bytes]"]) -> None:
    end = time.monotonic() + GRACE
    while any(each.poll() is None for each in ranks) and time.monotonic() < end:
        time.sleep(0.1)


def _end(*_: object) -> NoReturn:
    raise SystemExit(ENDED)
