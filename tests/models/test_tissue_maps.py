"""Tissue maps: probabilities that know the tissue and not the contrast."""

import numpy as np
import pytest
import torch

from ldae.models.tissue_maps import TissueMaps


@pytest.fixture
def brain() -> tuple[torch.Tensor, torch.Tensor]:
    """Two noisy brains of three tissues in blobs, (2, 1, 24, 28, 20), and the tissue of each voxel, 0 outside."""
    rng = np.random.default_rng(3)
    labels = np.kron(rng.choice([1, 2, 3], (2, 6, 7, 5), p=[0.2, 0.45, 0.35]), np.ones((1, 4, 4, 4), dtype=int))
    labels[:, :3] = 0
    labels[:, -3:] = 0
    levels = np.array([0.0, 0.3, 0.6, 0.85])
    scans = np.where(labels > 0, levels[labels] + 0.04 * rng.standard_normal(labels.shape), 0)
    return torch.from_numpy(scans).float()[:, None], torch.from_numpy(labels)


def test_maps_are_probabilities_that_find_every_tissue_and_nothing_outside(brain) -> None:
    scans, labels = brain
    maps, inside = TissueMaps()(scans), labels > 0
    torch.testing.assert_close(maps.sum(dim=1), inside.float(), atol=1e-5, rtol=0)
    assert (maps.argmax(dim=1) + 1 == labels)[inside].float().mean() > 0.99


@pytest.mark.parametrize("contrast", [lambda x: 0.7 * x, lambda x: x**0.7, lambda x: x**1.4])
def test_maps_do_not_depend_on_the_contrast(brain, contrast) -> None:
    scans, _ = brain
    assert (TissueMaps()(scans) - TissueMaps()(contrast(scans))).abs().mean() < 0.01


def test_a_mirrored_scan_has_the_mirrored_maps_whatever_stands_beside_it(brain) -> None:
    scans, _ = brain
    maps = TissueMaps()(scans)
    torch.testing.assert_close(TissueMaps()(scans.flip(2)).flip(2), maps, atol=1e-4, rtol=0)
    torch.testing.assert_close(TissueMaps()(scans[:1]), maps[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_images_without_contrast_have_finite_maps(value: float) -> None:
    maps = TissueMaps()(torch.full((1, 1, 8, 8, 8), value))
    torch.testing.assert_close(maps.sum(), torch.tensor(512.0 if value else 0.0))
