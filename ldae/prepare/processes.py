"""Many scans on many cores, where the death of one process costs one scan."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from ldae.errors import CohortError

__all__ = ["ProcessLanes", "one_itk_thread"]


class ProcessLanes(Executor):
    """Processes that do not fall together.

    In an ordinary pool of processes, one that is killed (for want of memory, as a rule) takes all waiting work with it.
    Here each worker is a pool of its own: the work in hand fails with `BrokenProcessPool`, and a new process goes on.

    Args:
        workers: processes at a time.

    Raises:
        CohortError: if there are fewer than one.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            msg = f"workers must be at least 1, got {workers}"
            raise CohortError(msg)
        self._threads = ThreadPoolExecutor(workers)
        self._lane = threading.local()
        self._pools: list[ProcessPoolExecutor] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a function called in one of the processes."""
        return self._threads.submit(self._call, function, args, kwargs)

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pool = getattr(self._lane, "pool", None)
        if pool is None:
            # Spawned, not forked: a fork inherits the locks of ITK's thread pool.
            pool = self._lane.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self._pools.append(pool)
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            self._lane.pool = None
            raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the processes end, once the work in hand, or all that waits, is done."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Who interrupts the work does not wait for what has not begun.
        self.shutdown(cancel_futures=kind is not None)


@contextmanager
def one_itk_thread() -> Iterator[None]:
    """ITK on one thread: several add up in an order of their own, so that the same scan would give other last digits."""
    import SimpleITK

    threads = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
