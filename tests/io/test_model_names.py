"""Models by folder, by name, and on the hub."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

import ldae
from ldae.errors import CheckpointError
from ldae.io import model_names
from ldae.io.model_names import find_direction, find_model


def test_a_folder_comes_before_a_name(tmp_path, monkeypatch):
    shipped = {"one": tmp_path / "weights" / "one"}
    monkeypatch.setattr(model_names, "shipped_models", lambda: shipped)
    assert find_model("one") == shipped["one"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    assert find_model("one").resolve() == tmp_path / "one"


def test_unknown_names_are_refused_with_the_known_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(model_names, "shipped_models", lambda: {"one": tmp_path})
    for name in ("two", "owner/name", "runs/demo/model", "a/b/c@1"):
        with pytest.raises(CheckpointError, match=r"no such model folder; .*\(one\).*owner/name@revision"):
            find_model(name)


def test_the_hub_needs_its_extra_and_a_network(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'ldae\[hub\]'"):
        find_model("owner/name@abc")

    class Hub:
        @staticmethod
        def snapshot_download(repository: str, revision: str) -> str:
            msg = f"no network for {repository} {revision}"
            raise OSError(msg)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    with pytest.raises(CheckpointError, match=r"owner/name@abc: not loaded .no network for owner/name abc"):
        find_model("owner/name@abc")


def test_a_model_goes_to_the_hub_and_its_revision_loads_it_again(monkeypatch, tmp_path, tiny_model):
    class Hub:
        kept = tmp_path / "kept"
        made: ClassVar[dict] = {}

        @classmethod
        def create_repo(cls, repository: str, **options):
            cls.made[repository] = options

        @classmethod
        def upload_folder(cls, *, repo_id: str, folder_path: Path, commit_message: str):
            if repo_id not in cls.made:
                raise PermissionError(repo_id)
            shutil.copytree(folder_path, cls.kept)
            return SimpleNamespace(oid="c0ffee")

        @classmethod
        def snapshot_download(cls, repository: str, revision: str) -> str:
            assert (repository, revision) == ("owner/name", "c0ffee")
            return str(cls.kept)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    name = tiny_model.push_to_hub("owner/name")
    assert Hub.made == {"owner/name": {"private": True, "exist_ok": True}}
    assert ldae.from_pretrained(name).fingerprint() == tiny_model.fingerprint()
    monkeypatch.setattr(Hub, "create_repo", lambda *_, **__: None)
    with pytest.raises(CheckpointError, match=r"other/name: not uploaded \(other/name\); .*'hf auth login'"):
        tiny_model.push_to_hub("other/name")


def test_directions_come_with_a_model(tmp_path):
    folder = tmp_path / "model" / "directions"
    folder.mkdir(parents=True)
    (folder / "ventricles.json").touch()
    (tmp_path / "mine.json").touch()
    assert find_direction("ventricles", tmp_path / "model") == folder / "ventricles.json"
    assert find_direction(tmp_path / "mine.json", tmp_path / "model") == tmp_path / "mine.json"
    with pytest.raises(CheckpointError, match=r"nor a direction of .*model, which has ventricles"):
        find_direction("hippocampi", tmp_path / "model")
