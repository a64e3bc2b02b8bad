"""Tensors of a model in a small file: large ones in half precision, without rows that are 0."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["pack", "unpack"]

HALF_FROM = 1 << 14
"""Elements of a tensor from which on it is kept in half precision."""
ROWS = ":rows"
FEWEST_ZERO_ROWS = 0.1
"""Share of rows that have to be 0 for them to be left out."""


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for a small file. Where rows are left out, `NAME:rows` says which were kept, one boolean a row."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.numel() < HALF_FROM or not tensor.is_floating_point():
            packed[name] = tensor
            continue
        rows = tensor.reshape(len(tensor), -1).any(dim=1)
        if (~rows).float().mean() >= FEWEST_ZERO_ROWS:
            packed[name + ROWS], tensor = rows, tensor[rows]
        packed[name] = tensor.half()
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that :func:`pack` was given, in single precision; others as they are."""
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(ROWS):
            continue
        tensor = tensor.float() if tensor.dtype == torch.float16 else tensor
        if name + ROWS in tensors:
            rows = tensors[name + ROWS]
            whole[name] = tensor.new_zeros(len(rows), *tensor.shape[1:])
            whole[name][rows] = tensor
        else:
            whole[name] = tensor
    return whole
