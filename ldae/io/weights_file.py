"""Weights of other programs: safetensors, NumPy's and files of `torch.save`, as tensors alone. No pickled code is run."""

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldae.base.files import sha256_of
from ldae.errors import CheckpointError
from ldae.io.checkpoints import load_tensors

__all__ = ["WeightsFile", "read_weights_file"]

CONTAINERS = ("state_dict", "model_state_dict", "autoencoder_state_dict", "model", "autoencoder")
"""Entries of a checkpoint that may hold the weights."""

TRAINING_STATE = {
    "callbacks", "datamodule_hparams_name", "datamodule_hyper_parameters", "epoch", "global_step", "hparams_name",
    "hyper_parameters", "loops", "lr_schedulers", "MixedPrecision", "optimizer", "optimizer_states", "pytorch-lightning_version",
}  # fmt: skip
"""Entries that Lightning keeps beside the weights; they may hold tensors, and a converted model needs none of them."""


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of one file.

    Attributes:
        path: of the file.
        sha256: of its content.
        tensors: by the file's own names, on the CPU; mapped from the file where its format allows that, not read.
        beside: other entries of the checkpoint, which hold the state of a training and no weights.
        ignored: names of tensors that were left out by request.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    beside: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_weights_file(path: Path, ignore: Sequence[str] = ()) -> WeightsFile:
    """Read a safetensors file, a state dict, a Lightning checkpoint, or a single array of torch or NumPy.

    Args:
        path: of the file; its content decides the format, not its name.
        ignore: beginnings of names to leave out.

    Raises:
        CheckpointError: if it is missing, damaged, none of these, or holds Python objects beside its tensors.
    """
    if not path.is_file():
        msg = f"{path}: no such weights file; check the path"
        raise CheckpointError(msg)
    with path.open("rb") as file:
        head = file.read(64)
    if head[8:9] == b"{":
        tensors, _ = load_tensors(path)
        beside: tuple[str, ...] = ()
    elif head[:6] == b"\x93NUMPY":
        tensors, beside = {"array": _load_array(path)}, ()
    elif head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        tensors, beside = _unwrap(path, _load_torch(path, zipped=head[:2] == b"PK"))
    else:
        kind = "a Git LFS pointer" if head.startswith(b"version https://git-lfs") else f"it begins with {head[:12]!r}"
        msg = f"{path}: neither safetensors nor written by torch.save ({kind}); download the weights file itself again"
        raise CheckpointError(msg)
    if not tensors:
        msg = f"{path}: holds no tensors; give the file of the trained weights"
        raise CheckpointError(msg)
    ignored = tuple(name for name in tensors if name.startswith(tuple(ignore)))
    kept = {name: tensor for name, tensor in tensors.items() if name not in ignored}
    return WeightsFile(path, sha256_of(path), kept, beside, ignored)


def _load_array(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (ValueError, TypeError, OSError, EOFError) as error:  # objects, other types, or damage
        msg = f"{path}: not an array of numbers ({error}); save it again with numpy.save"
        raise CheckpointError(msg) from error


def _load_torch(path: Path, *, zipped: bool) -> Any:
    """Content of a file of `torch.save`: tensors in plain containers, or an error."""
    try:
        with warnings.catch_warnings():
            # Other pickle protocols than torch's own: they either load or are refused below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            msg = f"{path}: damaged, or a pickle that torch.save did not write, which is not run; copy it again"
        else:
            msg = (
                f"{path}: holds a Python object ({refused[1]}) beside its tensors, and loading that could run any code, so "
                "it is refused. Have the state dict alone saved where the model runs, "
                "torch.save(model.state_dict(), 'weights.pt'), or ask its authors for that, and convert weights.pt"
            )
        raise CheckpointError(msg) from error
    except Exception as error:  # RuntimeError, EOFError, KeyError, ... by kind of damage
        reason = " ".join(str(error).split())[:160]
        msg = f"{path}: cannot be read as a checkpoint ({reason}); copy it again, or save its state dict alone"
        raise CheckpointError(msg) from error


def _unwrap(path: Path, loaded: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict inside a checkpoint, and the names of the entries beside it, unless those hold unknown tensors."""
    if isinstance(loaded, Tensor):
        return {"array": loaded.detach()}, ()
    if not isinstance(loaded, Mapping):
        msg = f"{path}: holds a {type(loaded).__name__}, not a dictionary of tensors; save the model's state dict"
        raise CheckpointError(msg)
    if all(isinstance(value, Tensor) for value in loaded.values()):
        return {str(name): value.detach() for name, value in loaded.items()}, ()
    found = [name for name in CONTAINERS if isinstance(loaded.get(name), Mapping)]
    if len(found) != 1:
        some = ", ".join(str(name) for name in list(loaded)[:5])
        msg = (
            f"{path}: expected one of the entries {', '.join(CONTAINERS)} to hold the weights, found "
            f"{' and '.join(found) or 'none'} among {some}; save the state dict alone"
        )
        raise CheckpointError(msg)
    weights = loaded[found[0]]
    strange = [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    beside = [str(name) for name in loaded if name != found[0]]
    strange += [name for name in beside if name not in TRAINING_STATE and _holds_tensor(loaded[name])]
    if strange:
        msg = (
            f"{path}: {len(strange)} entries are neither weights nor the state of a training (first: {strange[0]}); "
            "save the state dict alone"
        )
        raise CheckpointError(msg)
    return {str(name): value.detach() for name, value in weights.items()}, tuple(beside)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_tensor(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_tensor(each) for each in value)
    return isinstance(value, Tensor)
