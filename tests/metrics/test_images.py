import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from ldae.metrics.change import change_correlation, change_error
from ldae.metrics.images import compare_images


def images(seed, n=2):
    rng = np.random.default_rng(seed)
    data = rng.uniform(0, 1, (n, 16, 18, 14)).astype(np.float32)
    data[:, :3] = 0
    return data


def test_metrics_have_their_closed_form_and_permuting_pairs_permutes_them():
    same = compare_images(images(0), images(0))
    np.testing.assert_allclose(same.ssim, 1)
    np.testing.assert_allclose(same.ssim_brain, 1)
    np.testing.assert_allclose(same.mse, 0)
    shifted = compare_images(images(1) + 0.1, images(1))
    np.testing.assert_allclose(shifted.mse, 0.01, rtol=1e-4)
    np.testing.assert_allclose(shifted.psnr, 20, rtol=1e-3)
    assert shifted.mean()["mse"] == pytest.approx(0.01, rel=1e-4)
    a, b = images(4, 3), images(5, 3)
    np.testing.assert_allclose(compare_images(a[::-1], b[::-1]).ssim, compare_images(a, b).ssim[::-1])


def test_ssim_is_that_of_torchmetrics():
    a, b = images(2), images(3)
    expected, maps = structural_similarity_index_measure(
        *(torch.from_numpy(each)[:, None] for each in (a, b)), data_range=1.0, reduction="none", return_full_image=True
    )
    found = compare_images(a, b)
    np.testing.assert_allclose(found.ssim, expected, atol=1e-5)
    np.testing.assert_allclose(
        found.ssim_brain, [m[r > 0].mean() for m, r in zip(maps[:, 0].numpy(), b, strict=True)], atol=1e-5
    )


def test_copying_the_start_scores_one_and_the_target_zero():
    start, target = images(6, 1)[0], images(7, 1)[0]
    assert change_error(start, target, start) == pytest.approx(1)
    assert change_error(target, target, start) == 0
    assert change_error((start + target) / 2, target, start) == pytest.approx(0.5, rel=1e-5)
    assert change_correlation(target, target, start) == pytest.approx(1)
    assert change_correlation(start, target, start) == 0
    assert change_correlation(2 * start - target, target, start) == pytest.approx(-1)
