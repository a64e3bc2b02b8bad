"""The contract between scans and a model."""

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from nibabel.quaternions import angle_axis2mat

from ldae.contract import HAZE, Preprocessing, clear_background
from ldae.volume import Grid, Volume


def test_haze_and_specks_around_a_decoded_brain_become_background_and_dark_fluid_within_it_stays():
    image = np.full((12, 14, 10), 0.5 * HAZE, dtype=np.float32)
    image[3:9, 3:11, 2:8] = 0.6
    image[5:7, 6:8, 4:6] = 0.5 * HAZE
    image[10, 12, 8] = 0.6  # a speck beside the brain
    before = image.copy()
    (cleared,) = clear_background(image[None])
    brain = np.zeros(image.shape, dtype=bool)
    brain[3:9, 3:11, 2:8] = True
    np.testing.assert_array_equal(cleared[~brain], 0.0)
    np.testing.assert_array_equal(cleared[brain], image[brain])
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(clear_background(cleared[None])[0], cleared)


def test_a_brain_that_fills_the_grid_stays_as_it_is():
    image = np.random.default_rng(0).uniform(HAZE, 1.0, (1, 6, 7, 5)).astype(np.float32)
    np.testing.assert_array_equal(clear_background(image), image)


def test_values_that_are_no_numbers_stay_to_be_seen():
    image = np.full((1, 6, 7, 5), np.nan, dtype=np.float32)
    np.testing.assert_array_equal(clear_background(image), image)


def test_an_image_without_a_brain_is_all_background():
    assert not clear_background(np.full((1, 6, 7, 5), 0.5 * HAZE, dtype=np.float32)).any()


def test_a_resampled_brain_keeps_its_size_and_has_no_dim_rim():
    contract = Preprocessing(shape=(48, 56, 48), voxel_size_mm=3.0)
    turn = angle_axis2mat(0.2, [1.0, -2.0, 0.5]) @ np.diag([1.0, 1.25, 0.9])
    centre, shape = np.array(contract.centre_mm), (150, 130, 160)
    fine = Grid(shape, from_matvec(turn, centre - turn @ (np.array(shape) - 1) / 2))
    places = apply_affine(fine.affine, np.moveaxis(np.indices(shape), 0, -1)) - centre
    ramp = 1 + 0.005 * places[..., 2]
    ball = np.linalg.norm(places, axis=-1) < 55
    scan = contract.prepare(Volume(np.where(ball, ramp, 0).astype(np.float32), fine.affine))

    brain = scan.data > 0
    # The darkest of the ramp becomes 0.
    assert abs(brain.sum() * 27 / (4 / 3 * np.pi * 55**3) - 1) < 0.02
    low, high = scan.window
    where = contract.grid.world_coordinates()[2] - centre[2]
    found, expected = scan.data * (high - low) + low, np.clip(1 + 0.005 * where, low, high)
    np.testing.assert_allclose(found[brain], expected[brain], atol=0.01)
