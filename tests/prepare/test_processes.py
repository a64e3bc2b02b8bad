"""Processes: one that dies costs the work in hand, and no more."""

import os
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool

import pytest
import SimpleITK

from ldae.errors import CohortError
from ldae.prepare.processes import ProcessLanes, one_itk_thread


def test_a_process_that_is_killed_takes_no_other_work_with_it() -> None:
    with ProcessLanes(2) as lanes:
        codes = {lanes.submit(os._exit, 9): "killed"} | {lanes.submit(abs, -n): n for n in range(4)}
        codes[lanes.submit(int, "x")] = "refused"
        outcomes = {codes[future]: future.exception() or future.result() for future in as_completed(codes)}
    assert isinstance(outcomes["killed"], BrokenProcessPool)
    assert isinstance(outcomes["refused"], ValueError)
    assert [outcomes[n] for n in range(4)] == [0, 1, 2, 3]
    with pytest.raises(CohortError, match="at least 1, got -3"):
        ProcessLanes(-3)


def test_the_number_of_threads_is_given_back() -> None:
    before = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with one_itk_thread():
        assert SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
    assert SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() == before
