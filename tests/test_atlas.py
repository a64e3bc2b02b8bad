"""Laws of the template: where it lies, and that its maps make a brain."""

import numpy as np
import pytest

from ldae.atlas import Template, load_template, template_grid
from ldae.errors import VolumeError
from ldae.volume import Volume


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(4.0)


@pytest.mark.parametrize(
    ("voxel_size_mm", "shape"), [(4.0, (40, 48, 40)), (5.0, (32, 40, 32)), (6.0, (32, 32, 32)), (2.0, (80, 96, 80))]
)
def test_grid_is_the_smallest_that_holds_the_brain(voxel_size_mm, shape):
    grid = template_grid(voxel_size_mm)
    assert grid.shape == shape
    np.testing.assert_array_equal(grid.affine[:3, :3], voxel_size_mm * np.eye(3))
    np.testing.assert_array_equal(grid.affine[:3, 3], np.round(grid.affine[:3, 3]))


@pytest.mark.parametrize("margin_mm", [0.0, 3.0, 20.0])
@pytest.mark.parametrize("multiple", [1, 8])
def test_grid_keeps_its_margin(margin_mm, multiple):
    voxel_size_mm = 3.0
    grid = template_grid(voxel_size_mm, multiple=multiple, margin_mm=margin_mm)
    lower = grid.affine[:3, 3] - voxel_size_mm / 2
    upper = lower + voxel_size_mm * np.array(grid.shape)
    brain = np.array([[-72.5, 72.5], [-107.5, 73.5], [-72.5, 82.5]])
    assert all(n % multiple == 0 for n in grid.shape)
    # The origin's rounding may take half a millimetre.
    assert (brain[:, 0] - lower >= margin_mm - 0.5).all()
    assert (upper - brain[:, 1] >= margin_mm - 0.5).all()
    assert (upper - lower - (brain[:, 1] - brain[:, 0]) - 2 * margin_mm < multiple * voxel_size_mm).all()


def test_impossible_grids_are_refused():
    for voxel_size_mm in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(VolumeError, match="voxel_size_mm"):
            template_grid(voxel_size_mm)
    with pytest.raises(VolumeError, match="multiple"):
        template_grid(4.0, multiple=0)
    with pytest.raises(VolumeError, match="margin_mm"):
        template_grid(4.0, margin_mm=-1.0)


def test_maps_share_the_grid_and_make_up_the_mask(template):
    assert load_template(4.0) is template, "it is read once"
    assert template.grid == template_grid(4.0)
    for name in template.__dataclass_fields__:
        volume = getattr(template, name)
        assert isinstance(volume, Volume)
        assert volume.grid == template.grid, name
        assert volume.data.min() >= -1e-6, name
        assert volume.data.max() <= 1 + 1e-6, name
    tissue = template.grey_matter.data + template.white_matter.data + template.csf.data
    np.testing.assert_allclose(tissue, template.brain_mask.data, atol=1e-5)
    assert not template.t1.data[template.brain_mask.data == 0].any()


def test_volumes_are_those_of_a_brain(template):
    def millilitres(volume: Volume) -> float:
        return float(volume.data.sum()) * volume.grid.voxel_volume_ml

    assert 1800 < millilitres(template.brain_mask) < 1950
    assert 950 < millilitres(template.grey_matter) < 1050
    assert 620 < millilitres(template.white_matter) < 720
    assert 15 < millilitres(template.ventricles) < 19
    # An ellipsoid's volume, closed form.
    expected = 4 / 3 * np.pi * 9 * 17 * 8 / 1000
    assert millilitres(template.hippocampus_left) == pytest.approx(expected, rel=0.05)


def test_left_is_left_and_mirrors_right(template):
    x = template.grid.world_coordinates()[0]
    assert (x[template.hippocampus_left.data > 0.5] < 0).all()
    assert (x[template.hippocampus_right.data > 0.5] > 0).all()
    left, right = (
        np.average(template.grid.world_coordinates().reshape(3, -1), axis=1, weights=m.data.ravel())
        for m in (template.hippocampus_left, template.hippocampus_right)
    )
    np.testing.assert_allclose(left * [-1, 1, 1], right, atol=0.3)


def test_ventricles_are_dark_and_fluid(template):
    ventricles = template.ventricles.data > 0.9
    white = template.white_matter.data > 0.9
    assert template.csf.data[ventricles].mean() > 0.8
    assert template.t1.data[ventricles].mean() < 0.5 * template.t1.data[white].mean()


@pytest.mark.parametrize("voxel_size_mm", [0.1, 0.001])
def test_voxels_too_small_for_memory_are_refused_at_once(voxel_size_mm):
    with pytest.raises(VolumeError, match=rf"voxels of {voxel_size_mm:g} mm: an image of .* takes .* GiB, .*--max-gib"):
        template_grid(voxel_size_mm)
