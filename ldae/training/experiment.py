"""An experiment: the three stages in a row, on one manifest, in one run folder."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder, Networks
from ldae.base.files import write_json
from ldae.base.hardware import autocast, choose_device, choose_precision
from ldae.base.ranks import barrier, channel_statistics, from_first, gather_dealt, join, rank, together, world
from ldae.data.datasets import LatentDataset, ScanDataset
from ldae.data.latents import LatentCache, latent_key
from ldae.data.manifest import Manifest, Record
from ldae.io.checkpoints import hash_tensors, load_weights
from ldae.io.plain import to_plain
from ldae.metrics.domain import TrainingDomain
from ldae.models.compression import Posterior
from ldae.models.semantic_encoder import VolumeEncoder
from ldae.models.streaming import decode_latents, encode_images
from ldae.models.whitening import Whitening
from ldae.networks import take_weights
from ldae.training.batches import StageDataModule
from ldae.training.fit import FitSettings, StageRecord, finished_weights, fit_stage, keep_measured, start_stage
from ldae.training.recipe import STAGES, ExperimentConfig, build_stage, check_whitening, provenance, records_of
from ldae.training.stage import Stage

__all__ = ["STAGES", "Experiment", "ExperimentConfig"]

# The components of more scans would cost minutes and differ little.
MOST_SCANS_FOR_COMPONENTS = 1500


class Experiment:
    """Trains the stages in order; each picks up where a former run left it.

    Args:
        config: of the experiment.
        manifest: with a frozen split.
        settings: of the run.
        start: model whose weights the networks take as far as they fit; `warm_start.json` lists them.

    Attributes:
        taken: which they are, if there is such a model.

    Raises:
        TrainingError: if a split is empty, or no subject has the several scans that a whitening within subjects needs.
        ConfigError: if the compression or the denoiser is to be kept and there is none, or a part of one.
        CheckpointError: if no weights of that model fit.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        manifest: Manifest,
        settings: FitSettings,
        start: LatentDiffusionAutoencoder | None = None,
    ) -> None:
        self.start = start
        self.device = choose_device(settings.device)
        join(self.device)
        self.settings = settings
        self.manifest = manifest
        self.records = records_of(manifest)
        # Weights are drawn from the seed alone, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.networks = Networks(config.autoencoder)
        self.taken = None
        if start is not None:
            self.taken = take_weights(self.networks, config.autoencoder, start.networks, start.config)
        # Probes and directions of an encoder that is kept stay valid: it is not whitened again.
        self._whitens = not (self.taken and self.taken.keeps("semantic_encoder"))
        if self._whitens:
            check_whitening(config, self.records["train"])
        self.config = config.checked(self.taken)
        self.domain: TrainingDomain | None = None
        self._scans: dict[tuple[str, bool], ScanDataset] = {}
        settings.run.mkdir(parents=True, exist_ok=True)
        if not rank():
            if self.taken is not None:
                write_json(settings.run / "warm_start.json", asdict(self.taken))
            origin = None if start is None else start.fingerprint()
            write_json(settings.run / "run.json", provenance(self.config, manifest, origin))

    def fit(self, until: str = "representation") -> dict[str, StageRecord]:
        """Train the stages up to one of them.

        Args:
            until: last stage to train.

        Returns:
            The record of each stage.
        """
        stages = dict(zip(STAGES, (self.fit_compression, self.fit_denoiser, self.fit_representation), strict=True))
        with together():
            return {name: stages[name]() for name in STAGES[: STAGES.index(until) + 1]}

    def model(self) -> LatentDiffusionAutoencoder:
        """The trained model, ready to encode and decode."""
        return LatentDiffusionAutoencoder(
            self.config.autoencoder,
            self.networks,
            domain=self.domain,
            device=self.settings.device,
            precision=self.settings.precision,
        )

    def fit_compression(self) -> StageRecord:
        """Stage 1, and its latent statistics over the training split."""
        config, compression = self.config.compression, self.networks.compression
        inputs: dict[str, Any] = {"data": to_plain(self.config.data), "stage": to_plain(config)}
        if config.initial_weights is not None:
            load_weights(compression, Path(config.initial_weights))
            inputs["initial_weights"] = self._fingerprint()
        # The denoiser of a fine-tuned model, or one that is given, knows the latents of its own scale.
        measured = not (
            config.frozen and (self.config.denoiser.initial_weights or (self.taken and self.taken.keeps("compression")))
        )
        if config.initial_weights is not None and not measured:
            inputs["scale"] = "given"
        done = self._start("compression", inputs)
        if done is not None:
            compression.load_state_dict(done[0], strict=True)
            return done[1]
        train, validation = self._dataset("train", augmented=True), self._dataset("validation")

        def pictures() -> Tensor:
            originals = validation.images(range(min(3, len(validation))))
            latents = self._compress(originals).mean
            with self._autocast():
                return torch.cat([originals, decode_latents(compression, latents, originals.shape[2:])])

        def finish() -> dict[str, Tensor]:
            channels = config.model.latent_channels
            if measured:  # standardised by nothing, latents are raw
                compression.fit_statistics(torch.zeros(channels), torch.ones(channels))
            mine = range(rank(), len(train), world())
            latents = [self._compress(train.images([index])) for index in mine]
            if measured and config.model.components is None:  # the scale of components is their own
                compression.fit_statistics(*channel_statistics([each.mean for each in latents]))
                latents = [compression.standardise(each) for each in latents]
            # For the later stages.
            cache = self._cache("train")
            for index, found in zip(mine, latents, strict=True):
                cache.keep(self.records["train"][index], found.mean[0], found.std[0])
            cache.flush()
            barrier()
            return compression.state_dict()

        if config.model.components is not None and not config.frozen:
            self._fit_components(train)
        if not config.trains:
            return keep_measured(self.settings.run / "compression", finish())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed + 1)
            stage = build_stage("compression", self.config, self.networks)
        return self._fit("compression", stage, train, validation, finish, pictures)

    def fit_denoiser(self) -> StageRecord:
        """Stage 2, on cached latents."""
        config, denoiser = self.config.denoiser, self.networks.denoiser
        stage_inputs = to_plain(config)
        given = {name: stage_inputs.pop(name, None) for name in ("initial_weights", "frozen")}
        inputs = {
            "latents": self._fingerprint(),
            "mirrored": self.config.mirror_latents,
            "resampled": self.config.resample_posterior,
            "stage": stage_inputs,
            "schedule": to_plain(self.config.schedule),
        }
        if config.initial_weights is not None:
            load_weights(denoiser, Path(config.initial_weights))
            given["initial_weights"] = hash_tensors(denoiser.state_dict())
        if any(given.values()):  # stages that were begun before these could be set do not note them
            inputs["given"] = given
        done = self._start("denoiser", inputs)
        if done is not None:
            denoiser.load_state_dict(done[0], strict=True)
            return done[1]
        if config.frozen:
            return keep_measured(self.settings.run / "denoiser", denoiser.state_dict())
        stage = build_stage("denoiser", self.config, self.networks)
        train, validation = self._latents("train"), self._latents("validation")
        if denoiser.gaussian is not None and not (self.taken and self.taken.covers("denoiser.gaussian.")):
            denoiser.gaussian.fit(train.latents[_evenly(len(train.latents), MOST_SCANS_FOR_COMPONENTS)])
        return self._fit("denoiser", stage, train, validation, denoiser.state_dict)

    def fit_representation(self) -> StageRecord:
        """Stage 3, on cached latents and their scans."""
        config, networks = self.config.representation, self.networks
        inputs = {
            "latents": self._fingerprint(),
            "mirrored": self.config.mirror_latents,
            "resampled": self.config.resample_posterior,
            "denoiser": hash_tensors(networks.denoiser.state_dict()),
            "stage": to_plain(config),
        }
        done = self._start("representation", inputs)
        stage = build_stage("representation", self.config, networks)
        if done is not None:
            width = config.semantic_encoder.semantic_width
            self.domain = TrainingDomain.take_from(done[0], width, where="representation")
            stage.averaged().load_state_dict(done[0], strict=True)
            return done[1]
        if not (self.taken and self.taken.covers("semantic_encoder.linear.")):
            self._begin_linear_path()
        train, validation = (self._latents(name, images=True) for name in ("train", "validation"))
        if config.code_map and not (self.taken and self.taken.covers("gradient_estimator.semantic_embedding.")):
            networks.gradient_estimator.begin_map(self._codes(train), train.latents[: len(train)])

        def finish() -> dict[str, Tensor]:
            codes = self._codes(train)
            if networks.gradient_estimator.gaussian is not None:  # steps move even what a regression knows exactly
                networks.gradient_estimator.begin_map(codes, train.latents[: len(train)])
            codes = self._whiten(codes) if self._whitens else codes
            self.domain = TrainingDomain.of(codes, self._codes(validation))
            return {**stage.averaged().state_dict(), **self.domain.tensors()}

        return self._fit("representation", stage, train, validation, finish)

    @cached_property
    def _images(self) -> str:
        """Hash of what the images of training and validation hold."""
        used = (record.content_hash for records in self.records.values() for record in records)
        return hashlib.sha256("".join(used).encode()).hexdigest()

    def _start(self, name: str, inputs: dict[str, Any]) -> tuple[dict[str, Tensor], StageRecord] | None:
        folder = self.settings.run / name
        common = {"manifest": self.manifest.sha256, "images": self._images, "seed": self.config.seed}
        common["preprocessing"] = to_plain(self.config.preprocessing)
        if self.start is not None:
            common["start"] = self.start.fingerprint()
        # For want of memory: a run that has run out of it may go on with others.
        for memory in ("checkpoint_activations", "accumulate", "compile"):
            inputs["stage"]["optimisation"].pop(memory)
        if not rank():
            start_stage(folder, {**common, **inputs}, force=self.settings.force)
        barrier()
        done = finished_weights(folder)
        if done is not None and self.settings.finished is not None:
            self.settings.finished(name, done[1])
        return done

    def _fit(
        self,
        name: str,
        stage: Stage,
        train: ScanDataset | LatentDataset,
        validation: ScanDataset | LatentDataset,
        finish: Any,
        pictures: Any = None,
    ) -> StageRecord:
        data = StageDataModule(
            train,
            validation,
            batch_size=stage.optimisation.batch_size,
            steps=stage.optimisation.steps,
            seed=self.config.seed,
            parts=stage.optimisation.accumulate,
            workers=self.config.data.workers,
        )
        return fit_stage(name, stage, data, self.settings.run / name, self.settings, pictures=pictures, finish=finish)

    def _dataset(self, split: str, *, augmented: bool = False) -> ScanDataset:
        """A split's scans; prepared once, whatever stage asks."""
        if (split, augmented) not in self._scans:
            self._scans[split, augmented] = ScanDataset(
                self.records[split],
                self.config.preprocessing,
                self.config.data,
                cache_folder=self.settings.run / "cache",
                seed=self.config.seed if augmented else None,
                share=self._scans.get((split, not augmented)),
            )
        return self._scans[split, augmented]

    def _fit_components(self, train: ScanDataset) -> None:
        """Components of patches of training scans and, where the later stages read those, of their mirror images."""
        components = self.config.compression.model.components
        assert components is not None
        network = self.networks.compression.network
        if not rank():
            chosen = _evenly(len(train), components.scans)
            sides = (False, True) if self.config.mirror_latents else (False,)
            scans = (train.images([i], mirrored=side) for side in sides for i in chosen)
            network.fit(scans, torch.Generator().manual_seed(self.config.seed))
        from_first(network)

    def _begin_linear_path(self) -> None:
        """Principal components of training scans, for an encoder that begins with them."""
        encoder = self.networks.semantic_encoder
        if not isinstance(encoder, VolumeEncoder) or encoder.linear is None:
            return
        path, symmetric = encoder.linear, encoder.symmetric
        scans = self._dataset("train")
        chosen = _evenly(len(scans), MOST_SCANS_FOR_COMPONENTS)
        both = (False, True) if self.config.mirror_latents or symmetric else (False,)

        def sides(scan: int) -> Tensor:
            seen = torch.cat([scans.images([scan], mirrored=mirrored) for mirrored in both])
            values = path.averaged(encoder.view(seen))
            return values.mean(dim=0, keepdim=True) if symmetric else values

        if not rank():
            path.begin_from(torch.cat([sides(i) for i in chosen]), encoder.linear_spread)
        from_first(path)

    @torch.no_grad()
    def _codes(self, scans: LatentDataset) -> Tensor:
        """Semantic codes of scans, (N, S)."""
        encoder = self.networks.semantic_encoder.eval().to(self.device)
        codes: list[Tensor] = []
        size = self.config.representation.optimisation.batch_size
        for start in range(0, len(scans), size)[rank() :: world()]:
            images = torch.stack([scans[row]["image"] for row in range(start, min(start + size, len(scans)))])
            with self._autocast():
                codes.append(encoder(images.to(self.device)).float().cpu())
        return torch.cat(gather_dealt(codes))

    def _whiten(self, codes: Tensor) -> Tensor:
        """Whiten the codes of training scans, if the encoder is made for it; what they decode to stays the same."""
        whitening = self.networks.semantic_encoder.whitening
        if isinstance(whitening, Whitening):
            config = self.config.representation.semantic_encoder
            # A mirrored scan shows another brain.
            subjects = [f"{each.participant_id} {side}" for side in (0, 1) for each in self.records["train"]]
            whitening.fit(codes, config.whitening, subjects[: len(codes)] if config.whitening_of == "within" else None)
            whitening.fold_into(self.networks.gradient_estimator.semantic_embedding)
            codes = whitening.cpu()(codes)
        return codes

    def _latents(self, split: str, *, images: bool = False) -> LatentDataset:
        scans, records, train = self._dataset(split), self.records[split], split == "train"
        sides = (False, True) if self.config.mirror_latents and train else (False,)
        wanted = [(record, mirrored) for mirrored in sides for record in records]
        cache = self._cache(split)
        if world() > 1:  # each its share first, then all read all
            for record, mirrored in wanted[rank() :: world()]:
                cache.posterior([record], mirrored=mirrored)
            cache.flush()
            barrier()
        posteriors = []
        for record, mirrored in wanted:
            posteriors.append(cache.posterior([record], mirrored=mirrored))
            if self.settings.preparing is not None:
                self.settings.preparing(f"{split} latents", len(posteriors), len(wanted))
        cache.flush()
        mean = torch.cat([each.mean for each in posteriors])
        std = torch.cat([each.std for each in posteriors]) if self.config.resample_posterior and train else None
        return LatentDataset(mean, scans.keys, scans if images else None, std=std)

    def _cache(self, split: str) -> LatentCache:
        scans = self._dataset(split)
        rows = {record.key: row for row, record in enumerate(self.records[split])}

        def read(batch: Sequence[Record]) -> Tensor:
            return scans.images([rows[record.key] for record in batch])

        precision = choose_precision(self.settings.precision, self.device)
        key = latent_key(self.networks.compression, self.config.preprocessing, precision)
        return LatentCache(read, self._compress, self.settings.run / "cache", key)

    def _fingerprint(self) -> str:
        return hash_tensors(self.networks.compression.state_dict())

    @torch.no_grad()
    def _compress(self, images: Tensor) -> Posterior:
        with self._autocast():
            return encode_images(self.networks.compression.to(self.device), images)

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, choose_precision(self.settings.precision, self.device))


def _evenly(count: int, most: int) -> list[int]:
    """Indices of at most so many of `count` scans, evenly spaced."""
    chosen: list[int] = np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
    return chosen
