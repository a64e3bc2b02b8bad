"""The four networks, and their joint prediction from a noisy latent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldae.contract import Preprocessing
from ldae.diffusion import (
    Estimate,
    NoiseSchedule,
    Predict,
    SamplingConfig,
    ScheduleConfig,
    ShiftForm,
    check_forms,
    interpret,
    shift_scale,
    velocity_of,
)
from ldae.errors import ConfigError, TaskError
from ldae.models.components import PatchComponents
from ldae.models.compression import CompressionAutoencoder, CompressionConfig
from ldae.models.denoiser import Denoiser, DenoiserConfig, Features
from ldae.models.gradient_estimator import GradientEstimator
from ldae.models.semantic_encoder import SemanticEncoder, SemanticEncoderConfig, build_semantic_encoder

__all__ = ["AutoencoderConfig", "Networks", "denoiser_velocity", "semantic_predict", "semantic_velocities"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shapes of the networks, and all that the meaning of codes depends on.

    Attributes:
        semantic_encoder: 2.5D or 3D.
        preprocessing: the contract with scans.
        compression: shape of stage 1.
        schedule: of the noise.
        denoiser: shape of stage 2.
        shift: meaning of the gradient estimator's output.
        semantic_dropout: whether the gradient estimator was also trained without y, which guidance then starts from.
        code_map: whether the gradient estimator also lays the code out as a latent.
        sampling: default way to find and decode noise codes.
    """

    semantic_encoder: SemanticEncoderConfig
    preprocessing: Preprocessing = Preprocessing()
    compression: CompressionConfig = CompressionConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    shift: ShiftForm = "posterior"
    semantic_dropout: bool = False
    code_map: bool = False
    sampling: SamplingConfig = SamplingConfig()


