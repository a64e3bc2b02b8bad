"""Images beside each other: a column each, and one for each change."""

import numpy as np
import pytest

import ldae
from ldae.errors import VolumeError
from ldae.volume import Volume


def test_there_is_a_column_an_image_and_a_change(blob: Volume) -> None:
    data = np.clip(blob.data / blob.data.max(), 0, 1)
    images = {"scan": Volume(data, blob.affine), "edited": data * np.float32(0.5)}
    plain = ldae.show_slices(images, originals=["scan"])
    changed = ldae.show_slices(images, originals=["scan"], changes=[("edited", "scan"), ("scan", "scan")])
    assert changed.width > 1.5 * plain.width
    colours = np.asarray(changed.convert("RGB")).astype(int)
    half = colours.shape[1] // 2
    blue = colours[..., 2] - colours[..., 0] > 60
    # Half as bright is darker, so blue; a scan less itself has no colour, apart from the bar below.
    bar = int(0.8 * colours.shape[0])
    assert blue[:bar, half : half + half // 2].any()
    assert not blue[:bar, half + half // 2 + 10 :].any()
    amber = (colours[..., 0] > 220) & (colours[..., 2] < 150)
    assert amber.any(), "what is not said to be original is marked SYNTHETIC"
    both = ldae.show_slices(images, originals=["scan", "edited"])
    assert not ((np.asarray(both.convert("RGB")).astype(int)[..., [0, 2]] @ [1, -1]) > 70).any()


@pytest.mark.parametrize("other", [np.zeros((4, 5, 6), np.float32), np.full((4, 5, 4), 300, np.float32)])
def test_images_of_another_grid_or_scale_are_refused(other) -> None:
    with pytest.raises(VolumeError, match=r"one grid with intensities from 0 to 1.*without space='scan'"):
        ldae.show_slices({"a": np.zeros((4, 5, 4), np.float32), "b": other})
