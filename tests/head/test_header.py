"""Headers: each fault planted in the bytes of a file, and a sound file without any."""

import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ldae.head.findings import ERROR
from ldae.head.header import check_file, check_header
from ldae.image_files import Header, read_header

SHAPE = (40, 44, 42)
SIZES = np.array([4.0, 4.2, 4.1])
PIXDIM = 76


def write(path: Path, shape=SHAPE, dtype=np.int16, affine=None, codes=(1, 1)) -> Path:
    affine = np.diag([-SIZES[0], *SIZES[1:], 1.0]) if affine is None else affine
    image = nibabel.Nifti1Image(np.ones(shape, dtype), affine, dtype=dtype)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    nibabel.save(image, path)
    return path


def codes_of(path: Path) -> list[str]:
    header = read_header(path)
    assert header is not None
    return [finding.code for finding in check_header(header, path.stat().st_size)]


def patch(path: Path, offset: int, packed: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(packed)] = packed
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize(
    ("offset", "packed", "code"),
    [
        # The reader would mend these.
        (PIXDIM + 4, struct.pack("<f", 0.0), "bad-spacing"),
        (PIXDIM + 4, struct.pack("<f", -2.0), "bad-spacing"),
        (PIXDIM + 4, struct.pack("<f", float("nan")), "bad-spacing"),
        # More than the file holds, and more than any.
        (42, struct.pack("<3h", 800, 800, 800), "unreadable"),
        (42, struct.pack("<3h", 30000, 30000, 30000), "huge"),
        (312, struct.pack("<4f", 0.0, 0.0, 0.0, 0.0), "singular-affine"),
    ],
)
def test_impossible_bytes_are_named(tmp_path: Path, offset: int, packed: bytes, code: str) -> None:
    assert codes_of(patch(write(tmp_path / "a.nii"), offset, packed)) == [code]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"shape": (20, 20, 20, 3)}, "four-dimensional"),
        ({"shape": (20, 20, 1)}, "single-slice"),
        ({"shape": (20, 20)}, "single-slice"),
        ({"dtype": np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])}, "colour"),
        ({"dtype": np.complex64}, "complex"),
        ({"dtype": np.int64}, "wide-type"),
        ({"dtype": np.float64}, "wide-type"),
        ({"shape": (40, 44, 12)}, "few-slices"),
        ({"shape": (40, 44, 20)}, "small-field"),
        ({}, None),
        ({"shape": (*SHAPE, 1)}, None),
        # Voxel sizes that no scanner has, or no brain wants.
        ({"affine": np.diag([4.0, 4.0, 14.0, 1.0])}, "absurd-spacing"),
        ({"affine": np.diag([0.004, 0.004, 0.004, 1.0])}, "absurd-spacing"),
        ({"affine": np.diag([4.0, 4.0, 8.0, 1.0])}, "thick-slices"),
        ({"affine": np.diag([2.6, 2.6, 4.0, 1.0])}, "thick-slices"),
    ],
)
def test_what_is_no_structural_scan_is_named(tmp_path: Path, given, code: str | None) -> None:
    assert codes_of(write(tmp_path / "a.nii.gz", **given)) == [code] * (code is not None)


def test_a_sound_header_of_freesurfer_has_no_findings(tmp_path: Path) -> None:
    nibabel.save(nibabel.MGHImage(np.ones(SHAPE, np.float32), np.diag([*SIZES, 1.0])), tmp_path / "sound.mgz")
    assert codes_of(tmp_path / "sound.mgz") == []


def test_anisotropic_but_thin_is_a_notice_only() -> None:
    affine = np.diag([0.6, 0.6, 1.2, 1.0])
    findings = check_header(Header((256, 256, 128), (0.6, 0.6, 1.2), np.dtype("i2"), affine))
    assert [(finding.severity.word, finding.code) for finding in findings] == [("notice", "anisotropic")]


def test_left_and_right_unknown_or_contradicted(tmp_path: Path) -> None:
    assert codes_of(write(tmp_path / "none.nii.gz", codes=(0, 0))) == ["ambiguous-orientation"]
    path = write(tmp_path / "two.nii.gz")
    image = nibabel.load(path)
    image.set_sform(np.diag([SIZES[0], *SIZES[1:], 1.0]), 1)
    nibabel.save(image, tmp_path / "conflict.nii.gz")
    assert codes_of(tmp_path / "conflict.nii.gz") == ["orientation-conflict"]
    shifted = image.affine.copy()
    shifted[:3, :3] = np.diag([-SIZES[0], *SIZES[1:]])
    shifted[1, 3] += 7.0
    image.set_sform(shifted, 1)
    nibabel.save(image, tmp_path / "shifted.nii.gz")
    assert codes_of(tmp_path / "shifted.nii.gz") == ["geometry-conflict"]


def test_axes_that_are_not_perpendicular_and_sizes_that_disagree(tmp_path: Path) -> None:
    sheared = np.diag([*SIZES, 1.0])
    sheared[0, 2] = 0.8
    assert "sheared" in codes_of(write(tmp_path / "a.nii.gz", affine=sheared, codes=(0, 1)))
    path = patch(write(tmp_path / "b.nii", codes=(0, 1)), PIXDIM + 4, struct.pack("<f", 1.0))
    assert codes_of(path) == ["spacing-conflict"]


def test_paths_that_lead_to_no_image(tmp_path: Path) -> None:
    def code(path: Path) -> str | None:
        finding = check_file(path)
        assert finding is None or finding.severity == ERROR
        return None if finding is None else finding.code

    loop = tmp_path / "loop.nii.gz"
    loop.symlink_to(loop)
    (tmp_path / "text.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "folder.nii").mkdir()
    assert code(loop) == "symlink-loop"
    assert code(tmp_path / "text.nii.gz") == "text-file"
    assert code(tmp_path / "empty.nii.gz") == "unreadable"
    assert code(tmp_path / "nowhere.nii.gz") == code(tmp_path / "folder.nii") == "missing-file"
    assert code(write(tmp_path / "ünï code (1).nii.gz")) is None
