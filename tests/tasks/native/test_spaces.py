"""Both spaces take the same images; the door's own difference is what native space adds."""

import numpy as np
import pytest

from ldae.errors import TaskError
from ldae.tasks.longitudinal.interpolate import nearest_session
from ldae.tasks.native.scan import NativeScan
from ldae.tasks.native.spaces import check_way_back, open_space
from ldae.volume import read_volume
from tests.records import record_of


@pytest.fixture
def record(made_scan, tmp_path):
    return record_of("sub-1", "ses-1", made_scan(tmp_path).preprocessed)


def test_template_space_shows_the_image_itself(tiny_model, record):
    codes = tiny_model.encode(read_volume(record.image), preprocess=False)
    images = np.random.default_rng(0).uniform(size=(2, *tiny_model.config.preprocessing.shape)).astype(np.float32)
    place = open_space("template", tiny_model).scan(record, codes)
    for result in (place.edited(*images), place.reconstruction(*images, keep_detail=True), place.spread(images[0])):
        np.testing.assert_array_equal(result.volume.data, images[0])
        assert result.onto is None


def test_native_space_adds_what_the_doors_difference_says(tiny_model, record):
    codes = tiny_model.encode(read_volume(record.image), preprocess=False)
    edited = codes.with_semantic(codes.semantic + 5)
    assert not tiny_model.difference(codes, codes).data.any()
    difference = tiny_model.difference(edited, codes)
    images = [tiny_model.decode_images([each])[0] for each in (edited, codes)]
    result = open_space("native", tiny_model).scan(record, codes).edited(*images)
    native = NativeScan.of(record.image)
    np.testing.assert_allclose(result.volume.data, native.change(difference).data, atol=1e-3)
    assert result.volume.data.any()
    low, high = codes.window
    np.testing.assert_allclose(difference.data, (images[0] - images[1]) * (high - low), atol=1e-3)


def test_the_nearest_session_is_the_earlier_of_two(scans):
    one = scans.select([0, 1, 2])
    assert [nearest_session(one, month) for month in (0, 5, 6, 7, 12, 18, 19, 24)] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_scans_without_a_sidecar_are_counted(scans, record):
    check_way_back([record])
    with pytest.raises(TaskError, match="6 of 7 scans cannot go back to native space"):
        check_way_back([*scans.records, record])
