"""The door: scans to codes and back. Latent scaling, axis order, intensities and precision are settled here, once."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.codes import Codes, NoiseCodes, Origin
from ldae.contract import LEFT_RIGHT, PreparedScan, clear_background
from ldae.data.latents import LatentCache, latent_key
from ldae.data.manifest import Record
from ldae.diffusion import Estimate, Predict, SamplingConfig, invert_latents, sample_latents, velocity_of
from ldae.errors import ConfigError, TaskError, VolumeError
from ldae.hardware import Device, Precision, autocast, channels_last, choose_device, choose_precision
from ldae.io.card import model_card
from ldae.io.checkpoints import check_tensors, hash_tensors, load_folder, save_folder
from ldae.io.plain import from_plain, read_setting, to_plain
from ldae.io.version import __version__
from ldae.models.compression import Posterior
from ldae.models.semantic_encoder import SliceEncoder
from ldae.models.streaming import WHOLE_VOXELS, decode_latents, encode_images
from ldae.networks import AutoencoderConfig, Networks, semantic_predict, semantic_velocities
from ldae.volume import Volume, read_volume

__all__ = ["AutoencoderConfig", "LatentDiffusionAutoencoder", "Networks", "SamplingConfig"]


class LatentDiffusionAutoencoder:
    """A trained model. Its device and precision are chosen once, when it is loaded.

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
        self._weights_hash: str | None = None

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, device: Device = "auto", precision: Precision = "auto"
    ) -> "LatentDiffusionAutoencoder":
        """Load a model folder, strictly; only safetensors are read.

        Raises:
            CheckpointError: if the folder is incomplete or its tensors are not those of its config.
        """
        tensors, plain = load_folder(Path(folder))
        config = from_plain(AutoencoderConfig, plain["autoencoder"], where=f"{folder}/config.json")
        with torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in Networks(config).state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        check_tensors(found, expected, where=str(folder), remedy="the folder is damaged or edited: copy it again")
        networks = Networks(config)
        networks.load_state_dict(tensors, strict=True)
        return cls(config, networks, device=device, precision=precision)

    def save_pretrained(self, folder: str | Path, *, facts: dict[str, str] | None = None) -> Path:
        """Write the model folder: safetensors, config with the preprocessing contract, and a model card.

        Args:
            folder: where; a former one is replaced whole.
            facts: of the training (cohort, metrics), by name, for the card.
        """
        plain = to_plain(self.config)
        card = model_card(plain, self.count_parameters(), facts or {})
        return save_folder(Path(folder), self.networks.state_dict(), {"autoencoder": plain, "facts": facts or {}}, card)

    def count_parameters(self) -> dict[str, int]:
        """Parameters of each network."""
        return {name: sum(p.numel() for p in child.parameters()) for name, child in self.networks.named_children()}

    def fingerprint(self) -> str:
        """Hash of all weights, the key of caches and results. Weights are frozen, so it is computed once."""
        if self._weights_hash is None:
            self._weights_hash = hash_tensors(self.networks.state_dict())
        return self._weights_hash

    @property
    def origin(self) -> Origin:
        """Identity of this model, kept in tables of codes and in probes."""
        return Origin(self.fingerprint(), to_plain(self.config.preprocessing), __version__)

    def with_sampling(self, settings: Iterable[str]) -> "LatentDiffusionAutoencoder":
        """The same networks with another way to find and decode noise codes.

        Args:
            settings: changes of :class:`SamplingConfig`, as `name=value`.

        Raises:
            ConfigError: for a name or value that is none.
        """
        plain = to_plain(self.config.sampling) | dict(read_setting(each) for each in settings)
        twin = copy(self)
        twin.config = replace(self.config, sampling=from_plain(SamplingConfig, plain, where="sampling"))
        return twin

    def with_random_encoder(self, seed: int = 0) -> "LatentDiffusionAutoencoder":
        """The same model with random weights in its semantic encoder: the baseline that any code must beat."""
        twin = copy(self)
        twin.networks = self.networks.with_random_encoder(self.config, seed)
        twin._weights_hash = None
        return twin

    def prepare(self, volume: Volume) -> PreparedScan:
        """The scan as the model sees it, checked against the preprocessing contract."""
        return self.config.preprocessing.prepare(volume)

    def prepare_record(self, record: Record) -> PreparedScan:
        """The scan of a manifest's row as the model sees it.

        Raises:
            VolumeError: naming the file, if it cannot be read or breaks the contract.
        """
        volume = read_volume(record.image)
        try:
            return self.prepare(volume)
        except VolumeError as error:
            msg = f"{record.image}: {error}"
            raise VolumeError(msg) from error

    def latent_cache(self, folder: Path | None = None) -> LatentCache:
        """Latents of a manifest's rows, each compressed once.

        Args:
            folder: where they are kept, `cache` of a run folder; None keeps none.
        """
        return LatentCache(
            read=lambda records: stack_images([self.prepare_record(record) for record in records]),
            compress=self.posterior,
            folder=folder,
            key=latent_key(self.networks.compression, self.config.preprocessing, self.dtype),
        )

    def encode(self, volume: Volume) -> Codes:
        """Both codes of one scan (skull-stripped, in MNI space)."""
        return self.encode_prepared([self.prepare(volume)])[0]

    def encode_prepared(
        self,
        scans: Sequence[PreparedScan],
        latents: Tensor | None = None,
        mirrored_latents: Tensor | None = None,
        *,
        noise: bool = True,
    ) -> list[Codes]:
        """Codes of scans that are already on the model's grid.

        Args:
            scans: prepared by this model's contract.
            latents: standardised posterior means, (B, C, d, h, w), where they are known already.
            mirrored_latents: those of the scans mirrored left to right.
            noise: whether to invert the diffusion too; without it only y is computed.
        """
        images = stack_images(scans)
        if latents is None and noise:
            latents = self.compress(images)
        found = self.semantic(images, latents, mirrored_latents)
        codes = [Codes(y, None, scan.grid, scan.window) for y, scan in zip(found, scans, strict=True)]
        return self.with_noise(codes, latents) if noise and latents is not None else codes

    def with_noise(self, codes: Sequence[Codes], z_0: Tensor, *, measure: bool = True) -> list[Codes]:
        """The codes with noise codes and solver of standardised latents, (B, C, d, h, w); if measured, the round-trip error."""
        found = self.invert(z_0, torch.stack([each.semantic for each in codes]), measure=measure)
        return [
            replace(
                each,
                noise=found.noise[row],
                record=None if found.record is None else found.record[:, row],
                solver=str(self.config.sampling),
                round_trip=None if found.round_trip is None else float(found.round_trip[row]),
            )
            for row, each in enumerate(codes)
        ]

    @torch.inference_mode()
    def semantic(self, images: Tensor, latents: Tensor | None = None, mirrored_latents: Tensor | None = None) -> Tensor:
        """y of images: (B, S) on the CPU. Latents that the encoder reads and that are not given are computed.

        Args:
            images: (B, 1, D, H, W) in [0, 1].
            latents: their standardised latents, (B, C, d, h, w).
            mirrored_latents: those of the images mirrored left to right.
        """
        encoder = self.networks.semantic_encoder
        if latents is None and encoder.reads_latent:
            latents = self.compress(images)
        if mirrored_latents is None and encoder.reads_mirrored_latent:
            mirrored_latents = self.compress(images.flip(LEFT_RIGHT))
        with self._autocast():
            y: Tensor = encoder(
                *(None if each is None else each.to(self.device) for each in (images, latents, mirrored_latents))
            )
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
        self, z_0: Tensor, semantic: Tensor, sampling: SamplingConfig | None = None, *, measure: bool = True
    ) -> NoiseCodes:
        """Noise codes of latents under their semantic codes, and how well they come back.

        Args:
            z_0: standardised latents, (B, C, d, h, w).
            semantic: y, (B, S).
            sampling: the solver; the model's own if not given.
            measure: sample back and measure the error of the round trip, which costs as much as decoding.
        """
        sampling = sampling or self.config.sampling
        latents = z_0.to(self.device)
        with self._predicting(semantic, sampling) as predict:
            noise, record = invert_latents(predict, latents, schedule=self.networks.schedule, sampling=sampling)
        noise, record = noise.cpu(), None if record is None else record.cpu()
        if not measure:
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

    def decode(self, codes: Codes, *, space: Literal["model", "scan"] = "model") -> Volume:
        """The scan that the codes stand for.

        Args:
            codes: of this model.
            space: `model` gives the model's grid and [0, 1]; `scan` gives the grid and units of the scan that was encoded.
        """
        return self.restore(self.decode_images([codes])[0], codes, space=space)

    def restore(
        self, image: npt.NDArray[np.float32], codes: Codes, *, space: Literal["model", "scan"] = "model"
    ) -> Volume:
        """A model image, (D, H, W), as a volume in the space that is named."""
        if space == "model":
            return self.config.preprocessing.restore(image)
        brain = image > 0
        low, high = codes.window
        restored = Volume(np.where(brain, image * (high - low) + low, 0.0), self.config.preprocessing.grid.affine)
        return restored.resample_to(codes.grid)

    def difference(self, edited: Codes, codes: Codes) -> Volume:
        """Change of the scan by an edit of its codes, on the model's grid in the scan's units; unchanged codes give exactly 0.

        :meth:`ldae.tasks.native.scan.NativeScan.add` puts it on the raw scan.

        Args:
            edited: the same scan's codes, moved.
            codes: as they were encoded.
        """
        reference = self.decode_images([codes])[0]
        image = reference if edited.same_image(codes) else self.decode_images([edited])[0]
        return self.config.preprocessing.difference(image, reference, window=codes.window)

    def decode_images(self, codes: Sequence[Codes]) -> npt.NDArray[np.float32]:
        """Model images, (N, D, H, W), of codes with a noise code each."""
        return self.decompress(self.latents_of(codes))

    def latents_of(self, codes: Sequence[Codes]) -> Tensor:
        """Standardised latents, (N, C, d, h, w), that codes sample to.

        Raises:
            TaskError: if a noise code is missing.
        """
        codes = list(codes)  # they may lie in a file
        if any(each.noise is None for each in codes):
            msg = "these codes hold no noise code, so only y is known; encode again with noise codes, or sample instead"
            raise TaskError(msg)
        noise = torch.stack([each.noise for each in codes if each.noise is not None])
        records = [each.record for each in codes if each.record is not None]
        record = torch.stack(records, dim=1) if len(records) == len(codes) else None
        return self.sample_latents(noise, torch.stack([each.semantic for each in codes]), record=record)

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


def stack_images(scans: Sequence[PreparedScan]) -> Tensor:
    """Prepared scans as one batch, (B, 1, D, H, W)."""
    return torch.from_numpy(np.stack([scan.data for scan in scans]))[:, None]
