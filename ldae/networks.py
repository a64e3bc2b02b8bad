"""The four networks, and what they believe together of a noisy latent."""

from collections.abc import Sequence
from dataclasses import dataclass

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
from ldae.errors import ConfigError
from ldae.models.compression import CompressionAutoencoder, CompressionConfig
from ldae.models.denoiser import Denoiser, DenoiserConfig, Features, UNetDecoder
from ldae.models.gradient_estimator import GradientEstimator
from ldae.models.semantic_encoder import SemanticEncoder, SemanticEncoderConfig, build_semantic_encoder

__all__ = ["AutoencoderConfig", "Networks", "denoiser_velocity", "semantic_predict", "semantic_velocities"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Everything that the networks' shapes and the meaning of the codes depend on.

    Attributes:
        semantic_encoder: 2.5D or 3D.
        preprocessing: the contract with scans.
        compression: shape of stage 1.
        schedule: of the noise.
        denoiser: shape of stage 2.
        shift: what the gradient estimator's output means.
        semantic_dropout: whether the gradient estimator was also trained without y, which guidance then starts from.
        sampling: how noise codes are found and decoded, unless told otherwise.
    """

    semantic_encoder: SemanticEncoderConfig
    preprocessing: Preprocessing = Preprocessing()
    compression: CompressionConfig = CompressionConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    shift: ShiftForm = "posterior"
    semantic_dropout: bool = False
    sampling: SamplingConfig = SamplingConfig()


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
        self.compression = CompressionAutoencoder(config.compression)
        self.denoiser = Denoiser(config.denoiser, channels)
        self.gradient_estimator = GradientEstimator(config.denoiser, channels, width)
        self.semantic_encoder: SemanticEncoder = build_semantic_encoder(
            config.semantic_encoder, config.preprocessing.shape, latent_shape
        )
        self.schedule = NoiseSchedule(config.schedule)
        check_forms(self.schedule, config.denoiser.prediction, config.shift)

    def compile_passes(self) -> None:
        """Compile what every sampling step runs (`torch.compile`): worth its minute where many scans follow, and on a GPU."""
        self.denoiser.encoder.forward = torch.compile(self.denoiser.encoder.forward)  # type: ignore[method-assign]
        for decoder in (self.denoiser.decoder, self.gradient_estimator.decoder):
            decoder.coarse = torch.compile(decoder.coarse)  # type: ignore[method-assign]
            decoder.fine = torch.compile(decoder.fine)  # type: ignore[method-assign]


def semantic_predict(
    networks: Networks, semantic: Tensor | None, config: AutoencoderConfig, sampling: SamplingConfig | None = None
) -> Predict:
    """What the networks believe of a noisy latent under a semantic code.

    One pass a call: the denoiser's encoder half runs once for both terms. With `sampling.reuse` above 1 the function
    remembers the coarse features of the last full pass, so it serves one walk along a time grid.

    Args:
        networks: the four networks.
        semantic: y, (B, S); None gives the denoiser alone.
        config: what their outputs mean.
        sampling: guidance, clamp and reuse.
    """
    sampling = sampling or config.sampling
    denoiser, estimator, schedule = networks.denoiser, networks.gradient_estimator, networks.schedule
    embedded = None if semantic is None else estimator.embed(semantic)
    kept: dict[str, Tensor] = {}
    seen: list[int] = []

    def is_full_pass(t: Tensor) -> bool:
        """Whether this timestep evaluates the coarse levels too: every `sampling.reuse`-th one that is met."""
        if sampling.reuse == 1:
            return True
        now = int(t[0])
        if now not in seen:
            seen.append(now)
        return seen.index(now) % sampling.reuse == 0

    def decode(name: str, decoder: UNetDecoder, features: Features, code: Tensor | None, *, full: bool) -> Tensor:
        if full:
            kept[name] = decoder.coarse(features, code)
        return decoder.fine(kept[name], features, code).float()

    def predict(z: Tensor, t: Tensor) -> Estimate:
        full = is_full_pass(t)
        features = denoiser.features(z, t, fine_only=not full)
        output = decode("denoiser", denoiser.decoder, features, None, full=full)
        estimate = interpret(output, z, t, schedule, config.denoiser.prediction)
        if embedded is not None:
            gradient = decode("estimator", estimator.decoder, features, embedded, full=full)
            if sampling.guidance != 1.0:
                without = torch.zeros_like(gradient)
                if config.semantic_dropout:
                    nothing = torch.zeros_like(embedded)
                    without = decode("without code", estimator.decoder, features, nothing, full=full)
                gradient = without + sampling.guidance * (gradient - without)
            change = shift_scale(t, z.ndim, schedule, config.shift) * gradient
            estimate = estimate.shifted(change, t, schedule)
        return estimate if sampling.clamp is None else estimate.clamped(sampling.clamp, z, t, schedule)

    return predict


def denoiser_velocity(denoiser: Denoiser, z_t: Tensor, t: Tensor, schedule: NoiseSchedule) -> tuple[Features, Tensor]:
    """The denoiser's encoder features, and the velocity that it believes without a code, (B, C, d, h, w), float32.

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
    """Velocities believed of a noisy latent under several codes, without guidance; the denoiser runs once for all of them.

    Args:
        networks: the four networks.
        z_t: noisy latent, (B, C, d, h, w).
        t: timesteps, (B,).
        semantics: codes y, (B, S) each; None is the denoiser alone.
        config: what the networks' outputs mean.
    """
    features, alone = denoiser_velocity(networks.denoiser, z_t, t, networks.schedule)
    scale = shift_scale(t, z_t.ndim, networks.schedule, config.shift)
    return [
        alone if semantic is None else alone + scale * networks.gradient_estimator(features, semantic).float()
        for semantic in semantics
    ]
