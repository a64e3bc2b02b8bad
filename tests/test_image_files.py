"""Image files as they should not be: damaged, too large, or silent on where their voxels lie."""

import gzip
import logging
import struct
import tracemalloc
from contextlib import contextmanager

import nibabel
import numpy as np
import pytest

from ldae.base.processes import run_each, whole_or_none
from ldae.data.inputs import read_scan
from ldae.errors import VolumeError
from ldae.image_files import Reading, read_header, read_image, reading
from ldae.volume import Volume, read_volume, write_volume


def without_forms(path, data):
    image = nibabel.Nifti1Image(data, None)
    image.header.set_zooms((1.0, 2.0, 3.0))
    image.header["qform_code"] = image.header["sform_code"] = 0
    nibabel.save(image, path)
    return path


def nrrd(path, data, *fields):
    sizes = " ".join(map(str, data.shape))
    lines = ["NRRD0004", "type: float", f"dimension: {data.ndim}", f"sizes: {sizes}", "encoding: raw", "endian: little"]
    # A later line counts where a field stands twice.
    path.write_bytes("\n".join([*lines, *fields, "", ""]).encode() + data.astype("<f4").tobytes(order="F"))
    return path


@contextmanager
def memory_below(limit: float):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd"])
@pytest.mark.parametrize("damage", ["bit", "checksum", "size", "end"])
def test_damage_in_compressed_files_is_found(blob: Volume, tmp_path, suffix, damage):
    path = write_volume(blob, tmp_path / f"scan{suffix}")
    packed = bytearray(path.read_bytes())
    if damage == "bit":
        packed[len(packed) * 2 // 3] ^= 0x10
    elif damage == "checksum":
        packed[-8:-4] = struct.pack("<I", 0)
    elif damage == "size":
        packed[-4:] = struct.pack("<I", 7)
    else:
        del packed[-6:]
    path.write_bytes(packed)
    with pytest.raises(VolumeError, match=r"scan.*unreadable or truncated .*copy or convert the file again") as refused:
        read_volume(path)
    assert "ITK" not in str(refused.value)


def test_a_file_that_unpacks_to_more_than_it_states_is_refused_early(blob: Volume, tmp_path):
    path = write_volume(blob, tmp_path / "scan.nii")
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(path.read_bytes())
        file.write(bytes(1 << 25))
    with pytest.raises(VolumeError, match=r"holds more than the .* bytes that its header states"):
        read_volume(bomb)


def test_only_the_intensities_are_in_memory_whole(tmp_path):
    data = np.zeros((128, 128, 128), np.complex128)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "wide.nii.gz")
    del data
    with memory_below(3 * 4 * 128**3):  # the file's own numbers take four times the intensities
        assert read_image(tmp_path / "wide.nii.gz")[0].dtype == np.float32


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_header_extensions_are_limited_and_never_read(blob: Volume, tmp_path, suffix):
    image = blob.to_nibabel()
    content = bytearray(image.to_bytes())
    size = 1 << 25
    extension = b"\1\0\0\0" + struct.pack("<2i", size, 6) + bytes(size - 8)
    content[348:352] = extension
    opened = gzip.open if suffix == ".nii.gz" else open
    for start, large in ((352 + size, False), ((1 << 26) + 16, True)):
        content[108:112] = struct.pack("<f", start)
        with opened(tmp_path / f"a{suffix}", "wb") as file:
            file.write(content)
        with memory_below(1 << 24):
            if large:
                with pytest.raises(
                    VolumeError, match=r"extensions take 67,108,880 bytes, the limit is 67,108,864; convert"
                ):
                    read_image(tmp_path / f"a{suffix}")
            else:
                np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}")[0], blob.data)


def test_size_is_checked_before_voxels_are_read(blob: Volume, tmp_path):
    header = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.float32), np.eye(4)).header
    header.set_data_shape((20000, 20000, 300))
    path = tmp_path / "huge.nii"
    path.write_bytes(header.binaryblock + bytes(4096))
    with pytest.raises(VolumeError, match=r"20000 x 20000 x 300 voxels takes 447.0 GiB, the limit is 2 GiB.*--max-gib"):
        read_volume(path)
    small = write_volume(blob, tmp_path / "small.nii")
    with reading(Reading(max_gib=1e-6)), pytest.raises(VolumeError, match="limit is 1e-06 GiB"):
        read_volume(small)
    with reading(Reading(max_gib=1e-6)), pytest.raises(VolumeError, match="the new grid"):
        blob.resample_to(Volume(np.zeros((20, 20, 20)), np.eye(4)).grid)


