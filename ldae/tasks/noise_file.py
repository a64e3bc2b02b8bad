"""Noise codes of many scans in files: each is as large as a latent, so that a cohort's do not fit into memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import torch

from ldae.codes import Codes
from ldae.io.checkpoints import load_tensors, save_tensors

__all__ = ["FiledCodes", "keep_noise"]


def keep_noise(codes: Codes, path: Path) -> None:
    """Write the noise code of a scan, with what its solver recorded and the error of the round trip."""
    error = None if codes.round_trip is None else torch.tensor(codes.round_trip)
    tensors = {"noise": codes.noise, "record": codes.record, "round_trip": error}
    save_tensors(path, {name: tensor for name, tensor in tensors.items() if tensor is not None})


class FiledCodes(Sequence[Codes]):
    """Codes whose noise codes are read from a file each time that a scan's codes are taken.

    Args:
        codes: of each scan, without noise codes.
        paths: of the noise codes, as :func:`keep_noise` wrote them.
        solver: that found them, by name and settings.
    """

    def __init__(self, codes: Sequence[Codes], paths: Sequence[Path], solver: str) -> None:
        self.codes, self.paths, self.solver = codes, paths, solver

    def select(self, rows: Sequence[int]) -> "FiledCodes":
        """Some of the scans, in the same files."""
        return FiledCodes([self.codes[row] for row in rows], [self.paths[row] for row in rows], self.solver)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> Codes: ...

    @overload
    def __getitem__(self, index: slice) -> "FiledCodes": ...

    def __getitem__(self, index: int | slice) -> "Codes | FiledCodes":
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        tensors, _ = load_tensors(self.paths[index])
        error = tensors.get("round_trip")
        return replace(
            self.codes[index],
            noise=tensors["noise"],
            record=tensors.get("record"),
            solver=self.solver,
            round_trip=None if error is None else float(error),
        )
