"""What an experiment will cost, told before a scan is read or a weight is trained: on random scans, with random weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from ldae.autoencoder import LatentDiffusionAutoencoder, Networks
from ldae.contract import PreparedScan
from ldae.data.datamodule import DataConfig, Item, StageDataModule
from ldae.data.transforms import augmentation
from ldae.errors import DependencyError
from ldae.hardware import Device, Precision, choose_device, choose_precision
from ldae.models.memory import GIB, PeakMemory, release_memory
from ldae.training.compression import CompressionStage
from ldae.training.denoiser import DenoiserStage
from ldae.training.experiment import STAGES, ExperimentConfig
from ldae.training.perceptual import PerceptualConfig
from ldae.training.plan import Plan, plan_stage
from ldae.training.rehearsal import Limits, timed
from ldae.training.representation import RepresentationStage
from ldae.training.stage import Stage

__all__ = ["Forecast", "InferencePlan", "ScanCounts", "forecast"]

# Steps of the sampler that are run; more are extrapolated.
SAMPLED = 4


@dataclass(frozen=True)
class ScanCounts:
    """Scans in a cohort's splits."""

    train: int
    validation: int


@dataclass(frozen=True)
class InferencePlan:
    """What one scan costs with the trained model.

    Attributes:
        parameters: of all networks.
        compress_seconds: to the latent.
        encode_seconds: to both codes.
        decode_seconds: from both codes to the image.
        encode_gib: expected peak of the process while encoding.
        decode_gib: expected peak while decoding.
        steps: of the sampler.
        measured_steps: of the sampler that were run; time is extrapolated to the rest.
    """

    parameters: int
    compress_seconds: float
    encode_seconds: float
    decode_seconds: float
    encode_gib: float
    decode_gib: float
    steps: int
    measured_steps: int


@dataclass(frozen=True)
class Forecast:
    """What an experiment will cost.

    Attributes:
        stages: a plan for each stage that was asked for.
        preparation_seconds: to encode the cohort's scans for stages 2 and 3, after stage 1; None without a manifest.
        inference: one scan with the trained model.
        notes: what the figures leave out.
    """

    stages: tuple[Plan, ...]
    preparation_seconds: float | None
    inference: InferencePlan
    notes: tuple[str, ...]


class RandomScans(Dataset[Item]):
    """Noise in place of a cohort, with what each stage's batches hold; augmented as real scans are.

    Args:
        count: of scans.
        shapes: of each tensor of a scan, without the batch.
        data: augmentation; None leaves scans as they are.
    """

    def __init__(self, count: int, shapes: dict[str, tuple[int, ...]], data: DataConfig | None = None) -> None:
        self.count = count
        self.shapes = shapes
        self.augment = None if data is None else augmentation(data.augmentation)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        generator = torch.Generator().manual_seed(0)
        item: Item = {name: torch.rand(shape, generator=generator) for name, shape in self.shapes.items()}
        item["key"] = item["subject"] = f"random-{index}"
        if self.augment is not None:
            item = dict(self.augment(item))
            item["image"] = torch.as_tensor(item["image"])
        return item