def test_complex_numbers_become_their_magnitude(tmp_path, caplog):
    rng = np.random.default_rng(0)
    data = rng.random((4, 5, 6)) + 1
    phase = np.exp(1j * rng.random((4, 5, 6)) * 6)
    nibabel.save(nibabel.Nifti1Image((data * phase).astype(np.complex64), np.eye(4)), tmp_path / "complex.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "complex.nii.gz").data, data, rtol=1e-5)
    assert "magnitude" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (np.diag([-1.0, 1, 1, 1]), "qform gives LAS, sform RAS"),
        (np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "qform gives ALS, sform RAS"),
        (
            np.array([[1.0, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            "differ by up to 3 mm; the sform is used",
        ),
    ],
)
def test_conflicts_of_the_forms_are_warned_of_or_refused(tmp_path, caplog, change, words):
    image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4))
    image.set_sform(np.eye(4), 1)
    image.set_qform(change, 1)
    nibabel.save(image, tmp_path / "conflict.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "conflict.nii.gz").affine, np.eye(4))
    assert words in caplog.text
    with reading(Reading(strict=True)), pytest.raises(VolumeError, match=words):
        read_volume(tmp_path / "conflict.nii.gz")


def test_forms_of_different_spaces_may_differ(tmp_path, caplog):
    image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4))
    image.set_qform(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 20, 1)
    image.set_sform(np.eye(4), 4)
    nibabel.save(image, tmp_path / "two.nii.gz")
    with caplog.at_level(logging.WARNING):
        read_volume(tmp_path / "two.nii.gz")
    assert not caplog.text


def test_what_a_file_does_not_say_has_to_be_told(tmp_path):
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    nifti, plain = without_forms(tmp_path / "none.nii.gz", data), nrrd(tmp_path / "none.nrrd", data)
    with pytest.raises(VolumeError, match=r"does not state the directions of its axes.*give --assume-ras"):
        read_volume(nifti)
    for how in (Reading(), Reading(assume_ras=True)):
        with (
            reading(how),
            pytest.raises(VolumeError, match=r"size of its voxels nor .*--spacing X Y Z \(mm\) and --assume-ras"),
        ):
            read_volume(plain)
    with reading(Reading(assume_ras=True)):
        assert read_volume(nifti).spacing == (1.0, 2.0, 3.0)
    with reading(Reading(assume_ras=True, spacing=(1.0, 1.5, 2.0))):
        for path in (nifti, plain):
            volume = read_volume(path)
            np.testing.assert_array_equal(volume.data, data)
            np.testing.assert_allclose(volume.affine @ [1, 1.5, 2, 1], [0, 0, 0, 1])  # the origin in the middle
            assert volume.spacing == (1.0, 1.5, 2.0)


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000.0), ("mm", 1.0), ("micron", 0.001), ("unknown", 1.0)])
def test_units_of_the_header_become_mm(tmp_path, oblique_affine, unit, mm):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.diag([1 / mm] * 3 + [1]) @ oblique_affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    for volume in (read_volume(tmp_path / "scan.nii.gz"), read_scan(nibabel.load(tmp_path / "scan.nii.gz"))):
        np.testing.assert_allclose(volume.affine, oblique_affine, rtol=1e-5, atol=1e-5)
        assert volume.spacing == pytest.approx((1.5, 2.0, 3.0), rel=1e-5)


DIRECTIONS = "space directions: (2,0,0) (0,1,0) (0,0,3)"
PLACED = ("space: RAS", DIRECTIONS)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            ("space: left-posterior-superior", "space directions: none none none"),
            "size of its voxels nor the directions",
        ),
        (("space dimension: 3", DIRECTIONS), "the directions of its axes, .* give --assume-ras"),
        (("space: scanner-xyz", DIRECTIONS), "the directions of its axes, .* give --assume-ras"),
        (("spacings: 2 2 2", "space directions:=no"), "the directions of its axes, .* give --assume-ras"),
        (("spacings: 2 2 2", "# " + DIRECTIONS), "the directions of its axes, .* give --assume-ras"),
    ],
)
def test_an_nrrd_without_a_place_is_refused_in_words(tmp_path, fields, words):
    with pytest.raises(VolumeError, match=words):
        read_volume(nrrd(tmp_path / "a.nrrd", np.ones((3, 4, 5)), *fields))


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("space directions: (2,0,0) (0,nan,0) (0,0,3)", "'space directions' .* must be three vectors"),
        ("space directions: (2,0,0) (0,1,0) none", "'space directions' .* must be three vectors"),
        ("space origin: (nan,0,0)", "'space origin' .* finite numbers, got '.nan,0,0.'; correct"),
        ('space units: "km" "km" "km"', "'space units' .* must be one of mm, m and um"),
        ('space units: "m" "m" "mm"', "'space units' .* must be one of mm, m and um"),
        ("line skip: 1", "'line skip' .* must be 0, got '1'"),
        ("byte skip: -1", "'byte skip' .* must be a number of bytes, got '-1'"),
        ("data file: /etc/passwd", "'data file' .* must be one file in the header's folder"),
        ("data file: ../a.raw", "'data file' .* must be one file in the header's folder"),
        ("data file: LIST", "'data file' .* must be one file in the header's folder"),
        ("type: block", "'type' of an NRRD header must be a whole-number type, float or double, got 'block'"),
        ("encoding: ascii", "'encoding' .* must be one of raw, gzip, gz, bzip2, bz2, got 'ascii'"),
        ("endian: middle", "'endian' .* must be little or big"),
        ("sizes: a b c", "'sizes' .* must be whole numbers"),
        ("sizes: 30 40 50", "ends within the 240,000 bytes of voxels that its header states"),
    ],
)
def test_a_wrong_field_of_an_nrrd_is_refused_in_words(tmp_path, field, words):
    with pytest.raises(VolumeError, match=words):
        read_volume(nrrd(tmp_path / "a.nrrd", np.ones((3, 4, 5)), *PLACED, field))


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1)), ("left-posterior-superior", (-1, -1, 1))],
)
@pytest.mark.parametrize(("unit", "mm"), [("mm", 1.0), ("m", 1000.0), ("um", 0.001)])
def test_space_and_units_of_an_nrrd(tmp_path, space, signs, unit, mm):
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    fields = [f"space: {space}", DIRECTIONS, "space origin: (5,6,7)", f'space units: "{unit}" "{unit}" "{unit}"']
    volume = read_volume(nrrd(tmp_path / "a.nrrd", data, "#" + "x" * (1 << 15), *fields, "note:=of: this"))
    np.testing.assert_array_equal(volume.data, data)
    stated = np.array([[2, 0, 0, 5], [0, 1, 0, 6], [0, 0, 3, 7]])
    np.testing.assert_allclose(volume.affine[:3], mm * np.reshape(signs, (3, 1)) * stated)


