"""The four networks, their joint prediction from a noisy latent, and what they take of the weights of a trained model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
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
from ldae.errors import CheckpointError, ConfigError, TaskError
from ldae.io.plain import to_plain
from ldae.models.components import PatchComponents
from ldae.models.compression import CompressionAutoencoder, CompressionConfig
from ldae.models.denoiser import Denoiser, DenoiserConfig, Features, GaussianDenoiser
from ldae.models.gradient_estimator import GradientEstimator
from ldae.models.semantic_encoder import SemanticEncoder, SemanticEncoderConfig, build_semantic_encoder

__all__ = [
    "AutoencoderConfig",
    "Networks",
    "Taken",
    "denoiser_velocity",
    "semantic_predict",
    "semantic_velocities",
    "take_weights",
]

EMBEDDING, WHITENING = "gradient_estimator.semantic_embedding.", "semantic_encoder.whitening."
MEANING = {
    "compression": ("compression",),
    "denoiser": ("denoiser", "schedule"),
    "semantic_encoder": ("semantic_encoder",),
}
"""Settings that say what the weights of a network mean."""
Pieces = list[tuple[slice, slice]]
"""Indices of an axis: own and given."""
WHOLE: Pieces = [(slice(None), slice(None))]


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
        self.schedule = NoiseSchedule(config.schedule)

        def gaussian(wanted: bool) -> GaussianDenoiser | None:
            components = config.denoiser.gaussian_components if wanted else 0
            return GaussianDenoiser(components, latent_shape, self.schedule) if components else None

        self.compression = CompressionAutoencoder(config.compression, config.preprocessing.shape)
        self.denoiser = Denoiser(config.denoiser, channels, gaussian(True))
        mapped = latent_shape if config.code_map else None
        self.gradient_estimator = GradientEstimator(config.denoiser, channels, width, mapped, gaussian(config.code_map))
        self.semantic_encoder: SemanticEncoder = build_semantic_encoder(
            config.semantic_encoder, config.preprocessing.shape
        )
        check_forms(self.schedule, config.denoiser.prediction, config.shift)
        if self.gradient_estimator.gaussian is not None and config.shift != "velocity":
            msg = (
                f"the code's map and denoiser.gaussian_components change velocities, got shift {config.shift!r}; set "
                "representation.shift to 'velocity'"
            )
            raise ConfigError(msg)

    @classmethod
    def for_semantic_codes(cls, config: AutoencoderConfig) -> "Networks":
        """The semantic encoder; the place of the others is empty."""
        networks = cls.__new__(cls)
        nn.Module.__init__(networks)
        for name in ("compression", "denoiser", "gradient_estimator"):
            networks.add_module(name, NotLoaded())
        networks.semantic_encoder = build_semantic_encoder(config.semantic_encoder, config.preprocessing.shape)
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
            empty = components.leave_out_empty()
            self.gradient_estimator.leave_out(empty)
            if self.denoiser.gaussian is not None:
                self.denoiser.gaussian.leave_out(empty)

    def with_random_encoder(self, config: AutoencoderConfig, seed: int) -> "Networks":
        """The same networks beside a semantic encoder with random weights, frozen, on the same device."""
        twin = Networks.__new__(Networks)
        nn.Module.__init__(twin)
        for name, child in self.named_children():
            twin.add_module(name, child)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = build_semantic_encoder(config.semantic_encoder, config.preprocessing.shape)
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
                    without = estimator.estimate(features, embedded, embedded.new_zeros(len(embedded))).float()
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


@dataclass(frozen=True)
class Taken:
    """Names of tensors, by what was taken of them.

    Attributes:
        whole: taken as they are.
        part: the channels that both latents have were taken; the others keep their initial values.
        initial: keep their initial values.
        unused: of the trained model, that nothing took.
        changed: settings that differ from the trained model's, but for dropout, and say what weights mean: its value and the new
            one; None where there is none.
    """

    whole: tuple[str, ...]
    part: tuple[str, ...]
    initial: tuple[str, ...]
    unused: tuple[str, ...]
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def keeps(self, network: str) -> bool:
        """True if a network is the trained model's: all its tensors were taken whole, and mean what they meant."""
        meaning = tuple(f"{group}." for group in MEANING[network])
        return self.covers(f"{network}.") and not any(name.startswith(meaning) for name in self.changed)

    def covers(self, prefix: str) -> bool:
        """True if all tensors whose names begin so were taken whole."""
        return not any(name.startswith(prefix) for name in (*self.part, *self.initial))

    def __str__(self) -> str:
        kinds = ("taken whole", self.whole), ("in part", self.part), ("at initial values", self.initial)
        told = ", ".join(f"{len(names)} {how}" for how, names in kinds if names)
        told += f"; {len(self.unused)} of the model not used" if self.unused else ""
        changed = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in self.changed.items())
        return f"{told}; settings that differ: {changed}" if changed else told


