"""What the demo and the study say of the time that is left."""

import time

import pytest

from ldae.cli.study import SHARES, _say_left
from ldae.tasks.study.run import PARTS


def test_shares_of_time_are_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert sum(PARTS.values()) == 100


def test_the_rest_is_told_at_the_pace_of_the_part_that_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    _say_left("training", 1000.0 - 60 * SHARES["training"] / SHARES["study"])
    assert capsys.readouterr().out == "training done; about 60.0 s left of the whole run\n"
    _say_left("training", 995.0)
    assert not capsys.readouterr().out, "it was done before, and has no pace"