@pytest.mark.parametrize("packed", ["raw", "gzip"])
@pytest.mark.parametrize(
    ("stored", "code"),
    [
        ("unsigned char", "u1"),
        ("int16", "i2"),
        ("unsigned int", "u4"),
        ("long long", "i8"),
        ("uint64_t", "u8"),
        ("double", "f8"),
    ],
)
def test_a_detached_nrrd_of_any_number_type(tmp_path, stored, code, packed):
    data = np.arange(60).reshape(3, 4, 5)
    content = b"skipped" + data.astype(">" + code).tobytes(order="F")
    (tmp_path / "a.bin").write_bytes(gzip.compress(content) if packed == "gzip" else content)
    lines = ["NRRD0005", f"type: {stored}", "dimension: 3", "sizes: 3 4 5", "endian: big", "space: RAS", DIRECTIONS]
    (tmp_path / "a.nhdr").write_text("\n".join([*lines, f"encoding: {packed}", "byteskip: 7", "datafile: a.bin"]))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nhdr").data, data)


def test_what_begins_otherwise_is_no_nrrd(tmp_path):
    (tmp_path / "a.nrrd").write_text("<html>")
    with pytest.raises(VolumeError, match=r"begins with NRRD .*, got b'<html>'"):
        read_volume(tmp_path / "a.nrrd")
    with pytest.raises(VolumeError, match="does not begin with a NIfTI header"):
        read_volume((tmp_path / "a.nrrd").rename(tmp_path / "a.nii"))


def test_several_values_a_voxel_of_an_nrrd_are_named_as_what_they_are(tmp_path, caplog):
    parts = np.random.default_rng(0).random((2, 3, 4, 5), dtype=np.float32)
    placed = ("space: RAS", "space directions: none (2,0,0) (0,1,0) (0,0,3)")
    found = read_volume(nrrd(tmp_path / "complex.nrrd", parts, *placed, "kinds: complex domain domain domain"))
    np.testing.assert_allclose(found.data, np.hypot(*parts), rtol=1e-6)
    assert "magnitude" in caplog.text
    with pytest.raises(VolumeError, match=r"got 4 axes of lengths \(3, 4, 5, 6\); a 4D series"):
        read_volume(nrrd(tmp_path / "series.nrrd", np.ones((3, 4, 5, 6)), "kinds: domain domain domain time"))
    with pytest.raises(VolumeError, match=r"colour \(RGB\)"):
        read_volume(
            nrrd(tmp_path / "rgb.nrrd", np.ones((3, 4, 5, 6)), *placed, "kinds: RGB-color domain domain domain")
        )
    assert read_header(tmp_path / "rgb.nrrd").shape == (4, 5, 6)


def test_processes_read_as_the_one_that_starts_them():
    how = Reading(assume_ras=True, spacing=(1.0, 2.0, 0.5), max_gib=3.0, strict=True)
    with reading(how):
        told = ["__import__('ldae.image_files', fromlist=['']).Reading.current()"] * 2
        assert run_each(eval, told, lost=whole_or_none, workers=2) == [how, how]
    assert Reading.current() == Reading()
