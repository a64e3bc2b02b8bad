"""Baselines of a semantic code: the same encoder with random weights, and what needs no encoder at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.contract import LEFT_RIGHT
from ldae.data.manifest import Record
from ldae.models.tissue_maps import TissueMaps
from ldae.models.whitening import Whitening
from ldae.tasks.encode import encode_scans
from ldae.tasks.encoded_scans import EncodedScans, Progress, ScanBatch, ScanSource
from ldae.tasks.probe.embeddings import Embeddings, embeddings_of, write_arrays, write_embeddings

__all__ = ["COMPONENTS", "RandomEncoder", "SimpleFeatures", "compress_sides", "latent_components", "write_baselines"]

COMPONENTS = 100
AVERAGE_MM, BLOCK_MM = 12.0, 40.0
"""Edges of what is averaged: finer detail is noise and misalignment to a linear probe, coarser loses the hippocampi."""
LEAST_SPREAD = 1e-3
"""Standard deviation of a block's mean tissue below which it is left out."""
BLOCK = 256
"""Scans whose latents are read at a time."""


class RandomEncoder:
    """y of the same encoder with random weights, whitened over the training scans as the model's own codes are."""

    def __init__(self, model: LatentDiffusionAutoencoder, seed: int = 0) -> None:
        self.twin = model.with_random_encoder(seed)
        self.records: list[Record] = []
        self.values: list[Tensor] = []

    def see(self, batch: ScanBatch) -> None:
        """Encode a batch."""
        self.records += batch.records
        self.values.append(self.twin.semantic(torch.from_numpy(batch.images)[:, None]))

    def embeddings(self) -> Embeddings:
        """Codes of all scans seen. Where none is of the training split, all take its place, which favours the baseline."""
        values = torch.cat(self.values)
        config = self.twin.config.semantic_encoder
        if config.whitening:
            whitening, training = Whitening(values.shape[1]), _training(self.records)
            subjects = [record.participant_id for record, each in zip(self.records, training, strict=True) if each]
            whitening.fit(values[training], config.whitening, subjects if config.whitening_of == "within" else None)
            values = whitening(values)
        return embeddings_of(self.records, values.numpy())


def _training(records: Sequence[Record]) -> Tensor:
    """Which scans are of the training split, (N,); all where none is."""
    training = torch.tensor([record.split == "train" for record in records])
    return training if training.any() else ~training


class SimpleFeatures:
    """What anyone can compute of aligned scans without a model: averages of intensities and of tissue maps, both sides as one."""

    def __init__(self, voxel_size_mm: float) -> None:
        self.fine, self.coarse = (max(1, round(edge / voxel_size_mm)) for edge in (AVERAGE_MM, BLOCK_MM))
        self.maps = TissueMaps()
        self.records: list[Record] = []
        self.values: dict[str, list[Tensor]] = {"tissue_blocks": [], "image_pca": [], "tissue_pca": []}

    def see(self, batch: ScanBatch) -> None:
        """Average a batch; kept in half precision, 15 kB a scan at most."""
        self.records += batch.records
        scans = torch.from_numpy(batch.images)[:, None]
        images, maps = _one_side(scans), _one_side(self.maps(scans))
        self.values["tissue_blocks"].append(_averaged(maps, self.coarse))
        self.values["image_pca"].append(_averaged(images, self.fine))
        self.values["tissue_pca"].append(_averaged(maps, self.fine))

    def tissue_blocks(self, images: npt.NDArray[np.float32]) -> Tensor:
        """The same mean tissue of a batch of images that no manifest names, (B, D, H, W) to (B, S)."""
        blocks = _averaged(_one_side(self.maps(torch.from_numpy(images)[:, None])), self.coarse)
        return blocks[:, self._varied_blocks()]

    def _varied_blocks(self) -> Tensor:
        """Blocks that vary between training scans, all if none does: standardised, one voxel of a rim block would decide."""
        blocks = torch.cat(self.values["tissue_blocks"])[_training(self.records)].float()
        varied = blocks.std(dim=0, correction=0) > LEAST_SPREAD
        return varied if varied.any() else ~varied

    def embeddings(self) -> dict[str, Embeddings]:
        """Features of all scans seen, by name; those that are many are to be reduced to principal components by a probe."""
        values = {name: torch.cat(rows) for name, rows in self.values.items()}
        values["tissue_blocks"] = values["tissue_blocks"][:, self._varied_blocks()]
        return {
            name: embeddings_of(self.records, rows.numpy(), components=COMPONENTS if name.endswith("_pca") else None)
            for name, rows in values.items()
        }