def take_weights(
    networks: Networks, config: AutoencoderConfig, trained: Networks, trained_config: AutoencoderConfig
) -> Taken:
    """Copy what fits of a trained model into networks.

    A tensor is taken whole if name and shape are the same, and in part if only the width of the latent differs. What belongs to
    places of the grid (components of patches, the linear path, the map of the code) is taken on the same grid alone. A whitening
    is taken with the whole semantic encoder alone; without it, what reads whitened codes is left.

    Args:
        networks: with initial values.
        config: of these.
        trained: to take from.
        trained_config: of those.

    Raises:
        CheckpointError: if no weight fits.
    """
    own, given = networks.state_dict(), trained.state_dict()
    fits = _Fits(config, trained_config)
    axes = {name: fits.axes(name, own[name].shape, given[name].shape) for name in own if name in given}
    found = {name: each for name, each in axes.items() if all(each)}
    whole = [name for name, each in found.items() if all(pieces == WHOLE for pieces in each)]
    changed = _changed(config, trained_config)
    encoder = {name for name in own if name.startswith("semantic_encoder.")}
    same_encoder = encoder <= set(whole) and not any(name.startswith("semantic_encoder.") for name in changed)
    if any(name.startswith(WHITENING) for name in given) and not same_encoder:
        whole = [name for name in whole if not name.startswith((WHITENING, EMBEDDING))]
        found = {name: each for name, each in found.items() if not name.startswith((WHITENING, EMBEDDING))}
    if not any(own[name].ndim > 1 for name in whole):
        msg = (
            f"none of the weights of the model that is started from ({len(given)} tensors) fits the networks of this "
            f"configuration ({len(own)} tensors); name a configuration of like networks, or train without --from"
        )
        raise CheckpointError(msg)
    with torch.no_grad():
        for name, each in found.items():
            for pairs in product(*each):
                mine, theirs = (tuple(pair[side] for pair in pairs) for side in (0, 1))
                own[name][mine] = given[name][theirs].to(own[name])
    return Taken(
        tuple(whole),
        tuple(name for name in found if name not in whole),
        tuple(name for name in own if name not in found),
        tuple(name for name in given if name not in found),
        changed,
    )


def _changed(own: AutoencoderConfig, given: AutoencoderConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, but for dropout: given and own values."""

    def flat(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {} if name.endswith("dropout") else {name: value}
        return {key: leaf for part, each in value.items() for key, leaf in flat(each, f"{name}.{part}").items()}

    groups = ("compression", "schedule", "denoiser", "semantic_encoder", "shift")
    plain = [{group: to_plain(each)[group] for group in groups} for each in (own, given)]
    mine, theirs = ({k: v for name, value in each.items() for k, v in flat(value, name).items()} for each in plain)
    pairs = {name: (theirs.get(name), mine.get(name)) for name in sorted(mine.keys() | theirs.keys())}
    return {name: (before, now) for name, (before, now) in pairs.items() if before != now}


class _Fits:
    """Tells which indices of tensors of two configurations stand for the same."""

    def __init__(self, own: AutoencoderConfig, given: AutoencoderConfig) -> None:
        self.latent = own.compression.latent_channels, given.compression.latent_channels
        widths = {(each.compression.channels, each.denoiser.widths) for each in (own, given)}
        self.latent = self.latent if len(widths) == 1 else (-1, -1)  # an axis of that size may be another
        self.embedding = own.denoiser.embedding_width, given.denoiser.embedding_width
        self.maps = own.code_map, given.code_map
        grids = [(each.shape, each.voxel_size_mm, each.centre_mm) for each in (own.preprocessing, given.preprocessing)]
        self.same_grid = grids[0] == grids[1]
        self.placed = (
            "semantic_encoder.linear.",
            "denoiser.gaussian.",
            "gradient_estimator.gaussian.",
            *(["compression.network."] if own.compression.components or given.compression.components else []),
        )
        octaves = own.denoiser.coordinates, given.denoiser.coordinates
        self.positions = 6 * octaves[0] if octaves[0] == octaves[1] else 0

    def axes(self, name: str, own: Sequence[int], given: Sequence[int]) -> list[Pieces]:
        """Pieces of each axis of a tensor; none of an axis if the tensor does not fit."""
        if name.startswith(self.placed):
            return [WHOLE for _ in own] if self.same_grid and own == given else [[]]
        if len(own) != len(given):
            return [[]]
        axes = [self._pieces(mine, theirs) for mine, theirs in zip(own, given, strict=True)]
        if name == "denoiser.encoder.stem.weight" and own[1] != given[1]:  # positions come after the latent
            axes[1] = self._pieces(own[1], given[1], self.positions)
        if name.startswith(EMBEDDING) and any(self.maps) and not (self.same_grid and own == given):
            blocks = slice(self.embedding[0])  # the rest is the map
            axes[0] = [(blocks, blocks)] if self.embedding[0] == self.embedding[1] else []
        return axes

    def _pieces(self, own: int, given: int, last: int = 0) -> Pieces:
        """Indices of an axis of one size, or as wide as the latent and so many more that both have."""
        if own == given:
            return WHOLE
        if (own - last, given - last) != self.latent:
            return []
        common = slice(min(self.latent))
        return [(common, common), *([(slice(own - last, None), slice(given - last, None))] if last else [])]
