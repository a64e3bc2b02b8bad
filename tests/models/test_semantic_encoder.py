"""The linear path of the volume encoder: begins as principal components, and the network adds nothing at first."""

import math
from dataclasses import replace

import pytest
import torch

from ldae.contract import LEFT_RIGHT
from ldae.errors import ConfigError
from ldae.models.semantic_encoder import LinearPath, VolumeEncoder, VolumeEncoderConfig
from ldae.models.tissue_maps import TissueMaps

SHAPE = (8, 6, 10)


def scans(count: int, seed: int = 0) -> torch.Tensor:
    """Volumes that vary along a few directions of very different strength."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.nn.functional.interpolate(torch.randn(12, 1, 4, 3, 5, generator=generator), SHAPE)
    strength = 10.0 ** -torch.arange(12).mul(0.3)
    return 0.5 + torch.einsum("nk,kcdhw->ncdhw", torch.randn(count, 12, generator=generator) * strength, basis)


def begun(count: int, width: int) -> tuple[LinearPath, torch.Tensor]:
    torch.manual_seed(0)
    path, x = LinearPath(2, (1, *SHAPE), width), scans(count)
    path.begin_from(path.averaged(x))
    return path, path(x)


def test_codes_begin_as_the_principal_components_with_unit_variance() -> None:
    path, y = begun(60, 8)
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.T @ y / len(y), torch.eye(8), atol=1e-3, rtol=0)
    x = path.averaged(scans(60)).double()
    u = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)[0][:, :6] * math.sqrt(60)
    torch.testing.assert_close((u.T @ y[:, :6].double() / 60).abs(), torch.eye(6).double(), atol=1e-3, rtol=0)
    assert torch.equal(begun(60, 8)[0].weight, path.weight), "it begins the same twice"


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_components_keep_a_power_of_their_spread(spread: float) -> None:
    path, x = LinearPath(2, (1, *SHAPE), 8), scans(60)
    averaged = path.averaged(x).double()
    variance = torch.linalg.svdvals(averaged - averaged.mean(dim=0))[:8].square()
    path.begin_from(path.averaged(x), spread)
    found = path(x).double().var(dim=0, correction=0)
    torch.testing.assert_close(found / found[0], (variance / variance[0]) ** spread, atol=1e-3, rtol=1e-3)
    assert found.mean().item() == pytest.approx(1.0, rel=1e-3)


def test_without_layer_norm_a_code_keeps_its_distance_from_the_mean() -> None:
    def distances(layer_norm: bool) -> torch.Tensor:
        torch.manual_seed(0)
        config = VolumeEncoderConfig(widths=(8,), semantic_width=8, linear=2, layer_norm=layer_norm)
        encoder = VolumeEncoder(config, SHAPE).eval()
        x = scans(60)
        assert encoder.linear is not None
        encoder.linear.begin_from(encoder.linear.averaged(x))
        middle = x.mean(dim=0, keepdim=True)
        return encoder(middle + torch.tensor([1.0, 2.0, 4.0])[:, None, None, None, None] * (x[:1] - middle)).norm(dim=1)

    far, normed = distances(False), distances(True)
    torch.testing.assert_close(far[1:] / far[:1], torch.tensor([2.0, 4.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(normed[1:], normed[:1].expand(2), atol=1e-2, rtol=0)


def test_few_scans_leave_the_rest_random_at_unit_variance() -> None:
    path, y = begun(5, 16)
    assert torch.isfinite(path.weight).all()
    torch.testing.assert_close(y.std(dim=0, correction=0), torch.ones(16), atol=1e-3, rtol=0)


def test_network_adds_nothing_until_it_has_learnt() -> None:
    encoder = VolumeEncoder(VolumeEncoderConfig(widths=(4, 8), semantic_width=8, pooled=2, linear=2), SHAPE).eval()
    assert encoder.linear is not None
    x = scans(7)
    torch.testing.assert_close(encoder(x), encoder.norm(encoder.linear(x)))
    encoder(x).square().sum().backward()
    assert encoder.projection.weight.grad is not None
    assert encoder.projection.weight.grad.abs().sum() > 0


def test_an_encoder_reads_averages_of_the_tissue_and_no_contrast() -> None:
    config = VolumeEncoderConfig("tissue", 2, widths=(4,), semantic_width=8, pooled=2, linear=2, symmetric=True)
    encoder = VolumeEncoder(config, SHAPE).eval()
    x = scans(3).abs().clamp_max(1)
    maps = TissueMaps()(x)
    both = torch.nn.functional.avg_pool3d((maps + maps.flip(2)) / 2, 4)
    assert encoder.linear is not None
    expected = encoder.norm(torch.nn.functional.linear(both.flatten(1) - encoder.linear.mean, encoder.linear.weight))
    torch.testing.assert_close(encoder(x), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder(x.flip(2)), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("linear", [0, 1])
def test_a_symmetric_encoder_says_the_same_of_the_mirror_image(linear: int) -> None:
    config = VolumeEncoderConfig(widths=(4, 8), semantic_width=8, pooled=2, linear=linear, symmetric=True)
    torch.manual_seed(0)
    encoder = VolumeEncoder(config, SHAPE).eval()
    torch.nn.init.normal_(encoder.projection.weight)
    x = scans(7)
    torch.testing.assert_close(encoder(x), encoder(x.flip(LEFT_RIGHT)))
    plain = VolumeEncoder(replace(config, symmetric=False), SHAPE).eval()
    plain.load_state_dict(encoder.state_dict())
    assert (plain(x) - plain(x.flip(LEFT_RIGHT))).abs().max() > 0.1


def test_a_symmetric_encoder_begins_from_the_mean_of_both_sides() -> None:
    config = VolumeEncoderConfig(widths=(4, 8), semantic_width=8, pooled=2, linear=1, symmetric=True)
    encoder = VolumeEncoder(config, SHAPE).eval()
    assert encoder.linear is not None
    x = scans(7)
    torch.testing.assert_close(encoder(x), encoder.norm(encoder.linear((x + x.flip(LEFT_RIGHT)) / 2)))


def test_remainders_are_left_out_and_too_coarse_a_grid_is_refused() -> None:
    assert LinearPath(4, (5, *SHAPE), 3).weight.shape == (3, 5 * 2 * 1 * 2)
    with pytest.raises(ConfigError, match=r"lower volume\.linear"):
        LinearPath(7, (1, *SHAPE), 3)
