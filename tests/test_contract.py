"""The contract between scans and a model."""

import numpy as np

from ldae.contract import HAZE, clear_background


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
