import errno
import os
import shutil
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

from ldae.base.files import (
    atomic_file,
    atomic_folder,
    check_new_folder,
    check_writable,
    held,
    own_json,
    sha256_of,
    write_bytes,
    write_json,
    write_text,
)
from ldae.errors import ConfigError, OutputError
from ldae.io.plain import from_plain, to_plain
from ldae.models.semantic_encoder import SemanticEncoderConfig, VolumeEncoderConfig


def interrupt(opened, work):
    """Work in an opened block, which Ctrl-C then ends."""

    def interrupted():
        with opened as place:
            work(place)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_an_interrupted_folder_leaves_the_former_one(tmp_path):
    target = tmp_path / "model"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("one")
    interrupt(atomic_folder(target), lambda folder: (folder / "a").write_text("two"))
    assert (target / "a").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with atomic_folder(target) as folder:
        (folder / "b").write_text("three")
    assert [path.name for path in target.iterdir()] == ["b"]


def test_what_a_killed_process_left_of_a_folder_goes_or_comes_back(tmp_path):
    for name in (".model-writing", ".model-former"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    found = []
    interrupt(atomic_folder(tmp_path / "model"), lambda folder: found.append(list(folder.iterdir())))
    assert found == [[]]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "a").read_text() == ".model-former"


def test_an_interrupted_file_leaves_the_former_one(tmp_path):
    target = write_text(tmp_path / "new" / "x.txt", "one")
    interrupt(atomic_file(target), lambda temporary: temporary.write_text("two"))
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == ["x.txt"]
    with atomic_file(target) as temporary:
        assert not temporary.exists()
        assert temporary.suffix == ".txt"
        temporary.write_text("three")
    assert target.read_text() == "three"


def test_two_may_write_one_file_at_once(tmp_path):
    target = tmp_path / "x.txt"
    with atomic_file(target) as first:
        first.write_text("the first")
        with atomic_file(target) as second:
            second.write_text("the second")
        assert target.read_text() == "the second"
    assert target.read_text() == "the first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_nothing_and_says_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with pytest.raises(OutputError, match=r"x.bin: the disk is full \(2.0 MiB are needed, 1.0 MiB are free\)"):
        write_bytes(tmp_path / "x.bin", bytes(1 << 21))

    def filled():
        with atomic_file(tmp_path / "y.bin") as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"y.bin: the disk is full \(1.0 MiB are free\)"):
        filled()
    assert not list(tmp_path.iterdir())


def test_a_place_is_tried_before_the_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is a file; give a folder"):
        check_writable(tmp_path / "file" / "out")

    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match=r"nothing can be written there \(Read-only file system\)"):
        check_writable(tmp_path / "new")


def test_a_place_is_held_by_one_alone_and_by_none_that_is_gone(tmp_path):
    with held(tmp_path / "run"):
        with pytest.raises(OutputError, match=rf"run: process {os.getpid()} is writing there"), held(tmp_path / "run"):
            pass
        with held(tmp_path / "other"):
            pass
    assert not list(tmp_path.iterdir())
    dying = "import os, sys, pathlib; from ldae.base.files import held; held(pathlib.Path(sys.argv[1])).__enter__(); os._exit(1)"
    assert subprocess.run([sys.executable, "-c", dying, str(tmp_path / "run")], check=False).returncode == 1
    with held(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_hold_is_seen_by_processes_with_another_place_for_temporary_files(tmp_path):
    late = "import sys, pathlib; from ldae.base.files import held; held(pathlib.Path(sys.argv[1])).__enter__()"
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with held(tmp_path / "run"):
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        second = [sys.executable, "-c", late, str(tmp_path / "link")]
        done = subprocess.run(second, env=environment, capture_output=True, text=True, check=False)
    assert f"process {os.getpid()} is writing there" in done.stderr


def test_places_that_cannot_be_are_refused_before_the_work(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    with pytest.raises(OutputError, match=r"a: no place for output \(No such file"):
        check_writable(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OutputError, match="no place for output"):
        check_writable(tmp_path / "a")
    with pytest.raises(OutputError, match=r"no place for output \(File name too long"):
        check_writable(tmp_path / ("x" * 300))


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", '{"a": 1}', "[" * 100_000])
def test_a_record_that_is_no_longer_one_is_named(tmp_path, text):
    path = write_text(tmp_path / "record.json", text)
    with pytest.raises(OutputError, match=r"record.json: not what an earlier run wrote there.*delete the file"):
        own_json(path, "a", "b")
    assert own_json(write_text(path, '{"a": 1, "b": 2}'), "a", "b") == {"a": 1, "b": 2}


def test_not_a_number_is_no_json_and_the_hash_is_the_standard_one(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
    path = write_text(tmp_path / "x", "abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_only_a_folder_of_the_same_kind_may_be_replaced(tmp_path):
    check_new_folder(tmp_path / "new", force=False, sign="*.json")
    check_new_folder(tmp_path, force=False, sign="*.json")
    write_json(tmp_path / "x.json", {"kind": "ours"})
    with pytest.raises(OutputError, match="--force to replace this one"):
        check_new_folder(tmp_path, force=False, sign="*.json", text=b"ours")
    check_new_folder(tmp_path, force=True, sign="*.json", text=b"ours")
    for sign, text in (("*.json", b"theirs"), ("*.txt", b"")):
        with pytest.raises(OutputError, match=r"new folder with --out$"):
            check_new_folder(tmp_path, force=True, sign=sign, text=text)


@pytest.mark.parametrize("plain", [{"volume": {"widht": 3}}, {"volume": {"widths": "many"}}, {"extra": 1}])
def test_dataclasses_survive_plain_mappings_and_unknown_keys_and_wrong_types_fail(plain):
    config = SemanticEncoderConfig(volume=VolumeEncoderConfig(widths=(4, 8), semantic_width=12))
    assert from_plain(SemanticEncoderConfig, to_plain(config), where="here") == config
    with pytest.raises(ConfigError, match=r"here: .*remove that key"):
        from_plain(SemanticEncoderConfig, plain, where="here")


def test_a_folder_in_the_way_of_a_file_is_named(tmp_path):
    with pytest.raises(OutputError, match="is a folder; give the name of a file"):
        write_bytes(tmp_path, b"content")
    assert list(tmp_path.iterdir()) == []
