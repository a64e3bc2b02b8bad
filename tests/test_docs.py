"""The documentation builds without a warning, and every command line that it shows is one that the parser takes."""

import html
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldae.cli.main import build_parser
from ldae.data.manifest import read_manifest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data_manifests" / "README.md", *ROOT.glob("docs/*.md")]
)
SCRIPTS = sorted(ROOT.glob("scripts/*.sh"))
SHELLS = ("bash", "console", "shell")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def joined_lines(text: str) -> Iterator[str]:
    """Lines of a shell program, those that end in a backslash joined with the next."""
    yield from re.sub(r"\\\n\s*", " ", text).splitlines()


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
                for line in joined_lines(body):
                    words = words_after_ldae(line)
                    if words is not None:
                        found.append((page.relative_to(ROOT).as_posix(), words))
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        values = {"LDAE": "ldae"}

        def value_of(match: re.Match[str], values: dict[str, str] = values) -> str:
            return values[match[1] or match[2]]

        for line in joined_lines(text):
            assignment = re.fullmatch(r'([A-Z_]+)="(?:\$\{\1:-([^}]*)\}|([^"]*))"', line)
            filled = re.sub(r"\$(?:\{([A-Z_]+)\}|([A-Z_]+))", value_of, line) if "$" in line else line
            if assignment:
                name, default, literal = assignment.groups()
                values[name] = default if default is not None else re.sub(r"\$([A-Z_]+)", value_of, literal)
                continue
            words = None if line.lstrip().startswith("#") else words_after_ldae(filled)
            if words is not None:
                found.append((script.relative_to(ROOT).as_posix(), words))
    return found


@pytest.mark.parametrize(("where", "words"), documented_commands(), ids=lambda value: str(value)[:60])
def test_documented_command_lines_are_accepted_by_the_parser(
    where: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser, runs = build_parser()
    try:
        namespace = parser.parse_args(words)
    except SystemExit as stop:
        assert stop.code == 0, f"{where}: ldae {shlex.join(words)}\n{capsys.readouterr().err}"
        return
    path = [namespace.command]
    options = namespace[namespace.command]
    while "subcommand" in options:
        path.append(options.subcommand)
        options = options[options.subcommand]
    assert tuple(path) in runs


def test_every_command_is_shown_somewhere() -> None:
    _, runs = build_parser()
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = {tuple(words[: len(path)]) for _, words in documented_commands() for path in runs}
    missing = [path for path in runs if path not in shown and " ".join(("ldae", *path)) not in text]
    # `ldae fit` has a subcommand for each stage; one row of the README's table names them all.
    assert [path for path in missing if path[0] not in ("fit", "interpolate")] == []


def test_relative_links_exist() -> None:
    for page in (page for page in PAGES if page.parent != ROOT / "docs"):
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_example_manifests_are_valid() -> None:
    examples = sorted((ROOT / "data_manifests").glob("*.tsv"))
    assert len(examples) >= 2
    for example in examples:
        assert len(read_manifest(example, check_images=False)) > 0


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    # A copy, because the build writes its reference beside the pages.
    source = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("_build", "reference", "__pycache__"))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    out = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(source), str(out)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    for page in ("index", "quickstart", "method", "phantom", "evaluation", "real_scans", "contributing", "changelog"):
        assert (out / f"{page}.html").is_file(), page
    _, runs = build_parser()
    command_line = html.unescape((out / "reference" / "cli.html").read_text(encoding="utf-8"))
    for path in runs:
        assert f'id="{"-".join(("ldae", *path))}"' in command_line
    interface = (out / "reference" / "api" / "autoencoder.html").read_text(encoding="utf-8")
    assert 'id="ldae.autoencoder.LatentDiffusionAutoencoder.encode"' in interface
    assert "reference/api/autoencoder.html" in (out / "api.html").read_text(encoding="utf-8")
    assert "<math" in (out / "method.html").read_text(encoding="utf-8")
