"""The trained networks at work: tensors in, tensors out. Precision, autocast and the size of batches' pieces are settled here."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.base.hardware import Device, Precision, autocast, channels_last, choose_device, choose_precision
from ldae.codes import NoiseCodes
from ldae.contract import clear_background
from ldae.diffusion import Estimate, Predict, SamplingConfig, invert_latents, sample_latents, velocity_of
from ldae.errors import ConfigError
from ldae.models.compression import Posterior
from ldae.models.semantic_encoder import SliceEncoder
from ldae.models.streaming import WHOLE_VOXELS, decode_latents, encode_images
from ldae.networks import AutoencoderConfig, Networks, semantic_predict, semantic_velocities

__all__ = ["Inference"]


class Inference:
    """Networks on a device, which is chosen once, with their precision.

    Args:
        config: what the networks were built from.
        networks: trained.
        device: where to run.
        precision: of matrix work; codes and schedules stay float32.

    Attributes:
        whole_voxels: voxels of the largest scan that is not streamed through the compression network.
    """

    def __init__(
        self, config: AutoencoderConfig, networks: Networks, *, device: Device = "auto", precision: Precision = "auto"
    ) -> None:
        self.config = config
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.networks = networks.to(self.device).eval().requires_grad_(False)
        channels_last(self.networks.compression)
        self.whole_voxels = WHOLE_VOXELS

    def to(self, device: Device) -> Self:
        """Move the networks to a device, where all that follows runs in the same precision; returns the model.

        Raises:
            ConfigError: if the device is not there.
        """
        self.device = choose_device(device)
        self.networks.to(self.device)
        return self

    @torch.inference_mode()
    def semantic(self, images: Tensor) -> Tensor:
        """Semantic codes y, (B, S) on the CPU, of images, (B, 1, D, H, W) in [0, 1]."""
        with self._autocast():
            y: Tensor = self.networks.semantic_encoder(images.to(self.device))
            return y.float().cpu()

    @property
    def slice_encoder(self) -> SliceEncoder:
        """The semantic encoder, if it reads slices.

        Raises:
            ConfigError: if it reads whole volumes.
        """
        encoder = self.networks.semantic_encoder
        if not isinstance(encoder, SliceEncoder):
            msg = "this model's semantic encoder reads whole volumes and has no slices; train one with semantic_encoder.slices"
            raise ConfigError(msg)
        return encoder

    @torch.inference_mode()
    def slice_vectors(self, images: Tensor) -> Tensor:
        """Features of each axial slice by a 2.5D semantic encoder's 2D network: (B, 1, D, H, W) to (B, W, S) on the CPU."""
        with self._autocast():
            return self.slice_encoder.slice_vectors(images.to(self.device).permute(0, 4, 1, 2, 3)).float().cpu()

    @torch.inference_mode()
    def compress(self, images: Tensor) -> Tensor:
        """Standardised latent posterior means of images, (B, C, d, h, w) on the CPU."""
        return self.posterior(images).mean

    @torch.inference_mode()
    def posterior(self, images: Tensor) -> Posterior:
        """Standardised latent posteriors of images, each (B, C, d, h, w) on the CPU."""
        with self._autocast():
            return encode_images(self.networks.compression, images, self.whole_voxels)

    @torch.inference_mode()
    def invert(
        self, z_0: Tensor, semantic: Tensor, sampling: SamplingConfig | None = None, *, round_trip: bool = False
    ) -> NoiseCodes:
        """Noise codes of latents under their semantic codes.

        Args:
            z_0: standardised latents, (B, C, d, h, w).
            semantic: y, (B, S).
            sampling: the solver; the model's own if not given.
            round_trip: also sample back and measure the error of the round trip, which takes about as long again.
        """
        sampling = sampling or self.config.sampling
        latents = z_0.to(self.device)
        with self._predicting(semantic, sampling) as predict:
            noise, record = invert_latents(predict, latents, schedule=self.networks.schedule, sampling=sampling)
        noise, record = noise.cpu(), None if record is None else record.cpu()
        if not round_trip:
            return NoiseCodes(noise, record, None)
        missed = self.sample_latents(noise, semantic, sampling, record=record) - z_0.cpu()
        return NoiseCodes(noise, record, missed.square().flatten(1).mean(dim=1).sqrt())

    @torch.inference_mode()
    def velocity_errors(self, z_0: Tensor, noise: Tensor, t: int, semantics: Sequence[Tensor | None]) -> Tensor:
        """Mean squared error per latent element of the velocities predicted under each of K codes, (K, B) on the CPU.

        Args:
            z_0: standardised latents, (B, C, d, h, w).
            noise: that is added, standard normal, the same shape.
            t: the timestep it is added at.
            semantics: codes y, (B, S) each; None is the denoiser alone.
        """
        schedule, clean, noise = self.networks.schedule, z_0.to(self.device), noise.to(self.device)
        times = torch.full((len(clean),), t, dtype=torch.long, device=self.device)
        codes = [None if each is None else each.to(self.device) for each in semantics]
        with self._autocast():
            z_t = schedule.add_noise(clean, noise, times)
            predicted = semantic_velocities(self.networks, z_t, times, codes, self.config)
        velocity = velocity_of(Estimate(clean, noise), times, schedule)
        return torch.stack([(each - velocity).square().flatten(1).mean(dim=1) for each in predicted]).cpu()

    def generate(self, noise: Tensor, semantic: Tensor | None) -> npt.NDArray[np.float32]:
        """Model images, (N, D, H, W), of noise codes (N, C, d, h, w) under y (N, S), or unconditionally."""
        return self.decompress(self.sample_latents(noise, semantic))

    @torch.inference_mode()
    def sample_latents(
        self,
        noise: Tensor,
        semantic: Tensor | None,
        sampling: SamplingConfig | None = None,
        *,
        record: Tensor | None = None,
    ) -> Tensor:
        """Standardised latents that noise codes sample to, (N, C, d, h, w) on the CPU.

        Args:
            noise: noise codes, (N, C, d, h, w).
            semantic: y, (N, S); None samples the denoiser alone.
            sampling: the solver; the model's own if not given.
            record: what an exact solver recorded, (K, N, C, d, h, w); None for drawn noise.
        """
        sampling = sampling or self.config.sampling
        record, schedule = None if record is None else record.to(self.device), self.networks.schedule
        with self._predicting(semantic, sampling) as predict:
            z_0 = sample_latents(predict, noise.to(self.device), schedule=schedule, sampling=sampling, record=record)
        return z_0.cpu()

    @torch.inference_mode()
    def expected_latents(self, noise: Tensor, semantic: Tensor) -> Tensor:
        """Standardised latents that y (N, S) leads one to expect: z_0 estimated in one step from noise, (N, C, d, h, w)."""
        last = torch.full((len(noise),), self.networks.schedule.timesteps - 1, device=self.device)
        with self._predicting(semantic, self.config.sampling) as predict:
            return predict(noise.to(self.device), last).clean.float().cpu()

    @torch.inference_mode()
    def decompress(self, z_0: Tensor) -> npt.NDArray[np.float32]:
        """Model images, (N, D, H, W) in [0, 1] with a background of 0, of standardised latents."""
        with self._autocast():
            images = decode_latents(self.networks.compression, z_0, self.config.preprocessing.shape, self.whole_voxels)
        return clear_background(images[:, 0].clamp(0.0, 1.0).numpy())

    def draw_noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise codes, (count, C, d, h, w)."""
        shape = self.config.compression.latent_shape(self.config.preprocessing.shape)
        return torch.randn((count, *shape), generator=generator)

    @contextmanager
    def _predicting(self, semantic: Tensor | None, sampling: SamplingConfig) -> Iterator[Predict]:
        y = None if semantic is None else semantic.to(self.device)
        with self._autocast():
            yield semantic_predict(self.networks, y, self.config, sampling)

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self.dtype)