def forecast(
    config: ExperimentConfig,
    counts: ScanCounts | None = None,
    *,
    stages: Sequence[str] = STAGES,
    device: Device = "auto",
    precision: Precision = "auto",
    limits: Limits | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Forecast:
    """Rehearse every stage and the trained model.

    Args:
        config: of the experiment.
        counts: of the cohort's scans, which set validation, preparation and the memory that scans take.
        stages: to plan.
        device: where it will run.
        precision: of matrix work.
        limits: how far a stage's rehearsal goes; beyond it, figures are extrapolated.
        progress: told what is rehearsed next.
    """
    place = choose_device(device)
    dtype = choose_precision(precision, place)
    networks = Networks(config.autoencoder)
    plans, notes = [], []
    for name in stages:
        if name == "compression" and not config.compression.trains:
            notes.append("compression is not trained: it is frozen, or there is none")
            continue
        progress(name)
        stage, note = _build(name, config, networks)
        notes += note
        plans.append(_plan(name, stage, config, counts, place, dtype, limits))
        stage.to("cpu")
        del stage
    progress("inference")
    inference = _plan_inference(config, networks, device, precision)
    preparation = None
    if counts is None:
        notes.append("without --manifest, validation and the encoding of the cohort are left out")
    else:
        # Once for the latents' statistics, and once for the latents.
        paired = networks.semantic_encoder.reads_mirrored_latent
        times = 3 if config.mirror_latents or paired else 2
        preparation = inference.compress_seconds * (times * counts.train + (2 if paired else 1) * counts.validation)
    return Forecast(tuple(plans), preparation, inference, tuple(notes))


def _build(name: str, config: ExperimentConfig, networks: Networks) -> tuple[Stage, list[str]]:
    if name == "compression":
        try:
            return CompressionStage(config.compression, networks.compression, config.seed), []
        except DependencyError as error:
            loss = replace(config.compression.loss, perceptual=PerceptualConfig())
            without = replace(config.compression, loss=loss)
            note = f"compression is planned without its perceptual network, which costs extra: {error}"
            return CompressionStage(without, networks.compression, config.seed), [note]
    if name == "denoiser":
        return DenoiserStage(config.denoiser, networks.denoiser, networks.schedule, config.seed), []
    stage = RepresentationStage(
        config.representation,
        networks.denoiser,
        networks.semantic_encoder,
        networks.gradient_estimator,
        networks.schedule,
        config.seed,
    )
    return stage, []


def _plan(
    name: str,
    stage: Stage,
    config: ExperimentConfig,
    counts: ScanCounts | None,
    device: torch.device,
    dtype: torch.dtype,
    limits: Limits | None,
) -> Plan:
    image = (1, *config.preprocessing.shape)
    latent = config.compression.model.latent_shape(config.preprocessing.shape)
    shapes: dict[str, tuple[int, ...]] = {} if name == "denoiser" else {"image": image}
    if name != "compression":
        shapes["latent"] = latent
        if config.resample_posterior:
            shapes["latent_std"] = latent
        if isinstance(stage, RepresentationStage) and stage.reads_mirrored_latent:
            shapes["mirrored_latent"] = latent
    size = stage.optimisation.batch_size
    augmented = config.data if name == "compression" else None
    data = StageDataModule(
        RandomScans(counts.train if counts else size, shapes, augmented),
        RandomScans(counts.validation if counts else size, shapes),
        batch_size=size,
        steps=stage.optimisation.steps,
        seed=config.seed,
        workers=config.data.workers,
    )
    plan = plan_stage(name, stage, data, device=device, dtype=dtype, limits=limits)
    if counts is None:
        return replace(plan, train_scans=0, validation_scans=0, seconds=plan.steps * plan.step_seconds)
    scans = 0.0
    if config.data.cache == "memory" and device.type == "cpu":
        scans = (counts.train + counts.validation) * int(np.prod(image)) * 4 / GIB
    return replace(plan, memory_gib=plan.memory_gib + scans)


def _plan_inference(
    config: ExperimentConfig, networks: Networks, device: Device, precision: Precision
) -> InferencePlan:
    steps = config.sampling.steps
    few = replace(config.autoencoder, sampling=replace(config.sampling, steps=min(steps, SAMPLED)))
    model = LatentDiffusionAutoencoder(few, networks, device=device, precision=precision)
    scan = PreparedScan(
        np.random.default_rng(config.seed).random(config.preprocessing.shape, dtype=np.float32),
        config.preprocessing.grid,
        (0.0, 1.0),
    )
    images = torch.from_numpy(scan.data)[None, None]
    place = model.device
    release_memory()
    with PeakMemory(place) as encoding:
        latents, compress = timed(lambda: model.compress(images), place)
        semantic, describe = timed(lambda: model.semantic(images, latents), place)
        found, invert = timed(lambda: model.invert(latents, semantic), place)
    release_memory()
    with PeakMemory(place) as decoding:
        sampled, sample = timed(lambda: model.sample_latents(found.noise, semantic, record=found.record), place)
        _, decompress = timed(lambda: model.decompress(sampled), place)
    growth = steps / few.sampling.steps
    return InferencePlan(
        parameters=sum(model.count_parameters().values()),
        compress_seconds=compress,
        encode_seconds=compress + describe + invert * growth,
        decode_seconds=decompress + sample * growth,
        encode_gib=encoding.peak_gib,
        decode_gib=decoding.peak_gib,
        steps=steps,
        measured_steps=few.sampling.steps,
    )
