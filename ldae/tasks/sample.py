"""Sample: images from drawn noise codes, under a semantic code or under none."""

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.errors import TaskError

__all__ = ["sample"]


def sample(
    model: LatentDiffusionAutoencoder,
    count: int,
    *,
    seed: int,
    semantic: torch.Tensor | None = None,
    batch_size: int = 16,
) -> npt.NDArray[np.float32]:
    """Draw images, (count, D, H, W) in [0, 1]; the same seed gives the same images whatever the batch size.

    Args:
        model: the trained model.
        count: number of images.
        seed: of the noise codes.
        semantic: y, (S,), shared by all images: variations of one scan. None samples the denoiser alone.
        batch_size: images at a time.

    Raises:
        TaskError: if the count is not positive.
    """
    if count < 1:
        msg = f"the number of samples must be at least 1, got {count}"
        raise TaskError(msg)
    noise = model.draw_noise(count, torch.Generator().manual_seed(seed))
    y = None if semantic is None else semantic.expand(count, -1)
    parts = [
        model.generate(noise[start : start + batch_size], None if y is None else y[start : start + batch_size])
        for start in range(0, count, batch_size)
    ]
    return np.concatenate(parts)
