"""Configuration of an experiment, and the stages that it describes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from ldae.autoencoder import AutoencoderConfig, Networks, SamplingConfig
from ldae.base.ranges import SEEDS, checked, within
from ldae.contract import Preprocessing
from ldae.data.datasets import DataConfig
from ldae.data.manifest import Manifest, Record
from ldae.diffusion import ScheduleConfig
from ldae.errors import ConfigError, TrainingError
from ldae.io.checkpoints import FORMAT_VERSION
from ldae.io.plain import to_plain
from ldae.networks import Taken
from ldae.training.compression import CompressionStage, CompressionStageConfig
from ldae.training.denoiser import DenoiserStage, DenoiserStageConfig
from ldae.training.representation import RepresentationStage, RepresentationStageConfig
from ldae.training.stage import Stage

__all__ = [
    "STAGES",
    "ExperimentConfig",
    "build_stage",
    "check_whitening",
    "describe",
    "provenance",
    "records_of",
    "scan_shapes",
]

STAGES = ("compression", "denoiser", "representation")


@dataclass(frozen=True)
@checked
class ExperimentConfig:
    """Everything that a model is made from, but the scans.

    Attributes:
        preprocessing: grid and intensities.
        data: reading and augmentation.
        compression: stage 1.
        schedule: of the noise.
        denoiser: stage 2.
        representation: stage 3.
        sampling: how codes are found and decoded by default.
        resample_posterior: train stages 2 and 3 on draws from each scan's posterior, not on its mean.
        mirror_latents: train stages 2 and 3 on every scan and its mirror image, left to right.
        seed: of weights, batches and noise.

    Raises:
        ConfigError: if a batch is too small for a batch norm, or the grid for the discriminator.
    """

    preprocessing: Preprocessing = Preprocessing()
    data: DataConfig = DataConfig()
    compression: CompressionStageConfig = CompressionStageConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    denoiser: DenoiserStageConfig = DenoiserStageConfig()
    representation: RepresentationStageConfig = RepresentationStageConfig()
    sampling: SamplingConfig = SamplingConfig()
    resample_posterior: bool = False
    mirror_latents: bool = False
    seed: int = within(0, SEEDS)

    def __post_init__(self) -> None:
        if self.representation.semantic_encoder.volume is not None and self.representation.optimisation.batch_size == 1:
            msg = (
                "representation.optimisation.batch_size must be at least 2 with semantic_encoder.volume, whose batch norm "
                "compares scans, got 1; raise it, or choose semantic_encoder.slices"
            )
            raise ConfigError(msg)
        compression = self.compression
        if not compression.trains or compression.loss.adversarial <= 0:
            return
        # The discriminator halves the grid once a layer; its last two convolutions take one voxel off each axis.
        cells = tuple(n // 2**compression.discriminator.layers - 1 for n in self.preprocessing.shape)
        if min(cells) < 2:
            msg = (
                f"a discriminator of {compression.discriminator.layers} layers leaves {cells} voxels of the grid "
                f"{self.preprocessing.shape}, and needs 2 along each axis; lower compression.discriminator.layers, or set "
                "compression.loss.adversarial=0"
            )
            raise ConfigError(msg)

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """Shapes of the networks and meaning of the codes."""
        return AutoencoderConfig(
            semantic_encoder=self.representation.semantic_encoder,
            preprocessing=self.preprocessing,
            compression=self.compression.model,
            schedule=self.schedule,
            denoiser=self.denoiser.model,
            shift=self.representation.shift,
            semantic_dropout=self.representation.semantic_dropout > 0,
            code_map=self.representation.code_map,
            sampling=self.sampling,
        )

    def checked(self, taken: Taken | None = None) -> "ExperimentConfig":
        """Itself, with weights given wherever they are to be kept as they are.

        Args:
            taken: what the networks took from a trained model.

        Raises:
            ConfigError: naming the stage.
        """
        for name, stage in (("compression", self.compression), ("denoiser", self.denoiser)):
            if taken and stage.initial_weights is not None:
                msg = f"{name}.initial_weights and --from both give weights, got {stage.initial_weights} too; leave one out"
                raise ConfigError(msg)
            if stage.frozen and stage.initial_weights is None and not (taken and taken.keeps(name)):
                got = f"weights that are not all its own ({taken})" if taken else "neither"
                msg = (
                    f"{name}.frozen keeps the weights of {name}.initial_weights or of the model that is fine-tuned, got "
                    f"{got}; set {name}.frozen=false to train it, or name such weights"
                )
                raise ConfigError(msg)
        if taken and self.representation.warm_start:  # unless the gradient estimator has weights of its own already
            begins = any(name.startswith("gradient_estimator.decoder.") for name in taken.initial)
            return replace(self, representation=replace(self.representation, warm_start=begins))
        return self


def records_of(manifest: Manifest) -> dict[str, tuple[Record, ...]]:
    """The scans to train and to validate on.

    Raises:
        TrainingError: if a split is empty.
    """
    records = {name: manifest.in_split(name).records for name in ("train", "validation")}
    for name, each in records.items():
        if not each:
            msg = f"{manifest.path}: the {name} split is empty; 'ldae cohort split --force' splits again"
            raise TrainingError(msg)
    return records


def check_whitening(config: ExperimentConfig, train: Sequence[Record]) -> None:
    """See that codes can be whitened as the configuration says.

    Raises:
        TrainingError: if no subject has the several scans that a whitening within subjects needs.
    """
    encoder, subjects = config.representation.semantic_encoder, {each.participant_id for each in train}
    if encoder.whitening and encoder.whitening_of == "within" and len(subjects) == len(train):
        msg = (
            f"semantic_encoder.whitening_of=within needs subjects with several training scans, got one scan each of "
            f"{len(subjects)} subjects; set representation.semantic_encoder.whitening_of=all"
        )
        raise TrainingError(msg)


def describe(model: AutoencoderConfig) -> dict[str, Any]:
    """The groups of an experiment's plain configuration that say what a model is."""
    return {
        "preprocessing": to_plain(model.preprocessing),
        "schedule": to_plain(model.schedule),
        "sampling": to_plain(model.sampling),
        "compression": {"model": to_plain(model.compression)},
        "denoiser": {"model": to_plain(model.denoiser)},
        "representation": {
            "semantic_encoder": to_plain(model.semantic_encoder),
            "shift": model.shift,
            "code_map": model.code_map,
            "semantic_dropout": 0.1 if model.semantic_dropout else 0.0,
        },
    }


