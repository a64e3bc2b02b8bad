"""Commands from signatures: names, types, defaults and help of options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from ldae.cli.command import Command, did_you_mean
from ldae.cli.options import Positional


@dataclass(frozen=True)
class Inner:
    """Inner settings.

    Attributes:
        edge_mm: edge in mm.
    """

    edge_mm: float = 1.5


@dataclass(frozen=True)
class Outer:
    """Settings.

    Attributes:
        align: align the scans.
        stride: of each axis.
        hidden: not shown.
        inner: more.
    """

    align: bool = True
    stride: tuple[int, int, int] = (1, 2, 2)
    hidden: int = 7
    inner: Inner = field(default_factory=Inner)


def run(
    scan: Annotated[Path, Positional(also="--scan")],
    settings: Outer,
    *,
    kind: Literal["a", "b"] = "a",
    steps: list[float] | None = None,
    limit: int | None = None,
    fast: bool = False,
):
    """Do it all.

    More of it.

    Args:
        scan: the scan.
        settings: of it.
        kind: of result.
        steps: signed steps.
        limit: at most.
        fast: skip the rest.
    """
    global got
    got = scan, settings, kind, steps, limit, fast


MADE = Command(("do",), run, names={"edge_mm": "edge"}, skip=("hidden",))


def given(*words):
    assert MADE.run(MADE.parser().read(words)) == 0
    return got


def test_values_have_the_defaults_and_the_types_of_the_signature():
    assert given("s.nii") == (Path("s.nii"), Outer(), "a", None, None, False)
    words = ("--scan", "s.nii", "--edge", "2", "--stride", "1", "1", "4", "--no-align", "--fast")
    found = given(*words, "--steps", "-2", "0.5", "--kind", "b", "--limit", "3")
    assert found == (Path("s.nii"), Outer(False, (1, 1, 4), inner=Inner(2.0)), "b", [-2.0, 0.5], 3, True)


def test_the_docstring_is_the_help():
    assert MADE.help == "do it all"
    shown = " ".join(MADE.parser().format_help().split())
    for words in (
        "Do it all. More of it.",
        "--no-align do not align the scans",
        "--edge EDGE edge in mm (default: 1.5)",
        "(default: 1 2 2)",
    ):
        assert words in shown
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "required: SCAN;"),
        (("s", "--edge", "x"), "--edge: needs a number, got x"),
        (("s", "--limit", "1.5"), "--limit: needs a whole number, got 1.5"),
        (("s", "--kin", "a"), "no option --kin here; did you mean --kind?"),
        (("s", "--kind", "c"), "invalid choice: 'c'"),
        (("s", "--stride", "1"), "--stride: expected 3 arguments"),
    ],
)
def test_a_bad_line_is_one_paragraph(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        MADE.parser().read(words)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1


def test_only_near_words_are_proposed():
    assert did_you_mean("cohrt", ["cohort", "fit"]) == "; did you mean cohort?"
    assert did_you_mean("xyz", ["cohort", "fit"]) == ""
