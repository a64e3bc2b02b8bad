"""Whitening: spreads are evened out as far as asked, and what reads the code says the same as before."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ldae.errors import ConfigError
from ldae.models.semantic_encoder import SemanticEncoderConfig
from ldae.models.whitening import SHRINKAGE, Whitening

SPREADS = torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5])


def codes(count: int = 4000, seed: int = 0) -> torch.Tensor:
    """Correlated codes with known spreads along known axes."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, 5, generator=generator)
    values = values - values.mean(dim=0)
    u, _, v = torch.linalg.svd(values, full_matrices=False)
    axes = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
    return (u @ v) * count**0.5 * SPREADS @ axes.T + torch.arange(5.0)


def fitted(degree: float, values: torch.Tensor) -> Whitening:
    whitening = Whitening(values.shape[1])
    whitening.fit(values, degree)
    return whitening


@given(st.floats(0, 1))
def test_spreads_become_the_power_that_is_left_of_them(degree: float) -> None:
    y = fitted(degree, codes())(codes())
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(5), atol=1e-4, rtol=0)
    covariance = y.double().T @ y.double() / len(y)
    assert covariance.diagonal().mean() == pytest.approx(1, rel=1e-3)
    variance = SPREADS.double().square()
    shrunk = (1 - SHRINKAGE) * variance + SHRINKAGE * variance.mean()
    expected = variance * shrunk**-degree
    found = torch.linalg.eigvalsh(covariance)
    torch.testing.assert_close(found, (expected / expected.mean()).sort().values, rtol=2e-3, atol=0)


def test_a_layer_that_reads_the_whitened_code_says_what_it_said() -> None:
    torch.manual_seed(0)
    layer, y = nn.Linear(5, 7), codes(20, seed=1)
    before = layer(y)
    whitening = fitted(0.75, codes())
    whitening.fold_into(layer)
    torch.testing.assert_close(layer(whitening(y)), before, atol=1e-4, rtol=1e-4)


def test_it_is_symmetric_so_that_codes_stay_as_near_to_themselves_as_whitened_codes_can() -> None:
    assert torch.equal(Whitening(5)(codes(10)), codes(10)), "nothing happens before it is fitted"
    matrix = fitted(1.0, codes()).matrix
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    with pytest.raises(ConfigError, match="between 0"):
        SemanticEncoderConfig(whitening=1.5)


def test_fewer_scans_than_numbers_blow_nothing_up() -> None:
    whitening = fitted(1.0, codes(3))
    assert torch.isfinite(whitening.matrix).all()
    gains = torch.linalg.eigvalsh(whitening.matrix)
    assert gains.max() / gains.min() < 2 * SHRINKAGE**-0.5 * 5**0.5


def test_what_differs_within_subjects_becomes_alike_in_every_direction() -> None:
    people = codes(1000)
    noise = torch.randn(2000, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.3, 1.0, 0.5, 2.0, 1.0])
    noise = noise - noise.mean(dim=0)
    scans = torch.cat([people, people]) + noise
    names = [str(i) for i in range(1000)] * 2
    whitening = Whitening(5)
    whitening.fit(scans, 1.0, names)
    y = whitening(scans).double()
    assert y.var(dim=0, correction=0).mean() == pytest.approx(1, rel=1e-3)
    change = y[:1000] - y[1000:]
    spreads = torch.linalg.eigvalsh(change.T @ change)
    assert spreads.max() / spreads.min() < 1.5
    before = scans[:1000] - scans[1000:]
    spreads = torch.linalg.eigvalsh(before.T @ before)
    assert spreads.max() / spreads.min() > 30
    once = Whitening(5)
    once.fit(people, 1.0, names[:1000])
    torch.testing.assert_close(once.matrix, fitted(1.0, people).matrix)
