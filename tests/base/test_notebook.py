"""What objects show of themselves."""

from io import BytesIO

import numpy as np
from PIL import Image

from ldae.base.notebook import Shown, slices_png
from ldae.volume import Volume


class Named(Shown):
    facts = {"name": "<b>x</b>"}  # noqa: RUF012


def test_facts_stand_in_a_line_and_escaped_in_a_table():
    assert repr(Named()) == "Named(name: <b>x</b>)"
    assert "&lt;b&gt;x&lt;/b&gt;" in Named()._repr_html_()
    assert "<img" not in Named()._repr_html_()


def test_slices_show_the_subjects_right_on_the_left_and_superior_up():
    data = np.zeros((10, 14, 6), np.float32)
    data[7:, 7, 3] = 1.0  # right
    data[5, 7, 5] = 1.0  # superior
    picture = np.asarray(Image.open(BytesIO(slices_png(data, (2.0, 1.0, 3.0)))))
    assert picture.shape == (18, 14 + 20 + 20)
    coronal, axial = picture[:, 14:34], picture[:14, 34:]
    for plane in (coronal, axial):
        assert plane[:, :6].max() == 255
        assert plane[:, 12:].max() < 128
    assert picture[:3, :14].max() == 255  # sagittal, superior


def test_a_volume_shows_its_size_and_slices_whatever_its_orientation(blob: Volume):
    assert f"size: 14 x 22 x 36 mm, voxels: 9 x 11 x 12, intensities: 0 to {blob.data.max():.4g}" in repr(blob)
    assert 'src="data:image/png;base64,' in blob._repr_html_()