def provenance(config: ExperimentConfig, manifest: Manifest, start: str | None) -> dict[str, Any]:
    """Provenance of a run: resolved configuration, cohort, versions, seed.

    Args:
        config: of the experiment.
        manifest: of the cohort.
        start: fingerprint of the model whose weights it starts from.
    """
    packages = ("ldae", "torch", "lightning", "monai", "numpy")
    return {
        "format": FORMAT_VERSION,
        "config": to_plain(config),
        "manifest": {"path": str(manifest.path), "sha256": manifest.sha256},
        "seed": config.seed,
        "start": start,
        "versions": {name: version(name) for name in packages},
    }


def build_stage(name: str, config: ExperimentConfig, networks: Networks) -> Stage:
    """The stage of a name, around the networks that it trains."""
    if name == "compression":
        return CompressionStage(config.compression, networks.compression, config.seed)
    if name == "denoiser":
        return DenoiserStage(config.denoiser, networks.denoiser, networks.schedule, config.seed)
    return RepresentationStage(
        config.representation,
        networks.denoiser,
        networks.semantic_encoder,
        networks.gradient_estimator,
        networks.schedule,
        config.seed,
    )


def scan_shapes(config: ExperimentConfig, stage: Stage) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of one scan in a stage's batches."""
    shapes: dict[str, tuple[int, ...]] = {}
    if not isinstance(stage, DenoiserStage):
        shapes["image"] = (1, *config.preprocessing.shape)
    if isinstance(stage, CompressionStage):
        return shapes
    names = ["latent"]
    if config.resample_posterior:
        names.append("latent_std")
    latent = config.compression.model.latent_shape(config.preprocessing.shape)
    return shapes | dict.fromkeys(names, latent)
