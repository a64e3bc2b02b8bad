"""Codes in files: semantic codes of many scans in one, and noise codes, each as large as a latent, in one a scan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from ldae.codes import Codes
from ldae.grid import Grid
from ldae.io.checkpoints import load_tensors, save_tensors

__all__ = ["FiledCodes", "keep_noise", "semantic_codes", "semantic_tensors"]


def semantic_tensors(codes: Sequence[Codes]) -> dict[str, Tensor]:
    """Codes of scans in template space without noise codes, as tensors whose rows are the scans."""
    if not codes:
        return {}
    distances = [np.nan if each.domain_distance is None else each.domain_distance for each in codes]
    return {
        "semantic": torch.stack([each.semantic for each in codes]),
        "shape": torch.tensor([each.grid.shape for each in codes]),
        "affine": torch.from_numpy(np.stack([each.grid.affine for each in codes])),
        "window": torch.tensor([each.window for each in codes], dtype=torch.float64),
        "domain_distance": torch.tensor(distances, dtype=torch.float64),
    }


def semantic_codes(tensors: Mapping[str, Tensor]) -> list[Codes]:
    """The codes that :func:`semantic_tensors` was given."""
    if not tensors:
        return []
    names = ("semantic", "shape", "affine", "window", "domain_distance")
    return [
        Codes(
            semantic.clone(),
            None,
            Grid(tuple(shape.tolist()), affine.numpy()),
            (float(window[0]), float(window[1])),
            domain_distance=None if distance.isnan() else float(distance),
        )
        for semantic, shape, affine, window, distance in zip(*(tensors[name] for name in names), strict=True)
    ]


def keep_noise(codes: Codes, path: Path) -> None:
    """Write the noise code of a scan, with what its solver recorded and the error of the round trip."""
    error = None if codes.round_trip is None else torch.tensor(codes.round_trip)
    tensors = {"noise": codes.noise, "record": codes.record, "round_trip": error}
    known = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_tensors(path, known, {"solver": codes.solver})


class FiledCodes(Sequence[Codes]):
    """Codes whose noise codes are read from a file each time that a scan's codes are taken.

    Args:
        codes: of each scan, without noise codes.
        paths: of the noise codes, as :func:`keep_noise` wrote them.
        source: of the scans, whose temporary files go with it.
    """

    def __init__(self, codes: Sequence[Codes], paths: Sequence[Path], source: object) -> None:
        self.codes, self.paths, self.source = codes, paths, source

    def select(self, rows: Sequence[int]) -> "FiledCodes":
        """Some of the scans, in the same files."""
        return FiledCodes([self.codes[row] for row in rows], [self.paths[row] for row in rows], self.source)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> Codes: ...

    @overload
    def __getitem__(self, index: slice) -> "FiledCodes": ...

    def __getitem__(self, index: int | slice) -> "Codes | FiledCodes":
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        tensors, metadata = load_tensors(self.paths[index])
        error = tensors.get("round_trip")
        return replace(
            self.codes[index],
            noise=tensors["noise"],
            record=tensors.get("record"),
            solver=metadata["solver"],
            round_trip=None if error is None else float(error),
        )
