"""Volumes of any size: padding and streaming."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ldae.models.blocks import group_moments
from ldae.models.cells import crop_to, pad_to_multiple, padded_shape
from ldae.models.compression import CompressionAutoencoder, CompressionConfig
from ldae.models.streaming import decode_latents, encode_images, stream

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


@pytest.fixture(scope="module")
def compression():
    """Three levels, so that a cell spans four voxels; with statistics that are not the identity."""
    torch.manual_seed(0)
    model = CompressionAutoencoder(
        CompressionConfig(channels=(4, 8, 8), latent_channels=2, residual_blocks=1, groups=2)
    )
    model.fit_statistics(torch.tensor([0.1, -0.2]), torch.tensor([0.5, 2.0]))
    return model.eval().requires_grad_(False)


@given(shape=SHAPES, multiple=st.integers(1, 8))
def test_padding_is_undone_by_cropping(shape, multiple):
    x = torch.rand(2, 1, *shape) + 1
    padded = pad_to_multiple(x, multiple)
    assert tuple(padded.shape[2:]) == padded_shape(shape, multiple)
    assert all(n % multiple == 0 and n - own < multiple for n, own in zip(padded.shape[2:], shape, strict=True))
    assert torch.equal(crop_to(padded, shape), x)
    assert float(padded.sum()) == pytest.approx(float(x.sum()), rel=1e-5), "nothing but background is added"
    if all(n % multiple == 0 for n in shape):
        assert padded is x


@pytest.mark.parametrize("shape", [(8, 12, 8), (9, 12, 8), (5, 7, 11), (1, 3, 2)])
def test_any_grid_comes_back(compression, shape):
    x = torch.rand(2, 1, *shape)
    posterior = compression.encode(x)
    assert tuple(posterior.mean.shape[1:]) == compression.config.latent_shape(shape)
    assert compression.decode(posterior.mean, shape).shape == x.shape
    torch.testing.assert_close(
        compression.decode(posterior.mean, shape), crop_to(compression.decode(posterior.mean), shape)
    )
    if shape == (8, 12, 8):  # a grid that divides is untouched
        assert torch.equal(compression.posterior(x).mean, compression.network.encode(x)[0])
        z = torch.randn(1, 2, 2, 3, 2)
        assert torch.equal(compression.decode_raw(z, shape), compression.network.decode(z))


@pytest.mark.parametrize("shape", [(24, 20, 16), (37, 18, 21)])
def test_streaming_is_the_whole(compression, shape):
    x = torch.rand(2, 1, *shape)
    whole, streamed = encode_images(compression, x), encode_images(compression, x, whole=1)
    torch.testing.assert_close(whole.mean, compression.encode(x).mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(streamed.mean, whole.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(streamed.std, whole.std, atol=1e-5, rtol=1e-4)
    image = decode_latents(compression, whole.mean, shape)
    assert image.shape == x.shape
    torch.testing.assert_close(decode_latents(compression, whole.mean, shape, whole=1), image, atol=1e-4, rtol=1e-4)
    assert "forward" not in vars(compression.network.encoder), "the network is as it was"


def test_attention_joins_the_slabs():
    class Whole(nn.Module):
        def forward(self, x):
            return x - x.mean(dim=(2, 3, 4), keepdim=True)

    x = torch.rand(1, 3, 7, 4, 4)
    torch.testing.assert_close(stream([Whole()], x, 2), Whole()(x))


def test_a_large_group_is_normalised_as_in_double_precision():
    # Channels-last on the CPU, torch's own group norm is off by 1e-4 here, and by more with more voxels.
    network = CompressionAutoencoder(CompressionConfig(channels=(4, 8), latent_channels=2, groups=2)).network
    norm = next(each for each in network.modules() if isinstance(each, nn.GroupNorm))
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.uniform_(norm.bias)
    truth = nn.GroupNorm(2, 4, norm.eps).double()
    truth.load_state_dict(norm.state_dict())
    x = 5 + torch.randn(2, 4, 48, 64, 64, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    exact = x.detach().double().contiguous().requires_grad_()
    found, expected = norm(x), truth(exact)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    found.square().sum().backward()
    expected.square().sum().backward()
    misses = [
        float((one - other).norm() / other.norm())
        for one, other in (
            (found.detach(), expected.detach()),
            (x.grad, exact.grad),
            (norm.weight.grad, truth.weight.grad),
            (norm.bias.grad, truth.bias.grad),
        )
    ]
    assert misses[0] < 1e-6
    assert max(misses) < 1e-4, "of gradients, which torch sums itself"


def test_a_large_mean_costs_the_moments_no_digits():
    x = (
        torch.randn(2, 4, 20, 20, 20, generator=torch.Generator().manual_seed(0))
        + 300 * torch.arange(4)[:, None, None, None]
    )
    mean, variance = group_moments(x.split(7, dim=2), 2)
    exact = x.double().unflatten(1, (2, 2)).flatten(2)
    torch.testing.assert_close(mean, exact.mean(dim=2), rtol=1e-7, atol=1e-6)
    torch.testing.assert_close(variance, exact.var(dim=2, correction=0), rtol=1e-6, atol=0)
    (alone,) = group_moments([x[:, :1]], 1)[1].unbind(1)
    torch.testing.assert_close(alone, x[:, 0].double().flatten(1).var(dim=1, correction=0), rtol=1e-6, atol=0)
