"""Scans of any kind of object become the same volume."""

import numpy as np
import pytest
import torch

from ldae.data.inputs import prepare_scan, read_scan
from ldae.errors import VolumeError
from ldae.volume import Volume, write_volume


@pytest.fixture
def volume(oblique_affine) -> Volume:
    return Volume(np.random.default_rng(0).random((6, 7, 8), dtype=np.float32), oblique_affine)


def test_every_kind_of_object_is_the_same_scan(volume, tmp_path):
    path = write_volume(volume, tmp_path / "scan.nii.gz")
    tensor = torch.from_numpy(volume.data)
    kinds = [
        path,
        str(path),
        volume,
        volume.to_nibabel(),
        volume.to_metatensor(),
        (volume.data, volume.affine),
        (tensor[None], torch.tensor(volume.affine)),
    ]
    for kind in kinds:
        found = read_scan(kind)
        np.testing.assert_array_equal(found.data, volume.data)
        np.testing.assert_allclose(found.affine, volume.affine, atol=1e-5)


@pytest.mark.parametrize("array", [np.zeros((4, 4, 4)), torch.zeros(4, 4, 4), [1, 2]])
def test_arrays_that_lie_nowhere_are_refused(array):
    with pytest.raises(VolumeError, match=r"does not say where its voxels lie; give .* \(array, affine\)"):
        read_scan(array)
    with pytest.raises(VolumeError, match="three axes"):
        read_scan((np.zeros((2, 4, 4, 4)), np.eye(4)))


def test_a_scan_that_breaks_the_contract_is_named(tiny_config, volume, tmp_path):
    path = write_volume(volume, tmp_path / "small.nii.gz")
    for preprocess in ("auto", False):
        with pytest.raises(VolumeError, match=r"small\.nii\.gz: "):
            prepare_scan(path, tiny_config.preprocessing, preprocess=preprocess)
    with pytest.raises(VolumeError, match=r"^only"):
        prepare_scan(volume, tiny_config.preprocessing, preprocess=False)
