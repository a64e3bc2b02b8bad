import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldae.errors import NonFiniteError, VolumeError
from ldae.volume import Grid, Volume, read_volume, write_volume


@pytest.fixture
def volume(oblique_affine):
    return Volume(np.random.default_rng(0).normal(100, 20, (7, 9, 5)), oblique_affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".nrrd"])
def test_write_then_read_is_the_identity(volume, suffix, tmp_path):
    back = read_volume(write_volume(volume, tmp_path / "deep" / f"scan{suffix}"))
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-4)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [f"scan{suffix}"]
    if suffix == ".nii.gz":
        again = write_volume(volume, tmp_path / f"again{suffix}")
        assert again.read_bytes() == (tmp_path / "deep" / f"scan{suffix}").read_bytes()
    with pytest.raises(VolumeError, match="expected a name ending in"):
        write_volume(volume, tmp_path / "scan.png")
    assert not (tmp_path / "scan.png").exists()


@pytest.mark.parametrize("suffix", [".nhdr", ".NHDR"])
def test_a_header_apart_from_its_voxels_is_not_written(volume, suffix, tmp_path):
    with pytest.raises(VolumeError, match=r"in a second file; write \.nrrd instead"):
        write_volume(volume, tmp_path / f"scan{suffix}")
    assert not list(tmp_path.iterdir())


@given(order=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
def test_ras_view_keeps_every_voxel_in_its_place(order, flips):
    base = np.diag([2.0, 3.0, 4.0, 1.0])
    data = np.random.default_rng(1).normal(size=(4, 5, 6))
    affine = base.copy()
    affine[:3, :3] = base[:3, :3][:, order] * np.where(flips, -1, 1)
    volume = Volume(data, affine)
    canonical = volume.to_ras()
    assert (np.diag(canonical.affine[:3, :3]) > 0).all()

    def located(v):
        world = v.grid.world_coordinates().reshape(3, -1).T
        return {tuple(np.round(w, 3)): x for w, x in zip(world, v.data.ravel(), strict=True)}

    assert located(canonical) == located(volume)


def test_resampling_to_its_own_grid_changes_nothing_and_elsewhere_reproduces_a_ramp(volume, oblique_affine):
    np.testing.assert_array_equal(volume.resample_to(volume.grid).data, volume.data)
    grid = Grid((20, 20, 20), oblique_affine)
    ramp = np.einsum("i,i...->...", [0.5, -0.25, 1.0], grid.world_coordinates()) + 3
    centre = (grid.affine @ [9.5, 9.5, 9.5, 1])[:3]
    target = Grid.centred((6, 6, 6), 2.0, tuple(centre))
    expected = np.einsum("i,i...->...", [0.5, -0.25, 1.0], target.world_coordinates()) + 3
    np.testing.assert_allclose(Volume(ramp, grid.affine).resample_to(target).data, expected, atol=1e-3)


@pytest.mark.parametrize("start", [(2, -3, 0), (-1, 1, 4), (30, 0, 0)])
def test_a_grid_of_the_same_lattice_is_cut_and_padded(volume, start):
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, :3] @ start
    grid = Grid((7, 8, 6), affine)
    padded = np.pad(volume.data, 40, constant_values=-1.0)
    expected = padded[tuple(slice(40 + at, 40 + at + n) for at, n in zip(start, grid.shape, strict=True))]
    np.testing.assert_array_equal(volume.resample_to(grid, outside=-1.0).data, expected)


def test_downsampling_keeps_the_mean_of_noise_small():
    noise = Volume(np.random.default_rng(0).normal(size=(40, 40, 40)), np.eye(4))
    coarse = noise.resample_to(Grid.centred((8, 8, 8), 4.0, (19.5, 19.5, 19.5)))
    # Without smoothing its variance would stay near 1; the mean of 64 voxels has 1/64.
    assert coarse.data.var() < 0.1


def test_grid_survives_json(oblique_affine):
    grid = Grid((3, 4, 5), oblique_affine)
    assert Grid.from_dict(grid.to_dict()) == grid
    assert grid.voxel_volume_ml == pytest.approx(1.5 * 2 * 3 / 1000)
    np.testing.assert_allclose(grid.spacing, (1.5, 2.0, 3.0))


@pytest.mark.parametrize(
    ("data", "affine", "words"),
    [
        (np.zeros((2, 2, 2, 2)), np.eye(4), "three axes"),
        (np.zeros((0, 2, 2)), np.eye(4), "empty"),
        (np.full((2, 2, 2), np.nan), np.eye(4), "NaN"),
        (np.zeros((2, 2, 2)), np.zeros((4, 4)), "singular"),
        (np.zeros((2, 2, 2)), np.full((4, 4), np.inf), "finite"),
    ],
)
def test_impossible_volumes_are_refused(data, affine, words):
    with pytest.raises(VolumeError, match=words):
        Volume(data, affine)


def packed(data):
    return gzip.compress(nibabel.Nifti1Image(data, np.eye(4)).to_bytes())


