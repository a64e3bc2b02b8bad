"""Processes started together."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ldae.base import launch as module
from ldae.base.launch import is_follower, is_rank, launch, started_here


def python(code):
    return [sys.executable, "-c", f"import os, sys, time; rank = os.environ['RANK']; {code}"]


def test_each_process_knows_its_rank(tmp_path, capfd):
    assert launch(python(f"open(os.path.join({str(tmp_path)!r}, rank), 'w'); print('rank', rank)"), 3) == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0", "1", "2"]
    assert capfd.readouterr().out == "rank 0\n"


def test_the_same_error_of_all_is_said_once(capfd):
    assert launch(python("sys.exit('error: no such file')"), 2) == 1
    assert capfd.readouterr().err == "error: no such file\n"


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("sys.exit('error: no memory')", "error: no memory\nerror: process 2 of 2 ended with exit code 1\n"),
        ("os.kill(os.getpid(), 9)", "error: process 2 of 2 was ended by signal 9\n"),
    ],
)
def test_one_that_fails_ends_the_others(death, said, capfd, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.3)
    begun = time.monotonic()
    assert launch(python(f"time.sleep(60) if rank == '0' else {death}"), 2) == 1
    assert time.monotonic() - begun < 30
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("follows", [3, 2])
def test_the_cause_is_told_where_the_first_only_follows(follows, capfd):
    first = f"(time.sleep(0.5), sys.stderr.write('error of 0'), sys.exit({follows}))"
    code = f"{first} if rank == '0' else sys.exit('error of 1')"
    assert launch(python(code), 2) == (2 if follows == 2 else 1)
    assert ("error of 1\nerror: process 2 of 2 ended with exit code 1" in capfd.readouterr().err) == (follows == 3)


def test_the_end_of_the_first_is_told(capfd):
    assert launch(python("os.kill(os.getpid(), 9) if rank == '0' else None"), 2) == 1
    assert capfd.readouterr().err == "error: process 1 of 2 was ended by signal 9\n"


def test_ranks_are_told_by_the_environment(monkeypatch):
    assert not is_rank()
    for name in ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert is_rank()
        assert not started_here()
        assert is_follower() == (rank == "1")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's end")
def test_none_outlives_a_parent_that_is_killed(tmp_path):
    child = python(f"open(os.path.join({str(tmp_path)!r}, str(os.getpid())), 'w'); time.sleep(60)")
    parent = subprocess.Popen([sys.executable, "-c", f"from ldae.base.launch import launch; launch({child!r}, 2)"])
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    parent.wait()
    for each in tmp_path.iterdir():
        wait_until(lambda each=each: not is_running(int(each.name)))


def is_running(process):
    state = Path(f"/proc/{process}/stat")
    return state.is_file() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
