import pytest
import torch

from ldae.errors import ConfigError
from ldae.models.cells import from_patches
from ldae.models.components import ComponentsConfig
from ldae.models.compression import CompressionAutoencoder, CompressionConfig

SHAPE = (8, 12, 8)


def scans(count, seed=0):
    """Smooth scans of few causes, with noise."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(6, 1, 4, 6, 4, generator=torch.Generator().manual_seed(9))
    causes = torch.nn.functional.interpolate(causes, size=SHAPE, mode="trilinear")
    weights = torch.randn(count, 6, generator=generator)
    noise = torch.randn(count, 1, *SHAPE, generator=generator)
    return 0.5 + 0.1 * torch.einsum("nk,kcdhw->ncdhw", weights, causes) + 0.01 * noise


def fitted(channels, whitening=0.0, patch=4, count=40):
    config = CompressionConfig(channels=(), latent_channels=channels, components=ComponentsConfig(patch, whitening))
    compression = CompressionAutoencoder(config, SHAPE)
    compression.network.fit(scans(count).split(7), torch.Generator().manual_seed(0))
    return compression


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_all_components_lose_nothing_and_few_lose_the_smallest_variances(whitening):
    x = scans(40)
    whole, few = fitted(8, whitening, patch=2), fitted(3, whitening)
    assert whole.encode(x).mean.shape == (40, 8, 4, 6, 4)
    torch.testing.assert_close(whole.decode(whole.encode(x).mean), x, atol=1e-4, rtol=0)
    patches = few.network.to_patches(x).double()
    patches = patches - patches.mean(dim=0)
    variances = torch.linalg.eigvalsh(torch.einsum("bpv,bpw->pvw", patches, patches))
    lost = (few.decode(few.encode(x).mean) - x).square().sum()
    assert lost.item() == pytest.approx(variances[:, :-3].sum().item(), rel=1e-3)


@pytest.mark.parametrize("whitening", [0.0, 1.0])
def test_latents_are_centred_and_of_unit_mean_square(whitening):
    # The scans are kept in half precision while they are fitted.
    latent = fitted(4, whitening).encode(scans(40)).mean
    torch.testing.assert_close(latent.mean(dim=0), torch.zeros(latent.shape[1:]), atol=1e-3, rtol=0)
    assert latent.square().mean().item() == pytest.approx(1.0, rel=1e-3)
    if whitening == 1:
        assert latent.std(dim=0).std() < 0.2


def test_a_channel_means_the_same_at_every_place():
    # Patches of one distribution have one basis, up to its sign and rotation: turned toward the shared one they agree.
    generator = torch.Generator().manual_seed(1)
    directions = torch.linalg.qr(torch.randn(64, 3, generator=generator))[0] * torch.tensor([3.0, 2.9, 2.8])
    weights = torch.randn(400, 2 * 3 * 2, 3, generator=generator)
    compression = fitted(3)
    x = from_patches((weights @ directions.T).transpose(1, 2).unflatten(2, (2, 3, 2)), 4)
    compression.network.fit([x], generator)
    basis = compression.network.basis
    alike = torch.einsum("pvc,qvc->pqc", basis, basis)
    assert alike.min() > 0.99


def test_the_posteriors_spread_is_that_of_the_residual():
    compression = fitted(6)
    posterior = compression.encode(scans(40))
    spread = (posterior.std * compression.network.scale.T.reshape(6, 2, 3, 2)).unique()
    # Six causes are kept, so that the noise of 0.01 is left.
    assert ((spread > 0.008) & (spread < 0.011)).all()


def test_grids_that_do_not_suit_are_refused():
    config = CompressionConfig(channels=(), latent_channels=3, components=ComponentsConfig(4))
    for shape in (None, (8, 12, 9)):
        with pytest.raises(ConfigError, match=r"whole patches of 4 voxels.*preprocessing\.shape"):
            CompressionAutoencoder(config, shape)
    with pytest.raises(ConfigError, match=r"\(8, 12, 8\) voxels alone, got \(12, 12, 8\)"):
        fitted(3).encode(torch.zeros(1, 1, 12, 12, 8))
    for wrong in ({"channels": (8,), "latent_channels": 3}, {"channels": (), "latent_channels": 65}):
        with pytest.raises(ConfigError, match="at most the 64 voxels"):
            CompressionConfig(components=ComponentsConfig(4), **wrong)


def test_patches_that_show_nothing_can_be_left_out():
    x = scans(40)
    x[:, :, :4, :4] = 0.0  # two of the patches
    compression = fitted(5)
    compression.network.fit([x], torch.Generator().manual_seed(0))
    before, std = compression.network.encode(x)
    empty = compression.network.leave_out_empty()
    assert empty.tolist() == [True] * 2 + [False] * 10
    mean, small_std = compression.network.encode(x)
    assert not mean[:, :, 0, 0].any()
    torch.testing.assert_close(mean[:, :, 1:], before[:, :, 1:])
    torch.testing.assert_close(small_std[:, :, 1:], std[:, :, 1:])
    noise = torch.randn(2, 5, 2, 3, 2)
    assert not compression.network.decode(noise)[:, :, :4, :4].any()