def _averaged(volume: Tensor, factor: int) -> Tensor:
    """Averages over cubes, (B, C, D, H, W) to (B, S) in half precision."""
    return avg_pool3d(volume, [min(factor, n) for n in volume.shape[2:]], ceil_mode=True).flatten(1).half()


def compress_sides(batch: ScanBatch) -> None:
    """Keep the latents that :func:`latent_components` compares with, so that it reads no image again."""
    for mirrored in _kinds(batch.source).values():
        batch.source.latents(batch.records, batch.images, mirrored=mirrored)


def latent_components(scans: EncodedScans) -> dict[str, Embeddings]:
    """Latents, to be reduced to principal components on a probe's training subjects.

    The rows are coordinates in the space that the latents of these scans span, from their Gram matrix. Distances are those of
    the latents, so principal components of any subset are too; no latent stays in memory.

    Returns:
        `latent_pca`; for a left-right symmetric encoder also `latent_pca_symmetric`, of the means of latents and mirrored
        latents.
    """
    return {
        name: embeddings_of(scans.records, _coordinates(scans, mirrored=mirrored), components=COMPONENTS)
        for name, mirrored in _kinds(scans.source).items()
    }


def write_baselines(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    out: Path,
    *,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> tuple[Path, ...]:
    """Write each baseline: tables of features as Parquet, and as NPZ those whose components a probe takes in each fold.

    The seed is that of the random weights.
    """
    random, simple = RandomEncoder(model, seed), SimpleFeatures(model.config.preprocessing.voxel_size_mm)
    scans = encode_scans(model, records, visit=[random.see, simple.see, compress_sides], progress=progress)
    tables = {"random_encoder": random.embeddings(), **simple.embeddings()}
    written = [
        write_embeddings(out / f"{name}.parquet", records, each.values)
        if each.components is None
        else write_arrays(out / f"{name}.npz", records, each.values)
        for name, each in tables.items()
    ]
    for name, mirrored in _kinds(scans.source).items():
        latents = np.concatenate([_latents(batch, mirrored=mirrored) for batch in scans.batches(BLOCK)])
        written.append(write_arrays(out / f"{name}.npz", records, latents))
    return tuple(written)


def _one_side(volumes: Tensor) -> Tensor:
    """One side of the mean of volumes and their mirror images, (B, C, D, H, W) to (B, C, D / 2, H, W), rounded up."""
    both = (volumes + volumes.flip(LEFT_RIGHT)) / 2
    return both[:, :, : (both.shape[LEFT_RIGHT] + 1) // 2]


def _kinds(source: ScanSource) -> dict[str, bool]:
    """Names of the latents that are compared with, and whether they are averaged with their mirror images."""
    symmetric = source.model.networks.semantic_encoder.symmetric
    return {"latent_pca": False} | ({"latent_pca_symmetric": True} if symmetric else {})


def _latents(batch: EncodedScans, *, mirrored: bool) -> npt.NDArray[np.float32]:
    """Latents as rows, (B, D), averaged with those of the mirror images if `mirrored`."""
    latents = batch.latents()
    if mirrored:
        latents = (latents + batch.source.latents(batch.records, mirrored=True)) / 2
    return np.asarray(latents.flatten(1).numpy())


def _coordinates(scans: EncodedScans, *, mirrored: bool) -> npt.NDArray[np.float64]:
    """Coordinates of the latents in the space that they span about their mean, (N, rank)."""
    parts = list(scans.batches(BLOCK))
    gram = np.empty((len(scans), len(scans)))
    for i, first in enumerate(parts):
        rows = _latents(first, mirrored=mirrored).astype(np.float64)
        for j, second in enumerate(parts[: i + 1]):
            others = rows if i == j else _latents(second, mirrored=mirrored).astype(np.float64)
            block = rows @ others.T
            at = (slice(i * BLOCK, i * BLOCK + len(rows)), slice(j * BLOCK, j * BLOCK + len(others)))
            gram[at], gram[at[::-1]] = block, block.T
    mean = gram.mean(axis=0)
    variance, axes = np.linalg.eigh(gram - mean - mean[:, None] + mean.mean())
    kept = variance > variance.max(initial=0.0) * len(gram) * np.finfo(np.float64).eps
    return axes[:, kept] * np.sqrt(variance[kept])
