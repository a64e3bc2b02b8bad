"""Baselines of a semantic code: the same encoder with random weights, and principal components of what it was to describe."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.contract import LEFT_RIGHT
from ldae.data.manifest import Record
from ldae.models.whitening import Whitening
from ldae.tasks.encode import EncodedScans, Progress, encode_scans
from ldae.tasks.probe.embeddings import Embeddings, embeddings_of, write_arrays, write_embeddings

__all__ = ["COMPONENTS", "latent_components", "random_encoder", "write_baselines"]

COMPONENTS = 100


def random_encoder(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, *, seed: int = 0, batch_size: int = 32
) -> Embeddings:
    """y of the same encoder with random weights, whitened over the training scans as the model's own codes are.

    Where none of the scans is of the training split, all of them take its place, which favours the baseline.

    Args:
        model: whose encoder.
        scans: that were encoded.
        seed: of the weights.
        batch_size: scans at a time.
    """
    twin = model.with_random_encoder(seed)
    images, latents = (torch.split(torch.from_numpy(each), batch_size) for each in (scans.images, scans.latents))
    parts = [twin.semantic(batch[:, None], latent).numpy() for batch, latent in zip(images, latents, strict=True)]
    values = torch.from_numpy(np.concatenate(parts))
    degree = model.config.semantic_encoder.whitening
    if degree:
        training = torch.tensor([record.split == "train" for record in scans.records])
        whitening = Whitening(values.shape[1])
        whitening.fit(values[training] if training.any() else values, degree)
        values = whitening(values)
    return embeddings_of(scans.records, values.numpy())


def latent_components(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, components: int = COMPONENTS, *, batch_size: int = 32
) -> dict[str, Embeddings]:
    """Compressed scans, to be reduced to principal components on a probe's fitting subjects.

    Args:
        model: that encoded the scans.
        scans: that were encoded.
        components: at most.
        batch_size: scans at a time.

    Returns:
        `latent_pca`; for an encoder that reads both sides of a head as one also `latent_pca_symmetric`, the means of compressed
        scans and their compressed mirror images: what components tell that are given the same.
    """
    read = {"latent_pca": scans.latents}
    if model.networks.semantic_encoder.reads_mirrored_latent:
        batches = torch.split(torch.from_numpy(scans.images)[:, None], batch_size)
        mirrored = torch.cat([model.compress(batch.flip(LEFT_RIGHT)) for batch in batches]).numpy()
        read["latent_pca_symmetric"] = (scans.latents + mirrored) / 2
    flat = {name: embeddings_of(scans.records, values.reshape(len(scans), -1)) for name, values in read.items()}
    return {name: Embeddings(each.keys, each.values, components) for name, each in flat.items()}


def write_baselines(
    model: LatentDiffusionAutoencoder,
    records: Sequence[Record],
    out: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write random_encoder.parquet, and as NPZ the compressed scans, whose components a probe takes in each fold.

    Args:
        model: whose encoder and compression.
        records: of the scans.
        out: folder.
        seed: of the random weights.
        progress: told (done, total).
    """
    scans = encode_scans(model, records, progress=progress)
    codes = write_embeddings(out / "random_encoder.parquet", records, random_encoder(model, scans, seed=seed).values)
    latents = latent_components(model, scans)
    return codes, *(write_arrays(out / f"{name}.npz", records, each.values) for name, each in latents.items())
