"""Each stage learns: four scans by heart, in a few seconds."""

from dataclasses import replace

import pytest
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.contract import Preprocessing
from ldae.diffusion import SamplingConfig
from ldae.models.compression import CompressionConfig
from ldae.models.denoiser import DenoiserConfig
from ldae.models.semantic_encoder import SemanticEncoderConfig, VolumeEncoderConfig
from ldae.networks import Networks
from ldae.training.compression import CompressionLossConfig
from ldae.training.recipe import ExperimentConfig, build_stage
from ldae.training.stage import Draws

SIDE = 8


def loss_left(stage, batch, steps, rate):
    """Fraction of the loss, at the same noise before and after, that training leaves."""

    @torch.no_grad()
    def loss():
        stage.eval()
        repeated = {name: scans.repeat(8, 1, 1, 1, 1) for name, scans in batch.items()}
        return stage.losses(repeated, Draws(0, 0))["loss"]

    stage.begin_validation()
    before = loss()
    optimizer = torch.optim.AdamW(stage.averaged().parameters(), rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    stage.train()
    for _ in range(steps):
        for loss_of_pass, _ in stage.passes(batch):
            optimizer.zero_grad()
            loss_of_pass.backward()
            optimizer.step()
        scheduler.step()
        stage.steps_done += 1
    return loss() / before


@pytest.mark.no_cover  # hundreds of steps, each slower by half under coverage
def test_four_scans_are_learnt_and_each_code_decodes_nearest_to_its_own():
    torch.manual_seed(0)
    base = ExperimentConfig()
    config = ExperimentConfig(
        preprocessing=Preprocessing(shape=(SIDE, SIDE, SIDE), voxel_size_mm=20.0),
        compression=replace(
            base.compression,
            model=CompressionConfig(channels=(16, 16), latent_channels=2, residual_blocks=1, groups=2),
            loss=CompressionLossConfig(kl=1e-6, adversarial=0.0),
        ),
        denoiser=replace(
            base.denoiser,
            model=DenoiserConfig(16, (1, 2), 1, attention_levels=(1,), dropout=0.0, prediction="velocity"),
        ),
        representation=replace(
            base.representation,
            # Places are kept: scans that differ in where things are look alike to global average pooling.
            semantic_encoder=SemanticEncoderConfig(
                volume=VolumeEncoderConfig(widths=(8, 16), semantic_width=16, pooled=2)
            ),
            shift="velocity",
            weighting="velocity",
            warm_start=True,
        ),
        sampling=SamplingConfig(steps=5),
    )
    networks = Networks(config.autoencoder)
    coarse = torch.randn(4, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    scans = torch.sigmoid(3 * torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE, SIDE), mode="trilinear"))

    compression = networks.compression
    assert loss_left(build_stage("compression", config, networks), {"image": scans}, 80, 5e-3) < 0.1
    with torch.no_grad():
        raw = compression.posterior(scans).mean.transpose(0, 1).flatten(1)
        compression.fit_statistics(raw.mean(dim=1), raw.std(dim=1))
        latent = compression.encode(scans).mean
    batch = {"latent": latent.repeat(2, 1, 1, 1, 1), "image": scans.repeat(2, 1, 1, 1, 1)}
    assert loss_left(build_stage("denoiser", config, networks), batch, 50, 5e-3) < 0.85
    assert loss_left(build_stage("representation", config, networks), batch, 60, 1e-2) < 0.5

    model = LatentDiffusionAutoencoder(config.autoencoder, networks, device="cpu", precision="fp32")
    noise = model.draw_noise(1, torch.Generator().manual_seed(0)).expand(4, -1, -1, -1, -1)
    decoded = torch.from_numpy(model.generate(noise, model.semantic(scans)))
    errors = (decoded[:, None] - scans[:, 0]).abs().flatten(2).mean(dim=2)
    assert errors.argmin(dim=1).tolist() == [0, 1, 2, 3], errors
