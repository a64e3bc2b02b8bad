"""The documentation builds without a warning, and every command line that it shows is one that the parser takes."""

import html
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ldae.cli.main import build_parsers, read_command_line
from ldae.data.manifest import read_manifest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data_manifests" / "README.md", *ROOT.glob("docs/*.md")]
)
SHELLS = ("bash", "console", "shell")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def words_after_ldae(line: str) -> list[str] | None:
    """The arguments of an `ldae` call, or None if the line is something else."""
    words = shlex.split(line.strip().removeprefix("$ "), comments=True)
    if not words or Path(words[0]).name != "ldae":
        return None
    # What comes after belongs to the shell.
    end = next((i for i, word in enumerate(words) if word in (">", "|", "&&", "||", ";")), len(words))
    return words[1:end]


def documented_commands() -> list[tuple[str, list[str]]]:
    """Where each command line stands, and its arguments."""
    found = []
    for page in PAGES:
        for _, language, body in FENCE.findall(page.read_text(encoding="utf-8")):
            if language in SHELLS:
                # A line that ends in a backslash goes on in the next.
                calls = [words_after_ldae(line) for line in re.sub(r"\\\n\s*", " ", body).splitlines()]
                found += [(page.relative_to(ROOT).as_posix(), words) for words in calls if words is not None]
    return found


@pytest.mark.parametrize(("where", "words"), documented_commands(), ids=lambda value: str(value)[:60])
def test_documented_command_lines_are_accepted_by_the_parser(
    where: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if {"--help", "--version"} & set(words):
        with pytest.raises(SystemExit) as stop:
            read_command_line(words)
        assert stop.value.code == 0
    else:
        read_command_line(words)
        assert capsys.readouterr().err == "", f"{where}: an old name"


@pytest.mark.slow
def test_the_check_of_a_gpu_can_be_rehearsed_without_one(tmp_path: Path) -> None:
    words = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    subprocess.run([*words, "--parts", "parity", "training", "inference"], check=True, timeout=400)
    found = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert [part["outcome"] for part in found["parts"].values()] == ["passed"] * 3
    assert len(found["parts"]["training"]["result"]) == 3
    assert "| compression encode | fp32 | 0 | True |" in (tmp_path / "check.md").read_text(encoding="utf-8")


def test_every_command_is_shown_somewhere() -> None:
    runs = build_parsers()
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = {tuple(words[: len(path)]) for _, words in documented_commands() for path in runs}
    missing = [path for path in runs if path not in shown and " ".join(("ldae", *path)) not in text]
    assert [path for path in missing if path[0] != "interpolate"] == []


def test_relative_links_exist_and_example_manifests_are_valid() -> None:
    for page in (page for page in PAGES if page.parent != ROOT / "docs"):
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"
    examples = sorted((ROOT / "data_manifests").glob("*.tsv"))
    assert len(examples) >= 2
    for example in examples:
        assert len(read_manifest(example, check_images=False)) > 0


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    # A copy, because the build writes its reference beside the pages.
    source = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("_build", "reference", "__pycache__"))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "ldae" / "report" / "schema", tmp_path / "ldae" / "report" / "schema")
    out = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(source), str(out)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    pages = ("index", "quickstart", "own_data", "encode", "probe", "edit", "missing_visit", "explore", "train", "gpu")
    for page in (*pages, "troubleshooting", "method", "phantom", "evaluation", "evidence", "contributing", "changelog"):
        assert (out / f"{page}.html").is_file(), page
    runs = build_parsers()
    command_line = html.unescape((out / "reference" / "cli.html").read_text(encoding="utf-8"))
    for path in runs:
        assert f'id="{"-".join(("ldae", *path))}"' in command_line
    interface = (out / "reference" / "api" / "autoencoder.html").read_text(encoding="utf-8")
    assert 'id="ldae.autoencoder.LatentDiffusionAutoencoder.encode"' in interface
    assert "reference/api/autoencoder.html" in (out / "api.html").read_text(encoding="utf-8")
    assert "<math" in (out / "method.html").read_text(encoding="utf-8")
