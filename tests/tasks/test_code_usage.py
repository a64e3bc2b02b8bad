"""Models that use their code, ignore it, or have none to use."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ldae.codes import Codes
from ldae.diffusion import Estimate, velocity_of
from ldae.errors import TaskError
from ldae.networks import semantic_predict
from ldae.tasks.code_usage import code_usage
from ldae.tasks.encoded_scans import EncodedScans
from ldae.volume import Grid
from tests.records import record_of
from tests.tasks.fixed_source import FixedSource

SUBJECTS = ("a", "a", "b", "c", "c", "d")
FEW = {"levels": 3, "resamples": 20, "batch_size": 4}


@pytest.fixture
def scans(tiny_model):
    """Six scans of four subjects with drawn codes and latents."""
    rng, grid = np.random.default_rng(0), Grid((4, 4, 4), np.eye(4))
    generator = torch.Generator().manual_seed(0)
    records = [record_of(name, str(row), split="test") for row, name in enumerate(SUBJECTS)]
    images = rng.uniform(size=(6, 16, 24, 16)).astype(np.float32)
    codes = tuple(Codes(torch.randn(16, generator=generator), None, grid, (0.0, 1.0)) for _ in SUBJECTS)
    return EncodedScans(tuple(records), codes, FixedSource(records, images, tiny_model.draw_noise(6, generator)))


@torch.no_grad()
def test_errors_are_those_of_what_the_sampler_predicts(tiny_model, scans):
    z_0, t = scans.latents(), torch.full((6,), 700)
    codes = torch.stack([each.semantic for each in scans.codes])
    noise = tiny_model.draw_noise(6, torch.Generator().manual_seed(5))
    schedule = tiny_model.networks.schedule
    errors = tiny_model.velocity_errors(z_0, noise, 700, [codes, None])
    z_t = schedule.add_noise(z_0, noise, t)
    for row, semantic in enumerate((codes, None)):
        predicted = semantic_predict(tiny_model.networks, semantic, tiny_model.config)(z_t, t)
        missed = velocity_of(predicted, t, schedule) - velocity_of(Estimate(z_0, noise), t, schedule)
        torch.testing.assert_close(errors[row], missed.square().flatten(1).mean(dim=1), rtol=1e-4, atol=1e-5)
        # The share does not depend on what is predicted: the error of the clean latent is that of the velocity, rescaled.
        clean = (predicted.clean - z_0).square().flatten(1).mean(dim=1)
        torch.testing.assert_close(clean, schedule.sigma[700] ** 2 * errors[row], rtol=1e-4, atol=1e-5)


def test_code_usage_is_repeatable_whatever_the_batch(tiny_model, scans):
    seen = []
    result = code_usage(tiny_model, scans, seed=1, progress=lambda *a: seen.append(a), **FEW)
    assert seen == [(4, 6), (6, 6)]
    assert result == code_usage(tiny_model, scans, seed=1, **FEW)
    other = code_usage(tiny_model, scans, seed=1, pictured=2, **{**FEW, "batch_size": 6})
    assert other.use.gap.value == pytest.approx(result.use.gap.value, rel=1e-3)
    assert (result.scans, result.subjects, result.images.scans) == (6, 4, 4)
    assert result.timesteps == [333, 666, 999]
    assert result.snr == sorted(result.snr, reverse=True)
    for level in range(3):
        none = result.unexplained["none"][level]
        assert result.unexplained["right"][level] / none == pytest.approx(1 - result.use.share_by_level[level].value)
        assert result.unexplained["shuffled"][level] / none == pytest.approx(
            1 - result.use.shuffled_share_by_level[level].value
        )
    assert code_usage(tiny_model, scans, seed=2, pictured=2, **FEW).use != result.use


def test_one_code_for_all_is_a_collapse(tiny_model, scans):
    same = replace(scans, codes=tuple(scans.codes[:1] * 6))
    result = code_usage(tiny_model, same, **FEW)
    assert result.use.verdict == "collapsed"
    assert result.use.gap.value == 0
    assert all(gap.value == 0 for gap in result.images.gaps.values())
    assert result.use.share.value != 0, "a constant still shifts the denoiser"
    assert (result.spread.effective_rank, result.spread.active_dimensions) == (0, 0)


def test_an_estimator_that_shifts_nothing_explains_nothing(tiny_model, scans):
    head = tiny_model.networks.gradient_estimator.decoder.head
    for parameter in head.parameters():
        parameter.zero_()
    result = code_usage(tiny_model, scans, **FEW)
    assert result.use.verdict == "collapsed"
    assert result.use.share.value == result.use.gap.value == 0
    assert result.unexplained["right"] == result.unexplained["none"]
    assert result.images.right == result.images.none == result.images.shuffled


def test_scans_of_one_subject_are_refused(tiny_model, scans):
    with pytest.raises(TaskError, match="two or more"):
        code_usage(tiny_model, scans.select([0, 1]), **FEW)
