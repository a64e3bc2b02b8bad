"""The door: scans to codes and back. Latent scaling, axis order and intensities are settled here, once."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.base.hardware import Device, Precision
from ldae.base.notebook import Shown
from ldae.base.ranges import check_choice
from ldae.codes import Codes, Origin
from ldae.contract import PreparedScan
from ldae.data.inputs import ScanLike, prepare_scan
from ldae.data.latents import LatentCache, latent_key
from ldae.data.manifest import Record
from ldae.diffusion import SamplingConfig
from ldae.errors import CheckpointError, TaskError
from ldae.head.intake import Preprocess
from ldae.inference import Inference
from ldae.io.card import model_card
from ldae.io.checkpoints import (
    hash_tensors,
    load_domain,
    load_folder,
    pack,
    save_folder,
    unpack,
)
from ldae.io.model_names import find_model, upload
from ldae.io.plain import from_plain, read_setting, to_plain
from ldae.io.version import __version__
from ldae.metrics.domain import TrainingDomain
from ldae.networks import AutoencoderConfig, Networks
from ldae.volume import Volume

__all__ = ["AutoencoderConfig", "LatentDiffusionAutoencoder", "Networks", "SamplingConfig"]

BATCH = 16
"""Scans that `encode` passes through the networks together."""


class LatentDiffusionAutoencoder(Inference, Shown):
    """A trained model: scans to codes, codes to codes of other settings, and back.

    Its device and precision are chosen once, when it is loaded.

    Args:
        config: what the networks were built from.
        networks: trained.
        domain: of the training scans' codes, where it was measured.
        device: where to run.
        precision: of matrix work; codes and schedules stay float32.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        networks: Networks,
        *,
        domain: TrainingDomain | None = None,
        device: Device = "auto",
        precision: Precision = "auto",
    ) -> None:
        super().__init__(config, networks, device=device, precision=precision)
        self.domain = domain
        self._weights_hash: str | None = None
        self._recorded_hash: str | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        semantic_only: bool = False,
    ) -> "LatentDiffusionAutoencoder":
        """Load a model, strictly; only safetensors are read.

        Args:
            folder: of the model; or the name of one in this package, such as `ldae-t1-3mm`; or `owner/name@revision` on the
                Hugging Face hub.
            device: where it runs.
            precision: of matrix work.
            semantic_only: load what semantic codes need and nothing else; it cannot find noise codes, decode or be saved. A
                folder that does not record the hash of all its weights is loaded whole.

        Raises:
            CheckpointError: if there is no such model, it is incomplete, or its tensors are not those of its config.
        """
        place = find_model(folder)
        stored, plain = load_folder(place)
        config = from_plain(AutoencoderConfig, plain["autoencoder"], where=f"{folder}/config.json")
        recorded = plain.get("fingerprint")
        semantic_only = semantic_only and isinstance(recorded, str)
        networks = Networks.for_semantic_codes(config) if semantic_only else Networks(config)
        expected = networks.state_dict()
        if semantic_only:
            needed = {name.partition(".")[0] for name in expected}
            stored = {name: each for name, each in stored.items() if name.partition(".")[0] in needed}
        tensors = unpack(stored, expected, where=str(folder))
        width = config.semantic_encoder.semantic_width
        domain = TrainingDomain.take_from(load_domain(place), width, where=str(folder))
        networks.load_state_dict(tensors, strict=True)
        model = cls(config, networks, domain=domain, device=device, precision=precision)
        model._recorded_hash = recorded
        return model

    def save_pretrained(self, folder: str | Path, *, facts: dict[str, str] | None = None, small: bool = False) -> Path:
        """Write the model folder: safetensors, config with the preprocessing contract, and a model card.

        Args:
            folder: where; a former one is replaced whole.
            facts: of the training (cohort, metrics), by name, for the card.
            small: large tensors in half precision, the largest in bytes, without components of patches that show no brain. Codes
                of the small model are a little other ones, so it counts as another model.
        """
        if not self.networks.whole:
            msg = "this model was loaded for semantic codes alone and would be saved without its other networks; load it whole"
            raise TaskError(msg)
        tensors: Mapping[str, Tensor] = self.networks.state_dict()
        fingerprint = self.fingerprint()
        if small:
            networks = deepcopy(self.networks)
            networks.leave_out_empty()
            tensors = pack(networks.state_dict())
            fingerprint = hash_tensors(unpack(tensors, networks.state_dict(), where=str(folder)))
        plain = to_plain(self.config)
        card = model_card(plain, self.count_parameters(), facts or {})
        domain = None if self.domain is None else self.domain.tensors()
        described = {"fingerprint": fingerprint, "autoencoder": plain, "facts": facts or {}}
        return save_folder(Path(folder), tensors, described, card, domain)

    def push_to_hub(self, repository: str, *, private: bool = True, facts: dict[str, str] | None = None) -> str:
        """Put the model on the Hugging Face hub (extra `hub`).

        Args:
            repository: `owner/name`; it is made if need be.
            private: of a new repository.
            facts: see :meth:`save_pretrained`.

        Returns:
            `owner/name@revision`, which :meth:`from_pretrained` loads.

        Raises:
            CheckpointError: if the extra, the network or the permission is missing.
        """
        with TemporaryDirectory(prefix="ldae-hub-") as folder:
            return upload(self.save_pretrained(Path(folder) / "model", facts=facts), repository, private=private)

    @property
    def facts(self) -> dict[str, str]:
        """What it shows of itself."""
        contract = self.config.preprocessing
        latent = self.config.compression.latent_shape(contract.shape)
        return {
            "weights": self.fingerprint()[:12],
            "scan": f"{contract.grid.size_words} at {contract.voxel_size_mm:g} mm",
            "semantic code": f"{self.config.semantic_encoder.semantic_width} numbers",
            "noise code": " x ".join(map(str, latent)),
            "device": str(self.device),
        }

    def count_parameters(self) -> dict[str, int]:
        """Parameters of each network."""
        return {name: sum(p.numel() for p in child.parameters()) for name, child in self.networks.named_children()}

    def fingerprint(self) -> str:
        """Hash of all weights, the key of caches and results. Weights are frozen, so it is computed once.

        Raises:
            CheckpointError: if it is not the one that the model's folder records.
        """
        if self._weights_hash is None and not self.networks.whole and self._recorded_hash is not None:
            self._weights_hash = self._recorded_hash
        if self._weights_hash is None:
            self._weights_hash = hash_tensors(self.networks.state_dict())
            if self._recorded_hash not in (None, self._weights_hash):
                msg = "the hash of the model's weights is not the fingerprint in its config.json; copy the model folder again"
                raise CheckpointError(msg)
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
        twin.domain = None
        twin._weights_hash = twin._recorded_hash = None
        return twin

    def prepare(self, volume: Volume) -> PreparedScan:
        """The scan as the model sees it, checked against the preprocessing contract."""
        return self.config.preprocessing.prepare(volume)

    def prepare_record(self, record: Record) -> PreparedScan:
        """The scan of a manifest's row as the model sees it.

        Raises:
            VolumeError: naming the file, if it cannot be read or breaks the contract.
        """
        return prepare_scan(record, self.config.preprocessing, preprocess=False)

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

    @overload
    def encode(
        self, scan: ScanLike, *, preprocess: Preprocess = "auto", noise: bool = True, round_trip: bool = False
    ) -> Codes: ...

    @overload
    def encode(
        self, scan: list[ScanLike], *, preprocess: Preprocess = "auto", noise: bool = True, round_trip: bool = False
    ) -> list[Codes]: ...

    def encode(
        self,
        scan: ScanLike | list[ScanLike],
        *,
        preprocess: Preprocess = "auto",
        noise: bool = True,
        round_trip: bool = False,
    ) -> Codes | list[Codes]:
        """Both codes of a scan, or of each scan in a list.

        Args:
            scan: file, nibabel image, MONAI MetaTensor, pair (array, affine), Volume or Record.
            preprocess: `auto` finds out if the scan is a raw head, or a brain outside template space, and preprocesses it;
                True always does, False never.
            noise: whether to invert the diffusion too; without it only y is computed, many times as fast.
            round_trip: also sample back and measure what inversion loses, which takes about as long again.

        Raises:
            VolumeError: if it is no T1-weighted scan of a head or brain, or cannot be registered.
        """
        scans = scan if isinstance(scan, list) else [scan]
        codes: list[Codes] = []
        for start in range(0, len(scans), BATCH):
            contract = self.config.preprocessing
            batch = [prepare_scan(each, contract, preprocess=preprocess) for each in scans[start : start + BATCH]]
            codes += self.encode_prepared(batch, noise=noise, round_trip=round_trip)
        return codes if isinstance(scan, list) else codes[0]

    def encode_prepared(
        self,
        scans: Sequence[PreparedScan],
        *,
        noise: bool = True,
        round_trip: bool = False,
    ) -> list[Codes]:
        """Codes of scans that are already on the model's grid.

        Args:
            scans: prepared by this model's contract.
            noise: whether to invert the diffusion too; without it only y is computed.
            round_trip: also sample back and measure what inversion loses.
        """
        images = stack_images(scans)
        found = self.semantic(images)
        distances = [None] * len(scans) if self.domain is None else self.domain.distance(found.numpy()).tolist()
        codes = [
            Codes(y, None, scan.grid, scan.window, to_template=scan.to_template, domain_distance=distance)
            for y, scan, distance in zip(found, scans, distances, strict=True)
        ]
        return self.with_noise(codes, self.compress(images), round_trip=round_trip) if noise else codes

    def with_noise(self, codes: Sequence[Codes], z_0: Tensor, *, round_trip: bool = False) -> list[Codes]:
        """The codes with noise codes and solver of standardised latents, (B, C, d, h, w); if measured, the round-trip error."""
        found = self.invert(z_0, torch.stack([each.semantic for each in codes]), round_trip=round_trip)
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
        """A model image, (D, H, W), as a volume in the space that is named.

        Raises:
            ConfigError: if it is neither `model` nor `scan`.
        """
        check_choice("space", space, ("model", "scan"))
        if space == "model":
            return self.config.preprocessing.restore(image)
        affine = self.config.preprocessing.grid.affine
        if codes.to_template is not None:
            affine = np.linalg.inv(codes.to_template) @ affine
        brain = image > 0
        if not brain.any():
            return Volume(np.zeros(codes.grid.shape, np.float32), codes.grid.affine)
        inside = Volume(brain.astype(np.float32), affine).resample_to(codes.grid).data >= 0.5
        shown = Volume(image, affine).continued(brain).resample_to(codes.grid, order=3).data
        low, high = codes.window
        return Volume(np.where(inside, np.clip(shown, 0, image.max()) * (high - low) + low, 0.0), codes.grid.affine)

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
            TaskError: if a noise code is missing, or codes are another model's.
        """
        codes = list(codes)  # they may lie in a file
        noise = [each.noise for each in codes if each.noise is not None]
        if len(noise) < len(codes):
            msg = "these codes hold no noise code, so only y is known; encode again with noise codes, or sample instead"
            raise TaskError(msg)
        latent = self.config.compression.latent_shape(self.config.preprocessing.shape)
        expected = (self.config.semantic_encoder.semantic_width,), latent
        for each, z_t in zip(codes, noise, strict=True):
            found = tuple(each.semantic.shape), tuple(z_t.shape)
            if found != expected:
                msg = f"codes of another model: y and z_T have shapes {found}, this model's {expected}; encode again with it"
                raise TaskError(msg)
        records = [each.record for each in codes if each.record is not None]
        record = torch.stack(records, dim=1) if len(records) == len(codes) else None
        return self.sample_latents(torch.stack(noise), torch.stack([each.semantic for each in codes]), record=record)


def stack_images(scans: Sequence[PreparedScan]) -> Tensor:
    """Prepared scans as one batch, (B, 1, D, H, W)."""
    return torch.from_numpy(np.stack([scan.data for scan in scans]))[:, None]
