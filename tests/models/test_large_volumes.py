"""Volumes of any size: padding, streaming, tiling."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ldae.errors import ConfigError
from ldae.models.compression import CompressionAutoencoder, CompressionConfig
from ldae.models.padding import crop_to, pad_to_multiple, padded_shape
from ldae.models.streaming import stream
from ldae.models.tiling import Tiling, blend_tiles, decode_tiled, encode_tiled, lay_spans, lay_tiles

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
WHOLE = Tiling(whole=10**9)


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


def test_a_grid_that_divides_is_untouched(compression):
    x = torch.rand(1, 1, 8, 12, 8)
    assert torch.equal(compression.posterior(x).mean, compression.network.encode(x)[0])
    z = torch.randn(1, 2, 2, 3, 2)
    assert torch.equal(compression.decode_raw(z, (8, 12, 8)), compression.network.decode(z))


@pytest.mark.parametrize("shape", [(24, 20, 16), (37, 18, 21)])
def test_streaming_is_the_whole(compression, shape):
    x = torch.rand(2, 1, *shape)
    whole, streamed = encode_tiled(compression, x, WHOLE), encode_tiled(compression, x, Tiling(whole=1))
    torch.testing.assert_close(whole.mean, compression.encode(x).mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(streamed.mean, whole.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(streamed.std, whole.std, atol=1e-5, rtol=1e-4)
    image = decode_tiled(compression, whole.mean, shape, WHOLE)
    assert image.shape == x.shape
    torch.testing.assert_close(
        decode_tiled(compression, whole.mean, shape, Tiling(whole=1)), image, atol=1e-4, rtol=1e-4
    )
    assert "forward" not in vars(compression.network.encoder), "the network is as it was"


def test_attention_joins_the_slabs():
    class Whole(nn.Module):
        def forward(self, x):
            return x - x.mean(dim=(2, 3, 4), keepdim=True)

    x = torch.rand(1, 3, 7, 4, 4)
    torch.testing.assert_close(stream([Whole()], x, 2), Whole()(x))


@given(
    cells=st.integers(1, 40),
    count=st.integers(1, 5),
    halo=st.integers(0, 3),
    blend=st.integers(0, 3),
    scale=st.sampled_from([1, 4]),
)
def test_weights_sum_to_one_and_no_halo_counts(cells, count, halo, blend, scale):
    tiling = Tiling(halo=halo, blend=blend)
    if count > 1 and cells < tiling.overlap + count * max(1, blend):
        count = 1
    spans = lay_spans(cells, count, tiling)
    total = torch.zeros(cells * scale)
    for span in spans:
        weight = span.weight(scale)
        total[span.start * scale : span.stop * scale] += weight
        if span.rise is not None:
            assert not weight[: halo * scale].any()
        if span.fall is not None and halo:
            assert not weight[-halo * scale :].any()
    torch.testing.assert_close(total, torch.ones(cells * scale))


@given(cells=st.tuples(*[st.integers(1, 40)] * 3), budget=st.integers(8**3, 20**3))
def test_tiles_cover_the_volume_within_the_budget(cells, budget):
    tiles = lay_tiles(cells, 4, Tiling(tile=budget * 64))
    covered = torch.zeros(cells, dtype=torch.bool)
    for tile in tiles:
        part = tuple(slice(span.start, span.stop) for span in tile)
        assert covered[part].numel() <= budget
        covered[part] = True
    assert covered.all()


def test_tiles_without_room_are_refused():
    with pytest.raises(ConfigError, match="lower halo or blend"):
        lay_tiles((30, 30, 30), 4, Tiling(tile=8**3))
    with pytest.raises(ConfigError, match="at least 1 voxel"):
        Tiling(tile=0)


def test_tiles_of_a_local_network_are_the_whole():
    # Two convolutions see two voxels, which a halo of two cells holds.
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv3d(4, 2, 3, padding=1)).requires_grad_(
        False
    )
    x = torch.rand(1, 1, 19, 8, 13)
    tiles = lay_tiles((19, 8, 13), 1, Tiling(tile=10 * 8 * 10, halo=2, blend=2))
    assert len(tiles) > 4
    torch.testing.assert_close(blend_tiles(network, x, tiles, scale_in=1, scale_out=1), network(x))


def test_a_local_autoencoder_in_tiles_is_the_whole(compression):
    # Without norms only neighbours matter, here up to 22 voxels away, which is less than six cells.
    local = copy.deepcopy(compression)
    for module in list(local.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    x = torch.rand(1, 1, 84, 16, 15)
    tiling = Tiling(whole=17 * 4 * 16 * 16, tile=17 * 4 * 16 * 16, halo=6, blend=1)
    assert len(lay_tiles((21, 4, 4), 4, tiling)) == 2
    posterior, tiled = local.encode(x), encode_tiled(local, x, tiling)
    torch.testing.assert_close(tiled.mean, posterior.mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tiled.std, posterior.std, atol=1e-5, rtol=1e-4)
    image = decode_tiled(local, posterior.mean, x.shape[2:], tiling)
    torch.testing.assert_close(image, local.decode(posterior.mean, x.shape[2:]), atol=1e-5, rtol=1e-4)


def test_one_tile_is_the_whole_exactly(compression):
    x = torch.rand(1, 1, 16, 20, 16)
    (tile,) = lay_tiles((4, 5, 4), 4, Tiling())
    blended = blend_tiles(lambda part: compression.encode(part).mean, x, [tile], scale_in=4, scale_out=1)
    assert torch.equal(blended, compression.encode(x).mean)
