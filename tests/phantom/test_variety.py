"""Training data for real scans: shapes between label maps, and what real scans have besides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from ldae.errors import CohortError
from ldae.image_files import LPS_TO_RAS
from ldae.phantom.anatomy.combination import Combination, Warp
from ldae.phantom.anatomy.deformation import shape_lattice
from ldae.phantom.anatomy.tissue import Composition
from ldae.phantom.artefacts import ArtefactConfig, noisier, spoil_brain, spoil_mask
from ldae.phantom.population import PopulationConfig, anatomical_state
from ldae.phantom.pose import RawConfig
from ldae.phantom.scanner import ScannerConfig
from ldae.phantom.settings import PhantomConfig
from ldae.volume import Grid, Volume, to_itk

GRID = Grid.centred((32, 36, 32), 4.0, (0.0, -17.0, 5.0))


def smooth_warp(seed: int) -> Warp:
    """A smooth displacement of some mm and its inverse."""
    lattice, rng = shape_lattice(), np.random.default_rng(seed)
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(lattice.shape), 6.0) for _ in range(3)], axis=-1)
    into_map = (4.0 * field / np.abs(field).max()).astype(np.float32)
    flip = np.diag(LPS_TO_RAS)[:3]
    image = SimpleITK.GetImageFromArray((into_map * flip).transpose(2, 1, 0, 3).astype(np.float64), isVector=True)
    image.CopyInformation(to_itk(Volume(np.zeros(lattice.shape, dtype=np.float32), lattice.affine)))
    inverse = SimpleITK.GetArrayFromImage(SimpleITK.InvertDisplacementField(image, 50)).transpose(2, 1, 0, 3) * flip
    return Warp(into_map, np.ascontiguousarray(inverse, dtype=np.float32))


@pytest.fixture(scope="module")
def warps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("warps")
    return [smooth_warp(seed).save(folder / f"{seed}.npy") for seed in (1, 2)]


@pytest.fixture
def points() -> np.ndarray:
    """In the brain, away from the lattice's border."""
    return np.random.default_rng(0).uniform((-50, -80, -40), (50, 40, 50), (200, 3)).astype(np.float32)


def test_a_map_in_its_own_shape_is_itself(warps, points):
    own, _ = warps
    for other, share in ((own, 0.7), (warps[1], 0.0)):
        np.testing.assert_allclose(Combination(own, other, share, False).move(points), points, atol=0.2)


def test_shapes_between_two_maps_lie_between_them(warps, points):
    at = [Combination(*warps, share, False).move(points) - points for share in (0.0, 0.5, 1.0)]
    assert np.abs(at[2]).max() > 2.0, "another shape"
    np.testing.assert_allclose(at[1], (at[0] + at[2]) / 2, atol=0.3)


def test_the_mirrored_combination_is_the_combination_of_mirrored_points(warps, points):
    flip = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
    plain, mirrored = (Combination(*warps, 0.6, side) for side in (False, True))
    np.testing.assert_allclose(mirrored.move(points * flip), plain.move(points) * flip, atol=1e-4)
    grid = points.reshape(10, 20, 3)
    np.testing.assert_array_equal(plain.move(grid).reshape(-1, 3), plain.move(points))


@pytest.fixture
def head() -> Composition:
    """A ball of white matter in grey matter in fluid."""
    world = GRID.world_coordinates() - np.array([0.0, -17.0, 5.0])[:, None, None, None]
    radius = np.sqrt((world**2).sum(axis=0))
    limits = (radius < 30, (radius >= 30) & (radius < 44), (radius >= 44) & (radius < 50))
    white, grey, csf = (each.astype(np.float32) for each in limits)
    return Composition(grey, white, csf, np.zeros_like(grey), {})


def test_lesions_and_slices_keep_the_amount_of_brain(head):
    rng = np.random.default_rng(3)
    seen = [spoil_brain(head, GRID, ArtefactConfig(slice_mm=9.0), rng) for _ in range(8)]
    for each in seen:
        total = each.grey + each.white + each.csf
        assert total.sum() == pytest.approx((head.grey + head.white + head.csf).sum(), rel=1e-4)
        assert each.white.sum() <= head.white.sum() * (1 + 1e-5)
    assert len({round(float(each.white.sum())) for each in seen}) > 3, "each scan draws its own"
    whole = spoil_brain(head, GRID, ArtefactConfig(lesion_share=0.0, slice_mm=0.0), rng)
    np.testing.assert_array_equal(whole.white, head.white)


def test_extraction_errs_at_the_surface_alone(head):
    image = 0.8 * (head.grey + head.white + head.csf)
    inside = image > 0
    depth = ndimage.distance_transform_edt(inside, sampling=4.0) + ndimage.distance_transform_edt(~inside, sampling=4.0)
    seen = [spoil_mask(image, GRID, ArtefactConfig(), np.random.default_rng(seed)) for seed in range(6)]
    assert any(((each == 0) & inside).any() for each in seen)
    assert any(((each > 0) & ~inside).any() for each in seen)
    for each in seen:
        changed = each != image
        assert changed.mean() < 0.1
        assert depth[changed].max(initial=0.0) < 9.0
    np.testing.assert_array_equal(
        spoil_mask(image, GRID, ArtefactConfig(error_share=0.0), np.random.default_rng(0)), image
    )


def test_noise_differs_between_scans_around_the_scanners():
    rng = np.random.default_rng(0)
    drawn = [noisier(ScannerConfig(), ArtefactConfig(noise_log_sd=0.3), rng).noise_sd for _ in range(400)]
    logs = np.log(np.array(drawn) / ScannerConfig().noise_sd)
    assert (logs.mean(), logs.std()) == (pytest.approx(0.0, abs=0.05), pytest.approx(0.3, abs=0.04))


def test_the_young_do_not_age_backwards():
    config = PopulationConfig()
    ages = np.arange(18.0, 95.0)
    found = np.array(
        [[getattr(anatomical_state(config, age, 0.0), name) for age in ages] for name in ("ventricle_mm", "cortex_mm")]
    )
    assert (np.diff(found, axis=1) >= 0).all()
    assert (np.diff(found[:, ages >= 55], axis=1) > 0).all()


def test_varied_cohorts_need_label_maps_and_extracted_brains():
    varied = PhantomConfig(anatomy="maps").varied()
    assert varied.combine
    assert varied.population.age_range_years == (18.0, 95.0)
    with pytest.raises(CohortError, match="--anatomy"):
        PhantomConfig().varied()
    with pytest.raises(CohortError, match="--raw"):
        replace(varied, raw=RawConfig())
