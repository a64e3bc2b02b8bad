"""Foreign names to ours, with an account of every tensor of the file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ldae.errors import CheckpointError
from ldae.io.weights_file import WeightsFile

__all__ = ["NETWORKS", "Network", "Renamed", "as_float32", "check_complete", "find_network"]

TRAINING_ONLY = ("discriminator.", "lpips.", "perceptual_loss.")
"""Networks that only a training needs."""


@dataclass(frozen=True)
class Network:
    """A kind of network that a file may hold.

    Attributes:
        name: in words.
        anchor: a tensor that every network of this kind has, and no other.
    """

    name: str
    anchor: str


NETWORKS = {
    "decoder": Network("denoiser with gradient estimator", "time_embed.0.weight"),
    "encoder": Network("semantic encoder", "soft_attention.linear.weight"),
    "autoencoder": Network("compression autoencoder", "quant_conv_mu.conv.weight"),
}


@dataclass
class Renamed:
    """One network of a file under our names; every tensor of the file is in exactly one of the groups.

    Attributes:
        file: where the tensors come from.
        kind: key of :data:`NETWORKS`.
        tensors: our name to the tensor, a view of the file's.
        sources: our name to the file's.
        equal: names of second copies, found equal to the first.
        recomputed: tensors that follow from a formula, by the file's names; whoever knows the formula compares them.
        left_out: names of tensors that the model does not need, by reason.
        unexpected: names that mean nothing in such a network, for which :func:`check_complete` refuses the file.
    """

    file: WeightsFile
    kind: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    equal: list[str] = field(default_factory=list)
    recomputed: dict[str, Tensor] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    def add(self, ours: str, source: str, tensor: Tensor) -> None:
        """Use a tensor of the file."""
        self.tensors[ours] = tensor
        self.sources[ours] = source

    @property
    def widened(self) -> dict[str, int]:
        """Number of used tensors of less than 32 bits, by type."""
        kinds = [str(t.dtype).removeprefix("torch.") for t in self.tensors.values() if t.dtype != torch.float32]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def find_network(file: WeightsFile, kind: str) -> tuple[dict[str, Tensor], str, Renamed]:
    """One network's tensors, of a kind in :data:`NETWORKS`, among all of a file; the averaged ones where there are any.

    Returns:
        The tensors by their names inside the network, the prefix they had, and the account so far.

    Raises:
        CheckpointError: if there is no such network, or several, or if a tensor belongs to nothing that is known.
    """
    network = NETWORKS[kind]
    account = Renamed(file, kind)
    if file.ignored:
        account.left_out["left out by request"] = list(file.ignored)
    prefixes = {key: _prefixes(file, each.anchor) for key, each in NETWORKS.items()}
    own = prefixes[kind]
    averaged = [prefix for prefix in own if re.search(r"(^|[._])ema[._]", prefix)]
    chosen = averaged if averaged else own
    if not chosen:
        some = ", ".join(list(file.tensors)[:3])
        others = [NETWORKS[key].name for key, found in prefixes.items() if found]
        remedy = "; ".join(f"it holds a {name}: give it in the place of that network" for name in others)
        msg = (
            f"{file.path}: no {network.name} among its {len(file.tensors)} tensors ({some}, ...; none is called "
            f"{network.anchor}); {remedy or 'give the file of that network'}"
        )
        raise CheckpointError(msg)
    if len(chosen) > 1:
        msg = (
            f"{file.path}: holds {len(chosen)} networks of the kind {network.name} (under {', '.join(map(repr, chosen))}); "
            "name those that you do not mean with --ignore"
        )
        raise CheckpointError(msg)
    prefix = chosen[0]
    reasons = {each: "not averaged" if averaged else "another copy" for each in own if each != prefix}
    for key, found in prefixes.items():
        reasons |= {each: f"another network: {NETWORKS[key].name}" for each in found if key != kind and each}
    reasons |= dict.fromkeys(TRAINING_ONLY, "only for training")
    inside, unknown = {}, []
    for name, tensor in file.tensors.items():
        reason = next((reasons[each] for each in sorted(reasons, key=len, reverse=True) if name.startswith(each)), None)
        if name.startswith(prefix) and (reason is None or not prefix):
            inside[name.removeprefix(prefix)] = tensor
        elif reason is not None:
            account.left_out.setdefault(reason, []).append(name)
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(_unexpected(file, network, unknown))
    return inside, prefix, account


def check_complete(account: Renamed, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a network that is not exactly what its architecture says: the expected shapes, by our names.

    Raises:
        CheckpointError: naming the first tensor that is missing, unexpected or of another shape.
    """
    network, path = NETWORKS[account.kind], account.file.path
    unexpected = [*account.unexpected, *(account.sources[ours] for ours in account.tensors if ours not in expected)]
    if unexpected:
        raise CheckpointError(_unexpected(account.file, network, unexpected))
    missing = [ours for ours in expected if ours not in account.tensors]
    if missing:
        msg = (
            f"{path}: {len(missing)} of {len(expected)} tensors of the {network.name} are missing (first: what becomes "
            f"{missing[0]}); the file is incomplete or of another version: download it again"
        )
        raise CheckpointError(msg)
    wrong = [ours for ours, shape in expected.items() if tuple(account.tensors[ours].shape) != shape]
    if wrong:
        first = wrong[0]
        msg = (
            f"{path}: {len(wrong)} tensors do not have the shape that the others ask for (first: {account.sources[first]} "
            f"is {tuple(account.tensors[first].shape)}, needed is {expected[first]}); is this one model's file?"
        )
        raise CheckpointError(msg)
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    other = [ours for ours, tensor in account.tensors.items() if tensor.dtype not in kinds]
    if other:
        msg = (
            f"{path}: {account.sources[other[0]]} is {account.tensors[other[0]].dtype}; float32, float16 and bfloat16 "
            "are read: save the weights in one of them"
        )
        raise CheckpointError(msg)


def as_float32(account: Renamed, ours: str) -> Tensor:
    """A tensor as it is written: float32, its values unchanged.

    Raises:
        CheckpointError: if it holds NaN or infinity.
    """
    tensor = account.tensors[ours].float().contiguous()
    low, high = tensor.aminmax()
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        msg = (
            f"{account.file.path}: {account.sources[ours]} holds NaN or infinity, so this training went wrong or the file "
            "is damaged; take an earlier checkpoint"
        )
        raise CheckpointError(msg)
    return tensor


def _prefixes(file: WeightsFile, anchor: str) -> list[str]:
    """Prefixes of an anchor in the file's names: '', or text that ends in a dot."""
    found = {name.removesuffix(anchor) for name in file.tensors if name.endswith(anchor)}
    return sorted(prefix for prefix in found if not prefix or prefix.endswith("."))


def _unexpected(file: WeightsFile, network: Network, names: Sequence[str]) -> str:
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"{file.path}: {len(names)} of {len(file.tensors)} tensors have no place in a {network.name} ({some}); this is "
        "another model, or, if you know that they are not needed, name their beginning with --ignore"
    )
