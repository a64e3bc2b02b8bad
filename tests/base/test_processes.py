"""Processes: one that dies costs the current job, and no more."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import SimpleITK

from ldae.base.processes import one_itk_thread, run_each
from ldae.errors import CohortError

THREADS = "__import__('SimpleITK').ProcessObject.GetGlobalDefaultNumberOfThreads()"


@pytest.mark.slow
def test_a_process_that_is_killed_takes_no_other_work_with_it() -> None:
    calls: list[tuple[int, int]] = []
    jobs = ["__import__('os')._exit(9)", "1 + 1", "int('x')", "3", THREADS]
    results = run_each(
        eval, jobs, lost=lambda job, error: (job, type(error)), workers=2, progress=lambda *n: calls.append(n)
    )
    assert results == [(jobs[0], BrokenProcessPool), 2, (jobs[2], ValueError), 3, 1]
    assert calls == [(n, 5) for n in range(1, 6)]
    with pytest.raises(CohortError, match="at least 1, got -3"):
        run_each(eval, jobs, lost=lambda *_: None, workers=-3)


@pytest.mark.slow
def test_an_interruption_ends_processes_at_once_and_without_a_word(tmp_path: Path) -> None:
    """As a terminal does it, to the whole group; and to the parent alone."""
    program = (
        "import sys\nfrom ldae.base.processes import run_each\n"
        "jobs = [\"__import__('time').sleep(60)\"] * 4\n"
        "if __name__ == '__main__':\n    print('go', flush=True)\n    run_each(eval, jobs, lost=lambda *_: None, workers=2)\n"
    )
    script = tmp_path / "jobs.py"
    script.write_text(program)
    for send in (os.killpg, os.kill):
        process = subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(8)
        send(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert errors.count("Traceback") == 1, errors
        assert errors.rstrip().endswith("KeyboardInterrupt")


def test_the_number_of_threads_is_given_back() -> None:
    before = eval(THREADS)
    assert run_each(eval, [THREADS], lost=lambda *_: None) == [1]
    with one_itk_thread():
        assert SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
    assert eval(THREADS) == before
