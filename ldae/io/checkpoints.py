"""Model folders: weights as safetensors, configuration as JSON, and a model card. No pickle is read."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldae.base.files import atomic_file, atomic_folder, read_json, sha256_of, write_json, write_text
from ldae.errors import CheckpointError
from ldae.io.plain import drop_removed

__all__ = [
    "FORMAT_VERSION",
    "WEIGHTS",
    "check_finite",
    "check_tensors",
    "describe_folder",
    "hash_tensors",
    "is_whole",
    "load_domain",
    "load_folder",
    "load_tensors",
    "load_weights",
    "pack",
    "read_config",
    "save_folder",
    "save_tensors",
    "stream_tensors",
    "unpack",
]

HALF_FROM = 1 << 14
"""Elements of a tensor from which on it is kept in half precision."""
BYTES_FROM = 1 << 22
"""Elements from which on it is kept as bytes."""
PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
AXES, STEP = {":rows": 0, ":columns": 1}, ":step"
FEWEST_ZERO = 0.1
"""Share of rows or columns that have to be 0 for them to be left out."""

FORMAT_VERSION = 2
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
DOMAIN = "domain.safetensors"
CARD = "README.md"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write tensors, and words about them, as safetensors under a temporary name, then rename."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path, needs=sum(tensor.nbytes for tensor in plain.values())) as temporary:
        save_file(plain, temporary, metadata)
        # safetensors keeps files to their owner; the other files of a model are for everyone to read.
        temporary.chmod(0o644)
    return path


def stream_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write float32 tensors as safetensors one at a time, so that the memory of the largest tensor is enough.

    Args:
        path: of the file, which must not exist yet.
        shapes: of every tensor by name, in the order of the file.
        read: gives a tensor by name: float32, contiguous, on the CPU, of the shape announced.
        metadata: of the file.

    Returns:
        Hexadecimal SHA-256 of the file's content.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            file.write(part)
            digest.update(part)
        for name, shape in shapes.items():
            tensor = read(name)
            assert tuple(tensor.shape) == shape, name
            data = tensor.numpy().data.cast("B") if tensor.numel() else b""
            file.write(data)
            digest.update(data)
    return digest.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors and metadata.

    Raises:
        CheckpointError: if the file is missing, damaged or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        msg = f"{path}: no such weights file; check the path"
        raise CheckpointError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in list(file.keys())}, dict(file.metadata() or {})
    except SafetensorError as error:
        msg = f"{path}: not a readable safetensors file ({error}); copy it again. Pickles are not read"
        raise CheckpointError(msg) from error


def is_whole(path: Path) -> bool:
    """True for a safetensors file that is there and undamaged, as far as its header and length tell."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for a small file. `NAME:rows` and `NAME:columns` say which were kept; `NAME:step` is what bytes stand for."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.numel() < HALF_FROM or not tensor.is_floating_point():
            packed[name] = tensor
            continue
        for suffix, axis in AXES.items() if tensor.ndim > 1 else ():
            kept = tensor.transpose(0, axis).flatten(1).any(dim=1)
            if (~kept).float().mean() >= FEWEST_ZERO:
                packed[name + suffix], tensor = kept, tensor.index_select(axis, kept.nonzero()[:, 0])
        if tensor.ndim > 1 and tensor.numel() >= BYTES_FROM:
            packed[name + STEP] = step = tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
            packed[name] = (tensor / step).round().to(torch.int8)
        else:
            packed[name] = tensor.half()
    return packed


def unpack(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """The tensors that :func:`pack` was given, in the types of the expected ones; others as they are.

    Args:
        tensors: of a file.
        expected: of these names, shapes and types; on the meta device, say.
        where: the file, for messages.

    Raises:
        CheckpointError: naming a tensor that is not as expected, or not finite.
    """
    beside = {name for name in tensors if name.endswith((*AXES, STEP))}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in beside}
    remedy = "the folder is damaged or edited: copy it again"
    for note in sorted(beside):
        (name, axis_name), told = note.rsplit(":", 1), tensors[note]
        shape, axis = found.get(name, ()), AXES.get(f":{axis_name}")
        if axis is None:
            stored = tensors[name] if name in found else told
            fits = told.dtype in PRECISIONS and stored.dtype == torch.int8 and stored.ndim > 1
            fits = fits and told.shape == (len(stored), 1, *stored.shape[2:])
        else:
            fits = told.dtype == torch.bool and told.ndim == 1 and shape[axis : axis + 1] == (int(told.sum()),)
            found[name] = (*shape[:axis], len(told), *shape[axis + 1 :]) if fits else shape
        if not fits:
            what = f"what the bytes of {name} stand for" if axis is None else f"which {axis_name} of {name} were kept"
            msg = f"{where}: {note} does not say {what}; {remedy}"
            raise CheckpointError(msg)
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    check_tensors(found, shapes, where=where, remedy=remedy)
    whole: dict[str, Tensor] = {}
    for name in found:
        tensor, kind = tensors[name], expected[name].dtype
        if name + STEP in beside:
            tensor = tensor * tensors[name + STEP]
        if tensor.dtype not in (PRECISIONS if kind in PRECISIONS else (kind,)):
            msg = f"{where}: {name} has values of type {tensor.dtype}, where {kind} is expected; {remedy}"
            raise CheckpointError(msg)
        tensor = tensor.to(kind)
        for suffix, axis in reversed(AXES.items()):
            if name + suffix in beside:
                kept = tensors[name + suffix]
                shape = (*tensor.shape[:axis], len(kept), *tensor.shape[axis + 1 :])
                tensor = tensor.new_zeros(shape).index_copy_(axis, kept.nonzero()[:, 0], tensor)
        whole[name] = tensor
    check_finite(whole, where=where)
    return whole


