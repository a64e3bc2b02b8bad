"""Volumes of any size on a network that halves its grid: reversible padding with background."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["crop_to", "pad_to_multiple", "padded_shape"]


def padded_shape(shape: Sequence[int], multiple: int) -> tuple[int, ...]:
    """The smallest shape that holds `shape` and whose axes are multiples of `multiple`, in voxels."""
    return tuple(-(-n // multiple) * multiple for n in shape)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zeros (background) at both ends of each axis, one more behind where the number is odd.

    Args:
        x: volumes, (B, C, D, H, W).
        multiple: what each spatial axis becomes a multiple of; a volume that is one already is returned as it is.
    """
    added = [whole - n for n, whole in zip(x.shape[2:], padded_shape(x.shape[2:], multiple), strict=True)]
    if not any(added):
        return x
    # F.pad wants the last axis first.
    return F.pad(x, [side for n in reversed(added) for side in (n // 2, n - n // 2)])


def crop_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The middle of a padded volume: `crop_to(pad_to_multiple(x, m), x.shape[2:])` is x.

    Args:
        x: volumes, (B, C, D', H', W').
        shape: the volumes' own (D, H, W), no larger.
    """
    for axis, n in enumerate(shape, start=2):
        if x.shape[axis] != n:
            x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x
