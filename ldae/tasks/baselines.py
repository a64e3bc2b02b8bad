"""Baselines of a semantic code: the same encoder untrained, and principal components of what it was to describe."""

import numpy as np
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.tasks.embeddings import Embeddings, embeddings_of
from ldae.tasks.encode import EncodedScans

__all__ = ["latent_components", "random_encoder"]

COMPONENTS = 100


def random_encoder(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, *, seed: int = 0, batch_size: int = 32
) -> Embeddings:
    """y of the same encoder with the weights it had before training.

    Args:
        model: whose encoder.
        scans: that were encoded.
        seed: of the weights.
        batch_size: scans at a time.
    """
    twin = model.with_random_encoder(seed)
    parts = [twin.semantic(batch[:, None]).numpy() for batch in torch.split(torch.from_numpy(scans.images), batch_size)]
    return embeddings_of(scans.records, np.concatenate(parts))


def latent_components(scans: EncodedScans, components: int = COMPONENTS) -> Embeddings:
    """Compressed scans, to be reduced to principal components on a probe's fitting subjects.

    Args:
        scans: that were encoded.
        components: at most.
    """
    flat = embeddings_of(scans.records, scans.latents.reshape(len(scans), -1))
    return Embeddings(flat.keys, flat.values, components)