class NotLoaded(nn.Module):
    """Place of a network that was left out."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattr__(name)
        msg = "this model was loaded for semantic codes alone; load it whole for noise codes, decoding and sampling"
        raise TaskError(msg)


class Networks(nn.Module):
    """The four networks of a latent diffusion autoencoder.

    Args:
        config: their shapes.

    Raises:
        ConfigError: if the model's grid does not suit the networks.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        latent_shape = config.compression.latent_shape(config.preprocessing.shape)
        channels, *cells = latent_shape
        levels = len(config.denoiser.multipliers)
        if any(n // stride ** (levels - 1) < 1 for n, stride in zip(cells, config.denoiser.stride, strict=True)):
            msg = (
                f"a latent of {tuple(cells)} cells is too small for {levels} levels that pool by {config.denoiser.stride}; "
                "give a larger preprocessing.shape, or fewer denoiser.multipliers"
            )
            raise ConfigError(msg)
        width = config.semantic_encoder.semantic_width
        self.compression = CompressionAutoencoder(config.compression, config.preprocessing.shape)
        self.denoiser = Denoiser(config.denoiser, channels)
        self.gradient_estimator = GradientEstimator(
            config.denoiser, channels, width, latent_shape if config.code_map else None
        )
        self.semantic_encoder: SemanticEncoder = build_semantic_encoder(
            config.semantic_encoder, config.preprocessing.shape, latent_shape
        )
        self.schedule = NoiseSchedule(config.schedule)
        check_forms(self.schedule, config.denoiser.prediction, config.shift)

    @classmethod
    def for_semantic_codes(cls, config: AutoencoderConfig) -> "Networks":
        """The semantic encoder and, if it reads latents, the compression; the place of the others is empty."""
        shape = config.preprocessing.shape
        encoder = build_semantic_encoder(config.semantic_encoder, shape, config.compression.latent_shape(shape))
        latent = encoder.reads_latent or encoder.reads_mirrored_latent
        networks = cls.__new__(cls)
        nn.Module.__init__(networks)
        networks.add_module("compression", CompressionAutoencoder(config.compression, shape) if latent else NotLoaded())
        networks.add_module("denoiser", NotLoaded())
        networks.add_module("gradient_estimator", NotLoaded())
        networks.add_module("semantic_encoder", encoder)
        networks.add_module("schedule", NoiseSchedule(config.schedule))
        return networks

    @property
    def whole(self) -> bool:
        """False if networks were left out."""
        return not any(isinstance(each, NotLoaded) for each in self.children())

    def leave_out_empty(self) -> None:
        """Let what is known of patches without brain be 0, where the compression is by components of patches."""
        components = self.compression.network
        if isinstance(components, PatchComponents):
            self.gradient_estimator.leave_out(components.leave_out_empty())

    def with_random_encoder(self, config: AutoencoderConfig, seed: int) -> "Networks":
        """The same networks beside a semantic encoder with random weights, frozen, on the same device."""
        twin = Networks.__new__(Networks)
        nn.Module.__init__(twin)
        for name, child in self.named_children():
            twin.add_module(name, child)
        shape = config.preprocessing.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = build_semantic_encoder(config.semantic_encoder, shape, config.compression.latent_shape(shape))
        twin.semantic_encoder = fresh.to(next(self.parameters()).device).eval().requires_grad_(False)
        return twin


def semantic_predict(
    networks: Networks, semantic: Tensor | None, config: AutoencoderConfig, sampling: SamplingConfig | None = None
) -> Predict:
    """Estimate of z_0 and eps under a semantic code. The denoiser's encoder half runs once for both terms.

    Args:
        networks: the four networks.
        semantic: y, (B, S); None gives the denoiser alone.
        config: meaning of the networks' outputs.
        sampling: guidance and clamp; those of `config` if not given.
    """
    sampling = sampling or config.sampling
    denoiser, estimator, schedule = networks.denoiser, networks.gradient_estimator, networks.schedule
    embedded = None if semantic is None else estimator.embed(semantic)

    def predict(z: Tensor, t: Tensor) -> Estimate:
        features = denoiser.features(z, t)
        estimate = interpret(denoiser.predict(features).float(), z, t, schedule, config.denoiser.prediction)
        if embedded is not None:
            gradient = estimator.estimate(features, embedded).float()
            if sampling.guidance != 1.0:
                without = torch.zeros_like(gradient)
                if config.semantic_dropout:
                    without = estimator.estimate(features, torch.zeros_like(embedded)).float()
                gradient = without + sampling.guidance * (gradient - without)
            change = shift_scale(t, z.ndim, schedule, config.shift) * gradient
            estimate = estimate.shifted(change, t, schedule)
        return estimate if sampling.clamp is None else estimate.clamped(sampling.clamp, z, t, schedule)

    return predict


def denoiser_velocity(denoiser: Denoiser, z_t: Tensor, t: Tensor, schedule: NoiseSchedule) -> tuple[Features, Tensor]:
    """The denoiser's encoder features, and the velocity that it predicts without a code, (B, C, d, h, w), float32.

    Args:
        denoiser: the denoiser.
        z_t: noisy latent, (B, C, d, h, w).
        t: timesteps, (B,).
        schedule: the noise schedule.
    """
    features = denoiser.features(z_t, t)
    output = denoiser.predict(features).float()
    return features, velocity_of(interpret(output, z_t, t, schedule, denoiser.config.prediction), t, schedule)


def semantic_velocities(
    networks: Networks, z_t: Tensor, t: Tensor, semantics: Sequence[Tensor | None], config: AutoencoderConfig
) -> list[Tensor]:
    """Velocities predicted from a noisy latent under several codes, without guidance; the denoiser runs once for all of them.

    Args:
        networks: the four networks.
        z_t: noisy latent, (B, C, d, h, w).
        t: timesteps, (B,).
        semantics: codes y, (B, S) each; None is the denoiser alone.
        config: meaning of the networks' outputs.
    """
    features, alone = denoiser_velocity(networks.denoiser, z_t, t, networks.schedule)
    scale = shift_scale(t, z_t.ndim, networks.schedule, config.shift)
    return [
        alone if semantic is None else alone + scale * networks.gradient_estimator(features, semantic).float()
        for semantic in semantics
    ]
