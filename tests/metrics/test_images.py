import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from ldae.errors import TaskError
from ldae.metrics.change import change_correlation, change_error
from ldae.metrics.images import compare_images
from ldae.metrics.statistics import rows_by_subject, subject_bootstrap


def images(seed, n=2):
    rng = np.random.default_rng(seed)
    data = rng.uniform(0, 1, (n, 16, 18, 14)).astype(np.float32)
    data[:, :3] = 0
    return data


def test_an_image_agrees_with_itself():
    same = compare_images(images(0), images(0))
    np.testing.assert_allclose(same.ssim, 1)
    np.testing.assert_allclose(same.ssim_brain, 1)
    np.testing.assert_allclose(same.mse, 0)


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


def test_metrics_have_their_closed_form():
    reference = images(1)
    shifted = compare_images(reference + 0.1, reference)
    np.testing.assert_allclose(shifted.mse, 0.01, rtol=1e-4)
    np.testing.assert_allclose(shifted.psnr, 20, rtol=1e-3)
    assert shifted.mean()["mse"] == pytest.approx(0.01, rel=1e-4)


def test_the_background_flatters_only_the_whole_grid():
    noisy = images(2)
    noisy[:, 3:] = images(3)[:, 3:]
    agreement = compare_images(noisy, images(2))
    assert (agreement.ssim > agreement.ssim_brain).all()


def test_permuting_pairs_permutes_results():
    a, b = images(4, 3), images(5, 3)
    np.testing.assert_allclose(compare_images(a[::-1], b[::-1]).ssim, compare_images(a, b).ssim[::-1])


def test_copying_the_start_scores_one_and_the_target_zero():
    start, target = images(6, 1)[0], images(7, 1)[0]
    assert change_error(start, target, start) == pytest.approx(1)
    assert change_error(target, target, start) == 0
    assert change_error((start + target) / 2, target, start) == pytest.approx(0.5, rel=1e-5)
    assert change_correlation(target, target, start) == pytest.approx(1)
    assert change_correlation(start, target, start) == 0
    assert change_correlation(2 * start - target, target, start) == pytest.approx(-1)


def test_bootstrap_draws_whole_subjects():
    subjects = ["a", "b", "a", "c"]
    assert [rows.tolist() for rows in rows_by_subject(subjects)] == [[0, 2], [1], [3]]

    def together(rows):
        counts = np.bincount(rows, minlength=4)
        assert counts[0] == counts[2]
        return float(len(rows))

    subject_bootstrap(together, subjects, generator=np.random.default_rng(0), resamples=50)


def test_interval_of_a_mean_covers_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        values = rng.normal(size=40)
        interval = subject_bootstrap(
            lambda rows, values=values: float(values[rows].mean()),
            [str(i) for i in range(40)],
            generator=rng,
            resamples=200,
        )
        covered += interval.low <= 0 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


def test_clustered_scans_widen_the_interval():
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=30), 4)

    def mean(rows):
        return float(values[rows].mean())

    by_subject = subject_bootstrap(mean, [str(i // 4) for i in range(120)], generator=np.random.default_rng(0))
    by_scan = subject_bootstrap(mean, [str(i) for i in range(120)], generator=np.random.default_rng(0))
    assert (by_subject.high - by_subject.low) > 1.6 * (by_scan.high - by_scan.low)


def test_too_few_answers_are_refused():
    with pytest.raises(TaskError, match="too few"):
        subject_bootstrap(lambda rows: float("nan"), ["a"], generator=np.random.default_rng(0), resamples=10)
    with pytest.raises(TaskError, match="no rows"):
        subject_bootstrap(lambda rows: 0.0, [], generator=np.random.default_rng(0))