NOISE = packed(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32))
BAD = {
    "text": b"this is not an image",
    "truncated": NOISE[: len(NOISE) // 2],
    "4D": packed(np.ones((4, 4, 4, 3), np.float32)),
    "RGB": packed(np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
    "NaN": packed(np.full((4, 4, 4), np.nan, np.float32)),
}


@pytest.mark.parametrize("kind", ["missing", *BAD])
def test_bad_files_are_refused_by_name(kind, tmp_path):
    path = tmp_path / "bad.nii.gz"
    if kind in BAD:
        path.write_bytes(BAD[kind])
    words = r"bad\.nii\.gz: 64 of 64 voxels" if kind == "NaN" else r"bad\.nii\.gz"
    with pytest.raises(NonFiniteError if kind == "NaN" else VolumeError, match=words):
        read_volume(path)


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_voxel_sizes_that_the_reader_would_mend_are_refused(kind, size, tmp_path):
    image = kind(np.ones((4, 4, 4), np.float32), np.eye(4))
    header = image.header.copy()
    header["pixdim"][2] = size
    start = header.binaryblock
    (tmp_path / "a.nii").write_bytes(start + image.to_bytes()[len(start) :])
    with pytest.raises(VolumeError, match=r"a\.nii: voxel size .* mm is impossible"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["anatomical.nii", "someones_anatomy.nii.gz", "mgh.mgz", "nrrd.nhdr"])
def test_real_files_of_every_format_are_read(name, shared):
    path = shared / "data" / "formats" / name
    try:
        volume = read_volume(path)
    except VolumeError as error:
        assert "4D" in str(error) or "axes" in str(error)  # noqa: PT017
    else:
        assert np.isfinite(volume.data).all()
        assert min(volume.spacing) > 0


@pytest.mark.parametrize("name", ["dmri_4d.nii.gz", "example4d.nii.gz"])
def test_real_series_are_refused(name, shared):
    with pytest.raises(VolumeError, match="4D series"):
        read_volume(shared / "data" / "formats" / name)


def test_trailing_axes_of_length_one_are_dropped(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5, 1), np.float32), np.eye(4)), tmp_path / "x.nii")
    assert read_volume(tmp_path / "x.nii").data.shape == (3, 4, 5)


def test_other_libraries_get_the_same_voxels_and_affine(oblique_affine):
    volume = Volume(np.random.default_rng(0).random((3, 4, 5), dtype=np.float32), oblique_affine)
    image, tensor = volume.to_nibabel(), volume.to_metatensor()
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), volume.data)
    np.testing.assert_allclose(image.affine, volume.affine)
    np.testing.assert_array_equal(tensor[0].numpy(), volume.data)
    np.testing.assert_allclose(tensor.affine.numpy(), volume.affine)


def test_a_coarser_grid_of_the_same_axes_is_a_case_of_any_other() -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.uniform(size=(17, 23, 12)), np.diag([-1.1, 0.9, 1.0, 1.0]))
    affine = volume.affine @ np.diag([2.3, -3.1, 1.0, 1.0])
    affine[:3, 3] += volume.affine[:3, :3] @ (-1.5, 21.0, 0.4)
    grid = Grid((9, 8, 12), affine)
    # A background that is not exactly 0 takes the way of oblique grids.
    general = volume.resample_to(grid, outside=1e-30).data
    np.testing.assert_allclose(volume.resample_to(grid).data, general, atol=1e-6)
    assert general.max() > 0.5


@pytest.mark.parametrize("value", [1e30, -1e30, 1e6])
def test_spikes_become_like_their_neighbours_and_nothing_else_changes(oblique_affine, value):
    rng = np.random.default_rng(3)
    x, y, z = np.mgrid[:20, :22, :24]
    data = np.where((x - 10) ** 2 + (y - 11) ** 2 + (z - 12) ** 2 < 80, 500 + 20 * x, 0).astype(np.float32)
    data += rng.normal(0, 5, data.shape).astype(np.float32)
    volume = Volume(data, oblique_affine)
    same, none = volume.without_spikes()
    assert none == 0
    assert same is volume
    spiked = data.copy()
    for place in ((10, 11, 12), (10, 11, 13), (0, 0, 0)):
        spiked[place] = value
    cleaned, count = Volume(spiked, oblique_affine).without_spikes()
    assert count == 3
    changed = np.argwhere(cleaned.data != data)
    assert len(changed) <= 3
    assert np.abs(cleaned.data - data).max() < 60


def test_a_brain_is_continued_beyond_its_edge_by_its_own_values():
    data = np.zeros((5, 4, 3), np.float32)
    data[1, 2, 1], data[3, 1, 1] = 2.0, 5.0
    found = Volume(data, np.eye(4)).continued(data > 0).data
    assert set(np.unique(found)) == {2.0, 5.0}
    assert (found[0] == 2).all()
    assert (found[4] == 5).all()
    np.testing.assert_array_equal(found[data > 0], data[data > 0])
