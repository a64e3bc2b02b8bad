"""Parts of a study, each done once."""

import pytest

from ldae.base.files import write_text
from ldae.errors import TaskError
from ldae.tasks.study.parts import Parts


@pytest.fixture
def again(tmp_path):
    """Runs one part in a new process, as it were: its result, the reason of a skip, and if it was computed."""

    def run(compute):
        parts, computed = Parts(tmp_path / "key", tmp_path / "tasks"), []

        def part():
            computed.append(True)
            return compute(tmp_path / "tasks")

        return parts.result("part", part), parts.skipped.get("part"), bool(computed)

    return run


def made(folder, text="made"):
    write_text(folder / "part.json", text)
    return {"scans": (1, 2)}


def test_a_finished_part_is_read(again):
    assert again(made) == ({"scans": [1, 2]}, None, True)
    assert again(made) == ({"scans": [1, 2]}, None, False)


def test_a_part_whose_file_was_removed_or_replaced_is_done_again(again, tmp_path):
    again(made)
    (tmp_path / "tasks" / "part.json").unlink()
    assert again(made)[2]
    write_text(tmp_path / "tasks" / "part.json", "of another run")
    assert again(made)[2]
    assert (tmp_path / "tasks" / "part.json").read_text() == "made"
    write_text(tmp_path / "tasks" / "other.json", "of another part")
    assert not again(made)[2]


def test_what_cannot_be_answered_says_why_each_time(again):
    def fails(folder):
        msg = "there is no diagnosis"
        raise TaskError(msg)

    assert again(fails) == (None, "there is no diagnosis", True)
    assert again(fails) == (None, "there is no diagnosis", True)
    assert again(made) == ({"scans": [1, 2]}, None, True)


def test_an_interrupted_part_is_not_finished(again):
    def stops(folder):
        made(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(stops)
    assert again(made)[2]
