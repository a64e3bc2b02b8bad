"""Noise codes of many scans in a temporary file: each is as large as a latent, so that a cohort's do not fit into memory."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import IO, overload

from safetensors.torch import load, save

from ldae.codes import Codes

__all__ = ["FiledCodes"]


class FiledCodes(Sequence[Codes]):
    """Codes whose noise codes are read from a file each time that a scan's codes are taken; made by :meth:`write`.

    Args:
        codes: of each scan, without noise codes.
        places: start and length in the file, in bytes, of each scan's noise code and record.
        file: temporary; the system removes it.
    """

    def __init__(self, codes: Sequence[Codes], places: Sequence[tuple[int, int]], file: IO[bytes]) -> None:
        self.codes, self.places, self.file = codes, places, file

    @classmethod
    def write(cls, codes: Iterable[Codes]) -> "FiledCodes":
        """Keep noise codes in a file, and everything else in memory."""
        file: IO[bytes] = tempfile.TemporaryFile(prefix="ldae-")  # noqa: SIM115 (open as long as the codes are)
        without_noise, places = [], []
        for each in codes:
            tensors = {"noise": each.noise, "record": each.record}
            data = save({name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None})
            places.append((file.tell(), len(data)))
            file.write(data)
            without_noise.append(replace(each, noise=None, record=None))
        return cls(without_noise, places, file)

    def select(self, rows: Sequence[int]) -> "FiledCodes":
        """Some of the scans, in the same file."""
        return FiledCodes([self.codes[row] for row in rows], [self.places[row] for row in rows], self.file)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> Codes: ...

    @overload
    def __getitem__(self, index: slice) -> "FiledCodes": ...

    def __getitem__(self, index: int | slice) -> "Codes | FiledCodes":
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        start, length = self.places[index]
        self.file.seek(start)
        tensors = load(self.file.read(length))
        return replace(self.codes[index], noise=tensors.get("noise"), record=tensors.get("record"))
