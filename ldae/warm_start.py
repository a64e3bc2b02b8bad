"""Weights that new networks take from a trained model, as far as they fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from ldae.errors import CheckpointError
from ldae.io.plain import to_plain
from ldae.networks import AutoencoderConfig, Networks

__all__ = ["Taken", "take_weights"]

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
class Taken:
    """Names of tensors, by what was taken of them.

    Attributes:
        whole: taken as they are.
        part: the channels that both latents have were taken; the others keep their initial values.
        initial: keep their initial values.
        unused: of the trained model, that nothing took.
        changed: settings that differ from the trained model's, but for dropout, which say what weights mean.
    """

    whole: tuple[str, ...]
    part: tuple[str, ...]
    initial: tuple[str, ...]
    unused: tuple[str, ...]
    changed: tuple[str, ...] = ()

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
        return f"{told}; settings that differ: {', '.join(self.changed)}" if self.changed else told


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


def _changed(own: AutoencoderConfig, given: AutoencoderConfig) -> tuple[str, ...]:
    """Names of settings that differ, but for dropout."""

    def flat(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {} if name.endswith("dropout") else {name: value}
        return {key: leaf for part, each in value.items() for key, leaf in flat(each, f"{name}.{part}").items()}

    groups = ("compression", "schedule", "denoiser", "semantic_encoder", "shift")
    plain = [{group: to_plain(each)[group] for group in groups} for each in (own, given)]
    mine, theirs = ({k: v for name, value in each.items() for k, v in flat(value, name).items()} for each in plain)
    return tuple(sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)))


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
