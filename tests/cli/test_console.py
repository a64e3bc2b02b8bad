"""What the terminal shows: nothing is cut, nothing is silent for long, p-values read alike."""

import json
import os
import signal
import time

import pytest
from rich.console import Console

from ldae.cli import console
from ldae.cli.console import as_json, duration, exit_on_error, p_value, progress_bar, say, table
from ldae.cli.training import announce
from ldae.training.plan import Plan


@pytest.mark.parametrize(
    ("p", "words"),
    [(0.000999, "< 0.001"), (0.0, "< 0.001"), (0.001, "0.001"), (0.0123, "0.012"), (1.0, "1.000")],
)
def test_p_values_read_alike(p, words):
    assert p_value(p) == words


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_of_a_table_are_whole_at_any_width(monkeypatch, capsys, width):
    monkeypatch.setattr(console, "console", Console(width=width, soft_wrap=True))
    names = ["trajectory_residual", "ldae_residual"]
    figure = "0.856 [0.831, 0.880]"
    columns = ["method", "SSIM", "change error", "change correl.", "ventricles"]
    table("methods", columns, [[name, *[figure] * 4] for name in names])
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    assert "…" not in shown
    assert shown.count("0.880]") == 8
    long = "/very/long/name/of/a/probe/that/fills/more/than/half/of/the/terminal_model"
    table("probes", ["probe", "change"], [[long, figure]])
    folded = capsys.readouterr().out
    assert "…" not in folded
    assert long in "".join(line.split("│")[1].strip() for line in folded.splitlines() if line.startswith("│"))


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys):
    clock = [0.0]
    with progress_bar("train", clock=lambda: clock[0]) as move:
        for done in range(101):
            clock[0] = 10.0 * done
            move(done, 100, "loss 0.5")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16
    assert lines[0] == "train: 6 of 100, loss 0.5; about 15.7 min left"
    assert lines[-1].startswith("train: 96 of 100")
    clock[0] = 0.0
    # A resumed stage is timed by itself.
    with progress_bar("train", clock=lambda: clock[0]) as move:
        for clock[0], done in ((100.0, 500), (160.0, 510)):
            move(done, 600)
    assert capsys.readouterr().out.splitlines() == ["train: 500 of 600", "train: 510 of 600; about 9.0 min left"]


def test_a_quick_task_says_nothing(capsys):
    with progress_bar("encode") as move:
        for done in range(5):
            move(done, 4)
    say(duration(59.0))
    assert capsys.readouterr().out == "59.0 s\n"


def test_a_task_without_parts_is_not_silent(capsys, monkeypatch):
    monkeypatch.setattr("ldae.cli.console.SILENT_SECONDS", 0.01)
    with progress_bar("preprocess"):
        time.sleep(0.3)
    assert capsys.readouterr().out == "preprocess: at work\n"


def test_mirror_images_are_not_counted_as_scans(capsys):
    for learnt, words in ((945, "training and"), (1890, "training scans and their mirror images, and")):
        announce(Plan("denoiser", 10, 5, learnt, 135, 800, 8, 8, "cpu", "bf16", 0.5, 400.0, 1.25), 945)
        assert f"945 {words} 135 validation" in capsys.readouterr().out


def _interrupted_by(cause):
    raise KeyboardInterrupt from cause


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(1)), 143, "ended by SIGTERM"),
        (lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(1)), 130, "interrupted"),
        # Lightning's exits: after SIGTERM without a code, after Ctrl-C with 1.
        (lambda: _interrupted_by(SystemExit()), 143, "ended by SIGTERM"),
        (lambda: _interrupted_by(SystemExit(1)), 130, "interrupted"),
    ],
)
def test_what_ended_a_command_is_told_by_its_code(capsys, end, code, said):
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no test may end all of them
    try:
        with pytest.raises(SystemExit) as stopped, as_json(["fit"]), exit_on_error(verbose=False):
            end()
    finally:
        restored = signal.signal(signal.SIGTERM, before)
    assert restored is signal.default_int_handler
    assert stopped.value.code == code
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == code
    assert said in told["notices"][0]
