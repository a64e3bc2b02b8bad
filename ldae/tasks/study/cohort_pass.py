"""The one pass of a study over all images: codes, the mean image, and what baselines need to have seen."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.ranks import gather, gather_dealt, own_part
from ldae.codes import Codes
from ldae.data.manifest import Manifest
from ldae.io.checkpoints import load_tensors, save_tensors
from ldae.tasks.code_files import semantic_codes, semantic_tensors
from ldae.tasks.encode import encode_scans
from ldae.tasks.encoded_scans import EncodedScans, Progress, ScanBatch, ScanSource
from ldae.tasks.probe.baselines import RandomEncoder, SimpleFeatures, compress_sides

__all__ = ["CohortPass"]

Images = npt.NDArray[np.float32]
BATCH = 16
UNIT = 2.0**32
"""By which intensities are whole numbers, to all the digits that they have."""


class _MeanImage:
    """Voxelwise mean of the training scans, a batch at a time, in whole numbers: in any order the sum is the same."""

    def __init__(self) -> None:
        self.sum = np.zeros((), np.int64)

    def see(self, batch: ScanBatch) -> None:
        for image, record in zip(batch.images, batch.records, strict=True):
            if record.split == "train":
                self.sum = self.sum + np.rint(image.astype(np.float64) * UNIT).astype(np.int64)

    def mean(self, count: int) -> Images:
        return (sum(gather(self.sum), np.zeros(())) / (count * UNIT)).astype(np.float32)


@dataclass(frozen=True)
class CohortPass:
    """What a pass over a cohort's images gives.

    Attributes:
        scans: with their semantic codes.
        mean_image: of the training scans, (D, H, W).
        random: the encoder with random weights, which saw all scans.
        simple: the features that need no model, which saw them too.
    """

    scans: EncodedScans
    mean_image: Images
    random: RandomEncoder
    simple: SimpleFeatures

    @classmethod
    def make(
        cls, model: LatentDiffusionAutoencoder, manifest: Manifest, cache: Path, *, seed: int, progress: Progress
    ) -> "CohortPass":
        """Encode a cohort; processes that have joined share its batches, and all get the whole.

        Args:
            model: the trained model.
            manifest: of the scans.
            cache: folder that keeps latents.
            seed: of the random weights.
            progress: called with (done, total).
        """
        mean, random = _MeanImage(), RandomEncoder(model, seed)
        simple = SimpleFeatures(model.config.preprocessing.voxel_size_mm)
        visit = [mean.see, random.see, simple.see, compress_sides]
        records, source, codes = tuple(manifest.records), ScanSource(model, cache), list[Codes]()
        if mine := own_part().choose_batches(records, BATCH):
            scans = encode_scans(model, mine, batch_size=BATCH, cache=cache, visit=visit, progress=progress)
            scans.source.flush()
            codes += scans.codes
        shared = gather_dealt([codes[start : start + BATCH] for start in range(0, len(codes), BATCH)])
        random.records = simple.records = list(records)
        random.values = gather_dealt(random.values)
        simple.values = {name: gather_dealt(rows) for name, rows in simple.values.items()}
        training = sum(record.split == "train" for record in records)
        return cls(EncodedScans(records, list(chain(*shared)), source), mean.mean(training), random, simple)

    def save(self, path: Path) -> Path:
        """Write it as safetensors, without images and latents."""
        tensors = semantic_tensors(self.scans.codes) | {
            "mean_image": torch.from_numpy(self.mean_image),
            "random": torch.cat(self.random.values),
        }
        simple = {f"simple.{name}": torch.cat(rows) for name, rows in self.simple.values.items()}
        return save_tensors(path, tensors | simple)

    @classmethod
    def load(
        cls, path: Path, model: LatentDiffusionAutoencoder, manifest: Manifest, cache: Path, *, seed: int
    ) -> "CohortPass":
        """Read what :meth:`save` wrote; the other arguments are those of :meth:`make`.

        Raises:
            CheckpointError: if there is no such file, or it is damaged.
        """
        tensors, _ = load_tensors(path)
        records = tuple(manifest.records)
        random, simple = RandomEncoder(model, seed), SimpleFeatures(model.config.preprocessing.voxel_size_mm)
        random.records = simple.records = list(records)
        random.values = [tensors["random"]]
        simple.values = {name: [tensors[f"simple.{name}"]] for name in simple.values}
        scans = EncodedScans(records, semantic_codes(tensors), ScanSource(model, cache))
        return cls(scans, tensors["mean_image"].numpy(), random, simple)
