"""The model of most tests: every part of the method, as small as it goes."""

import torch

from ldae.autoencoder import AutoencoderConfig, LatentDiffusionAutoencoder, Networks, SamplingConfig
from ldae.contract import Preprocessing
from ldae.models.compression import CompressionConfig
from ldae.models.convnext import ConvNeXtConfig
from ldae.models.denoiser import DenoiserConfig
from ldae.models.semantic_encoder import SemanticEncoderConfig, SliceEncoderConfig

SLICES = SliceEncoderConfig(ConvNeXtConfig(depths=(1, 1), widths=(8, 16), layer_scale=1.0), heads=2)
TINY = AutoencoderConfig(
    semantic_encoder=SemanticEncoderConfig(slices=SLICES),
    preprocessing=Preprocessing(shape=(16, 24, 16), voxel_size_mm=10.0, centre_mm=(0.0, -17.0, 5.0)),
    compression=CompressionConfig(channels=(4, 4, 8), latent_channels=2, residual_blocks=1, groups=2),
    denoiser=DenoiserConfig(
        width=8,
        multipliers=(1, 2),
        residual_blocks=1,
        attention_levels=(1,),
        dropout=0.0,
        # A noise prediction at the last level is divided by a signal of 0.006, and so are its rounding errors.
        prediction="velocity",
    ),
    shift="velocity",
    sampling=SamplingConfig(steps=3),
)


def make_tiny_model(config: AutoencoderConfig = TINY) -> LatentDiffusionAutoencoder:
    """Random weights, with the zero-initialised layers made alive, in fp32 on the CPU."""
    torch.manual_seed(0)
    networks = Networks(config)
    for parameter in networks.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return LatentDiffusionAutoencoder(config, networks, device="cpu", precision="fp32")
