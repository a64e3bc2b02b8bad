"""A folder is searched once, whatever its links do."""

import os
from pathlib import Path

import pytest

from ldae.errors import CohortError
from ldae.prepare.imports.image_files import find_files, find_images, manifest_path
from tests.import_files import touch


def found(folder: Path, **options) -> tuple[list[str], dict[str, bool]]:
    files = find_files(folder, (".nii",), **options)
    return [files.name(path) for path in files.files], {item.source: item.expected for item in files.skipped}


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "a/b/x.nii")
    (tmp_path / "a" / "b" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self.nii").symlink_to("self.nii")
    assert found(tmp_path) == (["a/b/x.nii"], {"a/b/again": True, "a/self.nii": False})


def test_a_link_never_hides_the_folder_that_it_leads_to_and_an_annex_is_read(tmp_path):
    touch(tmp_path, "z/x.nii", ".git/annex/objects/1.nii")
    (tmp_path / "a").symlink_to("z", target_is_directory=True)
    (tmp_path / "x.nii").symlink_to(".git/annex/objects/1.nii")
    (tmp_path / "y.nii").symlink_to(".git/annex/objects/2.nii")
    assert found(tmp_path) == (["x.nii", "z/x.nii"], {"a": True, "y.nii": False})


def test_links_out_of_the_folder_are_followed_only_when_asked(tmp_path):
    touch(tmp_path, "in/x.nii", "out/y.nii", "out/deep/z.nii")
    (tmp_path / "in" / "file.nii").symlink_to("../out/y.nii")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out", target_is_directory=True)
    (tmp_path / "out" / "back").symlink_to(tmp_path, target_is_directory=True)
    assert found(tmp_path / "in") == (["x.nii"], {"file.nii": False, "folder": False})
    names, skipped = found(tmp_path / "in", follow_links=True)
    assert names == ["file.nii", "folder/deep/z.nii", "folder/y.nii", "x.nii"]
    assert skipped == {"folder/back": True}


def test_any_name_is_found_and_nothing_but_a_link_is_said(tmp_path):
    touch(tmp_path, "Ünïcode 脳/sub 01 [é].nii", ".hidden/x.nii", "._x.nii", "notes.txt")
    assert found(tmp_path) == (["Ünïcode 脳/sub 01 [é].nii"], {})
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "y.nii").symlink_to("nowhere.nii")
    with pytest.raises(CohortError, match=r"1 links were not followed"):
        find_images(tmp_path / "links")


def test_a_manifest_names_images_relative_only_below_it(tmp_path):
    inside, outside = tmp_path / "a" / "x.nii", tmp_path / "b" / "x.nii"
    assert manifest_path(inside, tmp_path / "a" / "m.tsv") == "x.nii"
    assert manifest_path(outside, tmp_path / "a" / "m.tsv") == os.fspath(outside)
