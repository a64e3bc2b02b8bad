"""A deformation moves what the decoded edit changes, keeps the scan's own intensities, and leaves the rest where it is."""

import numpy as np
import pytest

from ldae.tasks.edit.deformation import LEAST_CHANGE, deform, find_displacement

SHAPE = (32, 36, 30)
RADIUS = np.linalg.norm(np.indices(SHAPE) - np.reshape(np.array(SHAPE) / 2 - 0.5, (3, 1, 1, 1)), axis=0)


def brain(ventricle, *, rim=0.0, around=4.0):
    """A bright ball with a dark one inside; tissue within `around` of the dark one is darker by `rim`."""
    dark = 1 / (1 + np.exp(2 * (RADIUS - ventricle)))
    near = (ventricle + around > RADIUS) * (1 - dark)
    image = 0.8 - 0.6 * dark - rim * near
    return np.where(RADIUS < 14, image, 0).astype(np.float32)


def dark_voxels(image):
    return int(((image > 0) & (image < 0.5)).sum())


def test_nothing_moves_where_nothing_changes():
    scan = brain(4)
    rng = np.random.default_rng(0)
    faint = (scan + LEAST_CHANGE * rng.uniform(-1, 1, SHAPE)).astype(np.float32)
    for edited in (scan, faint):
        field = find_displacement(scan, edited)
        assert not field.any()
        assert deform(scan, field) is scan


@pytest.mark.parametrize("ventricle", [2.5, 6.0])
def test_a_structure_takes_the_size_that_it_has_in_the_edit(ventricle):
    reference, edited = brain(4), brain(ventricle)
    found = deform(reference, find_displacement(reference, edited))
    before, after = (np.square(each - edited).sum() for each in (reference, found))
    assert after < 0.3 * before
    way = (dark_voxels(found) - dark_voxels(reference)) / (dark_voxels(edited) - dark_voxels(reference))
    assert 0.6 < way < 1.1
    assert ((found > 0) == (reference > 0)).mean() > 0.99


def test_a_change_of_brightness_becomes_motion():
    """The decoded edit has tissue of a brightness that no tissue has; of it a third is left, where edges are stretched."""
    reference = brain(4)
    texture = np.random.default_rng(1).normal(0, 0.02, SHAPE)
    scan = np.where(reference > 0, reference + texture, 0).astype(np.float32)
    edited = brain(4, rim=0.25)
    field = find_displacement(reference, edited)
    found = deform(scan, field)
    assert dark_voxels(found) > 1.3 * dark_voxels(scan)
    between = [int(((each > 0.4) & (each < 0.65)).sum()) for each in (found, edited)]
    assert between[0] < 0.45 * between[1]
    far = (RADIUS > 11) & (RADIUS < 13)
    assert np.abs(field[far]).max() < 0.5
    assert not found[RADIUS > 15].any()
