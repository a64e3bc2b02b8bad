"""One function of each scan, on many cores; a process that dies costs one scan."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any, NoReturn, TypeVar

from ldae.errors import CohortError

__all__ = ["one_itk_thread", "run_each", "whole_or_none"]

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_each(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    lost: Callable[[Job, BaseException], Result],
    workers: int = 1,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Results of a function of each job, in the order of the jobs; ITK runs on one thread.

    Args:
        function: of one job; raises nothing.
        jobs: to be sent to processes.
        lost: result for a job whose process died; it may raise.
        workers: processes; one runs in this process.
        executor: other place to run them.
        progress: called with (jobs done, all jobs).

    Raises:
        CohortError: if there is less than one worker.
    """
    if workers < 1:
        msg = f"workers must be at least 1, got {workers}; give the number of processes (--workers)"
        raise CohortError(msg)
    done: dict[int, Result] = {}

    def settle(index: int, result: Result) -> None:
        done[index] = result
        if progress is not None:
            progress(len(done), len(jobs))

    if workers == 1 and executor is None:
        for index, job in enumerate(jobs):
            settle(index, _on_one_thread(function, job))
    else:
        with executor or _Lanes(workers) as pool:
            futures = {pool.submit(_on_one_thread, function, job): index for index, job in enumerate(jobs)}
            for future in as_completed(futures):
                error, index = future.exception(), futures[future]
                settle(index, future.result() if error is None else lost(jobs[index], error))
    return [done[index] for index in range(len(jobs))]


def whole_or_none(_: object, error: BaseException) -> NoReturn:
    """Raise what ended a job's process, where a result is whole or not at all.

    Raises:
        CohortError: if the process died.
    """
    if isinstance(error, BrokenProcessPool):
        msg = (
            f"a worker process ended early ({error}); use fewer workers (--workers) if memory is short, and call this under "
            "'if __name__ == \"__main__\":' in a script"
        )
        raise CohortError(msg) from error
    raise error


def _on_one_thread(function: Callable[[Job], Result], job: Job) -> Result:
    with one_itk_thread():
        return function(job)


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


class _Lanes(Executor):
    """Processes that fail one by one.

    In a common pool, one process that is killed (usually for lack of memory) fails all waiting jobs. Here each worker is
    a pool of its own: the current job fails with `BrokenProcessPool`, and a new process takes the next.
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers)
        self._lane = threading.local()
        self._pools: list[ProcessPoolExecutor] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._threads.submit(self._call, function, args, kwargs)

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pool = getattr(self._lane, "pool", None)
        if pool is None:
            # What a process is started with blocked stays blocked: Ctrl-C is for the parent alone.
            if sys.platform != "win32":
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            # Spawned, not forked: a fork inherits the locks of ITK's thread pool.
            pool = self._lane.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self._pools.append(pool)
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            self._lane.pool = None
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an interruption, jobs that have not begun are dropped, and those that have are ended.
        if kind is not None and not issubclass(kind, Exception):
            self._threads.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
        self._threads.shutdown(cancel_futures=kind is not None)
        for pool in self._pools:
            pool.shutdown(cancel_futures=kind is not None)
