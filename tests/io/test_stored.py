"""A changed copy of a file: what is not changed stays as stored, whatever the number type and whoever reads it."""

import nibabel
import numpy as np
import pytest

from ldae.errors import VolumeError
from ldae.image_files import Reading, reading
from ldae.io.stored import read_stored
from ldae.volume import Volume, read_volume, write_volume

TYPES = [
    ("u1", 13.895223617553711, 0.0),
    ("<i2", 0.1, -7.3),
    (">i2", 3.7, 0.0),
    ("u2", 1.0, 0.0),
    ("i4", -0.5, 11.0),
    ("i8", 1.0, 0.0),
    ("f4", 1.0, 0.0),
    (">f8", 1.0, 0.0),
]


def store(path, dtype, slope, inter, affine, image_type=nibabel.Nifti1Image):
    """A file with numbers over the whole range of its type, as far as float64 is exact."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        numbers = rng.normal(0, 100, (9, 7, 5))
    else:
        limits = np.iinfo(dtype)
        numbers = rng.integers(max(limits.min, -(2**40)), min(limits.max, 2**40), (9, 7, 5))
    image = image_type(numbers.astype(dtype), affine, dtype=dtype)
    image.header.set_data_dtype(dtype)
    image.header.set_slope_inter(slope, inter)
    for name in {"descrip", "aux_file", "db_name"} & set(image.header.keys()):
        image.header[name] = b"Jane Doe"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    image.header.set_qform(affine, 1)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("image_type", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(("dtype", "slope", "inter"), TYPES)
def test_what_is_not_changed_stays_as_stored(dtype, slope, inter, image_type, oblique_affine, tmp_path):
    source = nibabel.load(store(tmp_path / "a.nii.gz", dtype, slope, inter, oblique_affine, image_type))
    scan = read_stored(tmp_path / "a.nii.gz")
    nothing = Volume(np.zeros(scan.volume.data.shape, np.float32), oblique_affine)
    np.testing.assert_array_equal(scan.changed(nothing).data, scan.volume.data)
    change = Volume(nothing.data.copy(), oblique_affine)
    change.data[4, 3, 2] = 40.0
    for each, untouched in ((nothing, np.ones((9, 7, 5), bool)), (change, change.data == 0)):
        written = nibabel.load(scan.write_changed(each, tmp_path / "b.nii.gz", description="SYNTHETIC"))
        np.testing.assert_array_equal(written.affine, source.affine)
        np.testing.assert_array_equal(written.get_qform(), source.get_qform())
        np.testing.assert_array_equal(written.get_fdata()[untouched], source.get_fdata()[untouched])
        for read in (lambda image: np.asarray(image.dataobj, "f4"), lambda image: image.dataobj.get_unscaled()):
            np.testing.assert_array_equal(read(written)[untouched], read(source)[untouched])
    assert read_volume(tmp_path / "b.nii.gz").data[4, 3, 2] == pytest.approx(scan.volume.data[4, 3, 2] + 40, rel=1e-6)
    content = scan.write_changed(change, tmp_path / "b.nii", description="SYNTHETIC").read_bytes()
    assert b"SYNTHETIC" in content
    assert b"Jane" not in content, "texts of the source's header may name a person"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii", "b.nii.gz"]


@pytest.mark.parametrize("suffix", [".nrrd", ".mgz"])
def test_formats_without_a_scaling_keep_their_values(suffix, oblique_affine, tmp_path):
    data = np.random.default_rng(1).normal(size=(6, 5, 4)).astype(np.float32)
    scan = read_stored(write_volume(Volume(data, oblique_affine), tmp_path / f"a{suffix}"))
    nothing = Volume(np.zeros_like(data), scan.volume.affine)
    written = read_volume(scan.write_changed(nothing, tmp_path / "b.nii.gz"))
    np.testing.assert_array_equal(written.data, data)
    assert written.grid == scan.volume.grid


def test_nothing_becomes_darker_than_the_darkest_voxel_and_a_change_elsewhere_is_refused(oblique_affine, tmp_path):
    scan = read_stored(store(tmp_path / "a.nii", "u1", 2.0, 3.0, oblique_affine))
    change = Volume(np.full(scan.volume.data.shape, -200.0, np.float32), oblique_affine)
    assert scan.changed(change).data.min() == scan.volume.data.min()
    written = read_volume(scan.write_changed(change, tmp_path / "b.nii"))
    assert written.data.min() == scan.volume.data.min()
    np.testing.assert_allclose(written.data, scan.changed(change).data, rtol=1e-6)
    with pytest.raises(VolumeError, match="does not lie on its scan"):
        scan.changed(Volume(np.zeros((3, 3, 3)), oblique_affine))
    with pytest.raises(VolumeError, match=r"end the name in \.nii\.gz"):
        scan.write_changed(scan.volume, tmp_path / "b.mgz")
    assert not (tmp_path / "b.mgz").exists()


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_numbers_are_changed_in_their_magnitude(dtype, oblique_affine, tmp_path):
    parts = np.random.default_rng(0).normal(size=(2, 9, 7, 5))
    nibabel.save(nibabel.Nifti1Image((parts[0] + 1j * parts[1]).astype(dtype), oblique_affine), tmp_path / "a.nii.gz")
    scan = read_stored(tmp_path / "a.nii.gz")
    change = Volume(np.zeros((9, 7, 5), np.float32), oblique_affine)
    change.data[4, 3, 2] = 40.0
    written = read_volume(scan.write_changed(change, tmp_path / "b.nii.gz"))
    np.testing.assert_array_equal(
        written.data[change.data == 0], read_volume(tmp_path / "a.nii.gz").data[change.data == 0]
    )
    assert written.data[4, 3, 2] == pytest.approx(np.hypot(*parts)[4, 3, 2] + 40, rel=1e-6)


def test_numbers_count_beside_the_intensities(oblique_affine, tmp_path):
    path = store(tmp_path / "a.nii.gz", "f8", 1.0, 0.0, oblique_affine)
    with reading(Reading(max_gib=9 * 7 * 5 * 11 / 2**30)):
        read_volume(path)
        with pytest.raises(VolumeError, match=r"a\.nii\.gz: an image of 9 x 7 x 5 voxels takes .* raise the limit"):
            read_stored(path)
