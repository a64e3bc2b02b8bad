"""A batch of scans while a manifest is encoded, kept in a file that an interrupted run and other parts leave behind."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ldae.codes import Codes
from ldae.contract import PreparedScan
from ldae.data.manifest import Record
from ldae.errors import CheckpointError, TaskError, VolumeError
from ldae.head.intake import contract_problem
from ldae.io.checkpoints import load_tensors, save_tensors
from ldae.tasks.code_files import semantic_codes, semantic_tensors
from ldae.tasks.encoded_scans import ScanBatch, ScanSource
from ldae.volume import read_volume

__all__ = ["EncodedBatch"]


@dataclass(frozen=True)
class EncodedBatch:
    """Codes of a batch.

    Attributes:
        codes: of the scans, without those that failed.
        failures: reason of each scan that could not be encoded, by key.
        forced: reason of each scan that was encoded against it.
    """

    codes: list[Codes]
    failures: dict[str, str]
    forced: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "EncodedBatch | None":
        """What :meth:`write` wrote; None where there is no whole file."""
        try:
            tensors, metadata = load_tensors(path)
            return cls(semantic_codes(tensors), **json.loads(metadata["notes"]))
        except (CheckpointError, KeyError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        notes = {"failures": self.failures, "forced": self.forced}
        save_tensors(path, semantic_tensors(self.codes), {"notes": json.dumps(notes)})

    @classmethod
    def encode(
        cls,
        source: ScanSource,
        records: Sequence[Record],
        visit: Sequence[Callable[[ScanBatch], None]],
        *,
        examine: bool,
        force: bool,
    ) -> "EncodedBatch":
        """Encode scans.

        Args:
            source: of their images and latents.
            records: of the scans.
            visit: called with the batch.
            examine: leave out, with its reason, what cannot be read or is no brain in template space; else that is an error.
            force: encode, with its reason, what is no brain in template space.

        Raises:
            VolumeError: naming the first scan that cannot be read.
            TaskError: if codes are not finite.
        """
        model = source.model
        modality = model.config.preprocessing.modality
        failures: dict[str, str] = {}
        forced: dict[str, str] = {}
        batch: list[tuple[Record, PreparedScan]] = []
        for record in records:
            if not examine:
                batch.append((record, model.prepare_record(record)))
                continue
            try:
                volume = read_volume(record.image)
                if problem := contract_problem(volume, modality):
                    if not force:
                        raise VolumeError(problem)
                    forced[record.key] = problem
                batch.append((record, model.prepare(volume)))
            except VolumeError as error:
                failures[record.key] = str(error)
        if not batch:
            return cls([], failures, forced)
        prepared = [scan for _, scan in batch]
        seen = ScanBatch([record for record, _ in batch], np.stack([scan.data for scan in prepared]), source)
        codes = model.encode_prepared(prepared, noise=False)
        wrong = [r.key for r, each in zip(seen.records, codes, strict=True) if not each.semantic.isfinite().all()]
        if wrong:
            msg = f"the codes of {', '.join(wrong)} are not finite; encode with --precision fp32"
            raise TaskError(msg)
        for see in visit:
            see(seen)
        return cls(codes, failures, forced)
