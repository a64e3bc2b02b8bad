"""Safetensors written one tensor at a time, so that a model of any size needs the memory of its largest tensor."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

__all__ = ["stream_tensors"]

BYTES = 4  # of a float32


def stream_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor]) -> str:
    """Write float32 tensors, each made only when its turn comes.

    Args:
        path: of the file, which must not exist yet.
        shapes: of every tensor by name, in the order of the file.
        read: gives a tensor by name: float32, contiguous, on the CPU, of the shape announced.

    Returns:
        Hexadecimal SHA-256 of the file's content.
    """
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + BYTES * math.prod(shape)
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
