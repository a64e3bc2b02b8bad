import math
from dataclasses import replace

import pytest
import torch

from ldae.base.hardware import choose_device, choose_precision
from ldae.config import load_experiment
from ldae.contract import Preprocessing
from ldae.errors import ConfigError
from ldae.models.blocks import ResidualBlock, SelfAttention, timestep_embedding
from ldae.models.compression import CompressionAutoencoder, CompressionConfig, Posterior
from ldae.models.denoiser import Denoiser, position_features
from ldae.models.gradient_estimator import GradientEstimator
from ldae.models.semantic_encoder import (
    SemanticEncoderConfig,
    SliceEncoder,
    SliceEncoderConfig,
    VolumeEncoder,
    VolumeEncoderConfig,
    build_semantic_encoder,
)
from tests.tiny_model import SLICES, TINY

UNET = TINY.denoiser


def alive(module):
    """Zero-initialised layers would hide what lies behind them."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return module.eval()


def test_a_new_block_is_its_skip_and_attention_does_not_care_where_voxels_lie():
    block, x = ResidualBlock(8, 8, 16), torch.randn(2, 8, 3, 4, 5)
    torch.testing.assert_close(block(x, torch.randn(2, 16)), x)
    torch.testing.assert_close(SelfAttention(8, 2)(x), x)
    attention, x = alive(SelfAttention(8, 2)), torch.randn(1, 8, 2, 3, 4)
    order = torch.randperm(24)
    shuffled = x.flatten(2)[..., order].reshape(x.shape)
    torch.testing.assert_close(attention(shuffled).flatten(2), attention(x).flatten(2)[..., order])


def test_timestep_embedding_has_its_closed_form():
    embedding = timestep_embedding(torch.tensor([0, 7]), 4)
    torch.testing.assert_close(embedding[0], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    expected = [math.cos(7), math.cos(0.07), math.sin(7), math.sin(0.07)]
    torch.testing.assert_close(embedding[1], torch.tensor(expected))


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("shape", [(4, 4, 4), (5, 3, 6)])
def test_denoiser_keeps_the_shape_of_any_latent(stride, shape):
    denoiser, z = Denoiser(replace(UNET, stride=stride), 3).eval(), torch.randn(2, 3, *shape)
    assert denoiser(z, torch.tensor([0, 999])).shape == z.shape
    assert not denoiser(z, torch.tensor([0, 999])).any(), "the head starts at zero"


def test_batches_are_independent():
    denoiser, z, t = alive(Denoiser(UNET, 3)), torch.randn(3, 3, 4, 4, 4), torch.tensor([1, 500, 900])
    together = denoiser(z, t)
    for row in range(3):
        torch.testing.assert_close(denoiser(z[row : row + 1], t[row : row + 1]), together[row : row + 1])


def test_gradient_estimator_hears_the_code_and_only_its_own_parameters_learn():
    denoiser, estimator = alive(Denoiser(UNET, 3)).requires_grad_(False), alive(GradientEstimator(UNET, 3, 6))
    features = denoiser.features(torch.randn(2, 3, 4, 4, 4), torch.tensor([5, 700]))
    one, two = (estimator(features, torch.randn(2, 6)) for _ in range(2))
    assert (one - two).abs().max() > 1e-4
    one.sum().backward()
    assert all(p.grad is None for p in denoiser.parameters())
    assert all(p.grad is not None for p in estimator.parameters())


def test_stage_three_backward_survives_channels_last_features():
    # torch 2.13 on the CPU crashes in GroupNorm's backward on channels-last inputs that need no gradient. (And its bf16
    # convolutions return garbage weight gradients on maps of 2x2x2, which is why no shipped network pools that far.)
    config = replace(UNET, width=16)
    denoiser, estimator = Denoiser(config, 3).requires_grad_(False), GradientEstimator(config, 3, 6)
    z = torch.randn(2, 3, 6, 6, 6).contiguous(memory_format=torch.channels_last_3d)
    denoiser.to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = denoiser.features(z, torch.tensor([5, 700]))
        # Which layout a convolution leaves depends on the processor, so it is set here.
        features = replace(found, skips=tuple(s.contiguous(memory_format=torch.channels_last_3d) for s in found.skips))
        estimator(features, torch.randn(2, 6)).float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in estimator.parameters() if p.grad is not None)


def test_coordinates_tell_left_from_right_and_a_warm_start_shifts_nothing():
    config = replace(UNET, coordinates=2)
    z, t = torch.zeros(1, 3, 4, 4, 4), torch.tensor([5])
    denoiser, estimator = alive(Denoiser(config, 3)), GradientEstimator(config, 3, 6).eval()
    position = position_features(z, 2)
    assert position.shape == (1, 12, 4, 4, 4)
    assert position.flatten(2).unique(dim=2).shape[2] == 64, "every voxel has its own"
    estimator.start_from(denoiser)
    torch.testing.assert_close(estimator.decoder.middle_out.conv_in.weight, denoiser.decoder.middle_out.conv_in.weight)
    assert not estimator(denoiser.features(z, t), torch.randn(1, 6)).any()


def test_slices_are_axial_and_their_order_matters():
    encoder, x = alive(SliceEncoder(SLICES, 6)), torch.randn(2, 1, 8, 12, 6)
    stack = torch.stack([x[:, :, :, :, k] for k in range(6)], dim=1)
    torch.testing.assert_close(encoder(x), encoder.from_slices(stack))
    assert (encoder(x) - encoder(x.flip(4))).abs().max() > 1e-4


def test_volume_encoder_gives_its_width():
    config = SemanticEncoderConfig(volume=VolumeEncoderConfig(widths=(4, 8), semantic_width=10, pooled=2))
    encoder = build_semantic_encoder(config, (8, 8, 8))
    assert isinstance(encoder, VolumeEncoder)
    assert encoder(torch.randn(3, 1, 8, 8, 8)).shape == (3, 10)
    with pytest.raises(ConfigError, match="leave one out"):
        SemanticEncoderConfig(slices=SliceEncoderConfig(), volume=VolumeEncoderConfig())


def test_standardised_latents_decode_as_raw_ones_and_their_divergence_has_its_closed_form():
    model = CompressionAutoencoder(
        CompressionConfig(channels=(4, 8), latent_channels=2, residual_blocks=1, groups=2)
    ).eval()
    x = torch.rand(2, 1, 8, 8, 8)
    model.fit_statistics(torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5]))
    raw, standard = model.posterior(x), model.encode(x)
    torch.testing.assert_close(model.decode(standard.mean), model.decode_raw(raw.mean))
    torch.testing.assert_close(standard.std * model.latent_std[:, None, None, None], raw.std)
    with pytest.raises(ConfigError, match="collapsed"):
        model.fit_statistics(torch.zeros(2), torch.tensor([1.0, 0.0]))
    posterior = Posterior(torch.full((1, 1, 2, 2, 2), 2.0), torch.full((1, 1, 2, 2, 2), 0.5))
    assert float(posterior.kl()) == pytest.approx(0.5 * (4 + 0.25 - 1 - math.log(0.25)))
    assert float(Posterior(torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)).kl()) == pytest.approx(0)


def test_grids_that_do_not_divide_have_whole_cells():
    assert CompressionConfig(channels=(32, 32, 32)).latent_shape((8, 10, 9)) == (3, 2, 3, 3)
    assert CompressionConfig().latent_shape((128, 160, 128)) == (3, 16, 20, 16)
    with pytest.raises(ConfigError, match=r"shape must be between 1 and 1024 each, got \(128, 0, 128\)"):
        Preprocessing(shape=(128, 0, 128))


def test_hardware_is_chosen_or_refused():
    cpu = choose_device("cpu")
    assert choose_precision("fp32", cpu) == torch.float32
    assert choose_precision("bf16", cpu) == torch.bfloat16
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--device auto"):
            choose_device("cuda")


def test_paper_config_has_the_published_number_of_parameters():
    experiment = load_experiment("paper")
    model = experiment.autoencoder
    with torch.device("meta"):
        denoiser = Denoiser(model.denoiser, 3)
        estimator = GradientEstimator(model.denoiser, 3, model.semantic_encoder.semantic_width)
        encoder = build_semantic_encoder(model.semantic_encoder, model.preprocessing.shape)
    count = sum(p.numel() for part in (denoiser, estimator) for p in part.parameters())
    assert count == 865_339_142
    # ConvNeXt-Small without its last linear layer and with one input channel, and the attention on top.
    assert sum(p.numel() for p in encoder.backbone.parameters()) == 49_451_616
    assert model.compression.latent_shape(model.preprocessing.shape) == (3, 16, 20, 16)


def test_without_channels_the_latent_is_the_scan():
    config = CompressionConfig(channels=(), latent_channels=1)
    model, x = CompressionAutoencoder(config), torch.rand(2, 1, 6, 5, 7)
    assert config.latent_shape((6, 5, 7)) == (1, 6, 5, 7)
    model.fit_statistics(torch.tensor([0.4]), torch.tensor([0.2]))
    posterior = model.encode(x)
    torch.testing.assert_close(posterior.mean, (x - 0.4) / 0.2)
    assert not posterior.std.any()
    torch.testing.assert_close(model.decode(posterior.mean), x)
    assert not list(model.parameters())
    with pytest.raises(ConfigError, match="latent_channels must be 1"):
        CompressionConfig(channels=(), latent_channels=3)


@torch.no_grad()
def shortcut_autoencoder(**changes):
    plain = {"channels": (4, 4), "latent_channels": 8, "residual_blocks": 1, "groups": 2, "shortcut": True}
    return CompressionAutoencoder(CompressionConfig(**{**plain, **changes})).eval()


def test_as_many_channels_as_voxels_lose_nothing():
    torch.manual_seed(0)
    model, x = shortcut_autoencoder(), torch.rand(2, 1, 8, 6, 10)
    posterior = model.posterior(x)
    assert posterior.mean.shape == (2, 8, 4, 3, 5)
    torch.testing.assert_close(posterior.mean[0, :, 1, 2, 3], x[0, 0, 2:4, 4:6, 6:8].flatten())
    assert torch.equal(model.decode_raw(posterior.mean), x)
    odd = x[..., :5, :9]
    assert torch.equal(model.decode_raw(model.posterior(odd).mean, odd.shape[2:]), odd)
    for changes in ({"latent_channels": 3}, {"channels": (), "latent_channels": 1}):
        with pytest.raises(ConfigError, match="must divide"):
            shortcut_autoencoder(**changes)


def test_fewer_channels_start_as_means_of_patches():
    torch.manual_seed(0)
    model, x = shortcut_autoencoder(channels=(4, 4, 4), latent_channels=4), torch.rand(1, 1, 8, 8, 8)
    mean = model.posterior(x).mean
    torch.testing.assert_close(mean.mean(dim=1), torch.nn.functional.avg_pool3d(x, 4)[:, 0])
    # Decoding and encoding again is a projection, and every weight of the networks still learns.
    torch.testing.assert_close(model.posterior(model.decode_raw(mean)).mean, mean)
    model.decode_raw(model.posterior(x).mean).square().mean().backward()
    assert model.network.decoder.blocks[-1].conv.weight.grad.abs().max() > 0
    assert model.network.quant_conv_mu.conv.weight.grad.abs().max() > 0


@torch.no_grad()
def test_a_withheld_code_is_not_heard():
    denoiser, estimator = alive(Denoiser(UNET, 3)), alive(GradientEstimator(UNET, 3, 6))
    features = denoiser.features(torch.randn(2, 3, 4, 4, 4), torch.tensor([5, 700]))
    keep = torch.tensor([1.0, 0.0])
    one, two = torch.randn(2, 6), torch.randn(2, 6)
    torch.testing.assert_close(estimator(features, one, keep)[1], estimator(features, two, keep)[1])
    assert (estimator(features, one, keep)[0] - estimator(features, two, keep)[0]).abs().max() > 1e-4
    torch.testing.assert_close(estimator(features, one, keep)[0], estimator(features, one)[0])


def test_a_code_map_begins_as_the_regression_of_latents_on_codes_and_is_shifted_by():
    denoiser = alive(Denoiser(UNET, 3)).requires_grad_(False)
    shape = (3, 4, 4, 4)
    estimator = GradientEstimator(UNET, 3, 6, shape)
    generator = torch.Generator().manual_seed(0)
    codes, weight = torch.randn(50, 6, generator=generator), torch.randn(6, 3 * 64, generator=generator)
    latents = (codes @ weight + 0.5).unflatten(1, shape)
    estimator.begin_map(codes, latents, ridge=1e-9)
    values = estimator.embed(codes)[:, estimator.embedding_width :].unflatten(1, shape)
    torch.testing.assert_close(values, latents, atol=1e-3, rtol=1e-3)
    features = denoiser.features(torch.randn(2, *shape, generator=generator), torch.tensor([3, 800]))
    assert not estimator(features, codes[:2]).any(), "it begins by changing nothing"
    torch.nn.init.ones_(estimator.map_weight.bias)
    torch.testing.assert_close(estimator(features, codes[:2]), latents[:2], atol=1e-3, rtol=1e-3)
    assert not estimator(features, codes[:2], keep=torch.zeros(2)).any()
