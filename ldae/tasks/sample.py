"""Sample: images from drawn noise codes, under a semantic code or under none."""

from collections.abc import Iterator

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
) -> Iterator[npt.NDArray[np.float32]]:
    """Images one by one, each (D, H, W) in [0, 1]; the same seed gives the same images whatever the batch size.

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
    return (
        image
        for part in torch.split(noise, batch_size)
        for image in model.generate(part, None if semantic is None else semantic.expand(len(part), -1))
    )