def load_weights(module: nn.Module, path: Path) -> None:
    """Give a network the tensors of a safetensors file, strictly.

    Raises:
        CheckpointError: if the file is missing or damaged, or its tensors are not the network's.
    """
    tensors, _ = load_tensors(path)
    check_tensors(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()},
        where=str(path),
        remedy="give weights of the shape that the config names",
    )
    module.load_state_dict(tensors, strict=True)


def check_tensors(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, where: str, remedy: str
) -> None:
    """Compare names and shapes of tensors.

    Raises:
        CheckpointError: naming the first that is missing, unexpected or of another shape.
    """
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        msg = (
            f"{where}: {len(wrong)} tensors are missing, unexpected or of another shape than the config says "
            f"(first: {wrong[0]}, {found.get(wrong[0])} for {expected.get(wrong[0])}); {remedy}"
        )
        raise CheckpointError(msg)


def check_finite(tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        CheckpointError: naming the first tensor that holds any.
    """
    wrong = next(
        (name for name, each in tensors.items() if each.is_floating_point() and not each.isfinite().all()), None
    )
    if wrong is not None:
        msg = f"{where}: the weights {wrong} are not all finite; take a checkpoint from before training failed, or copy it again"
        raise CheckpointError(msg)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save_folder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    card: str,
    domain: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a model folder whole: weights, config with format version and the weights' hash, card, training domain."""
    with atomic_folder(folder) as temporary:
        describe_folder(temporary, sha256_of(save_tensors(temporary / WEIGHTS, tensors)), config, card)
        if domain:
            save_tensors(temporary / DOMAIN, domain)
    return folder


def describe_folder(folder: Path, sha256: str, config: Mapping[str, Any], card: str) -> None:
    """Write a model folder's config and card beside its weights, whose hash is given."""
    write_json(folder / CONFIG, {"format": FORMAT_VERSION, "sha256": sha256, **config})
    write_text(folder / CARD, card)


def load_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model folder: tensors and config.

    Raises:
        CheckpointError: as of :func:`read_config`, or if the weights are missing, or not those that the config was written with.
    """
    config = read_config(folder)
    tensors, _ = load_tensors(folder / WEIGHTS)
    if sha256_of(folder / WEIGHTS) != config.get("sha256"):
        msg = f"{folder / WEIGHTS}: its hash is not the one in {CONFIG}, so the copy is damaged or mixed; copy it again"
        raise CheckpointError(msg)
    return tensors, config


def load_domain(folder: Path) -> dict[str, Tensor]:
    """Tensors of a model folder's training domain; none where it was not measured.

    Raises:
        CheckpointError: if the file is damaged.
    """
    return load_tensors(folder / DOMAIN)[0] if (folder / DOMAIN).exists() else {}


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a model folder, in today's format; no weights are read.

    Raises:
        CheckpointError: if there is none, it is damaged, or its format is newer than this package.
    """
    path = folder / CONFIG
    if not path.is_file():
        msg = f"{folder}: no model here ({CONFIG} is missing); give the folder that 'ldae fit' or 'ldae demo' wrote"
        raise CheckpointError(msg)
    try:
        config: dict[str, Any] = read_json(path)
    except ValueError as error:
        msg = f"{path}: not valid JSON ({error}); copy the model folder again"
        raise CheckpointError(msg) from error
    if not isinstance(config, dict) or not isinstance(config.get("autoencoder"), dict):
        what = (
            "it has no group 'autoencoder'"
            if isinstance(config, dict)
            else f"it is a {type(config).__name__}, not an object"
        )
        msg = f"{path}: not the configuration of a model ({what}); copy the model folder again"
        raise CheckpointError(msg)
    number = config.get("format")
    sampling = config["autoencoder"].get("sampling", {})
    if number == 1 and number is not True and isinstance(sampling, dict):
        _upgrade_sampling(sampling, path)
    elif number not in (1, FORMAT_VERSION) or number is True:
        msg = f"{path}: format {number!r}, this version reads 1 and {FORMAT_VERSION}; install a matching ldae"
        raise CheckpointError(msg)
    if kept := drop_removed(config["autoencoder"]):
        msg = (
            f"{path}: this semantic encoder reads latents ({', '.join(kept)}), which is no longer offered; train the model "
            "again, or use it with the version that made it"
        )
        raise CheckpointError(msg)
    return config


def _upgrade_sampling(sampling: dict[str, Any], path: Path) -> None:
    """Take the settings of format 1 that format 2 lacks out of a sampling configuration, if its solver is still there."""
    solver, reuse = sampling.get("solver", "bdia"), sampling.pop("reuse", 1)
    if solver not in ("bdia", "ddim") or reuse != 1:
        msg = (
            f"{path}: sampling by solver {solver!r} with reuse {reuse} is no longer offered; set solver to 'bdia' and reuse "
            "to 1 in that file, and encode again"
        )
        raise CheckpointError(msg)
