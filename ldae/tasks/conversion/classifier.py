"""A published linear classifier of codes as a probe, so that published edits can be repeated."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.errors import CheckpointError
from ldae.io.weights_file import read_weights_file
from ldae.tasks.probe.linear import LinearProbe

__all__ = ["convert_classifier"]


def convert_classifier(classifier: Path, mean: Path, std: Path, model: LatentDiffusionAutoencoder) -> LinearProbe:
    """A published linear classifier of standardised codes as a probe; a step of an edit is 1 along its unit direction.

    Args:
        classifier: weight (1, S) and perhaps bias (1,) of a linear layer; averaged ones are taken before plain ones.
        mean: of the codes that it was trained on, S numbers.
        std: their standard deviation.
        model: the converted model, whose codes it reads.

    Raises:
        CheckpointError: if a file cannot be read, or does not hold what it should.
    """
    tensors = read_weights_file(classifier).tensors
    linear = [name for name, each in tensors.items() if name.endswith("weight") and each.ndim == 2 and len(each) == 1]
    averaged = [name for name in linear if "ema" in name]
    chosen = averaged or linear
    if len(chosen) != 1:
        msg = (
            f"{classifier}: one linear layer with one output is expected, weight (1, S), found {len(chosen)} among "
            f"{len(tensors)} tensors; give the file of a binary linear classifier alone"
        )
        raise CheckpointError(msg)
    width = model.config.semantic_encoder.semantic_width
    weights, bias = tensors[chosen[0]], tensors.get(chosen[0].removesuffix("weight") + "bias", torch.zeros(1))
    scale = _vector(std, _single(std), width)
    if not (scale > 0).all():
        msg = f"{std}: standard deviations must be above 0, got {scale.min():g}; check that it is not the file of the means"
        raise CheckpointError(msg)
    return LinearProbe(
        mean=_vector(mean, _single(mean), width),
        scale=scale,
        weights=_vector(classifier, weights, width),
        intercept=float(_vector(classifier, bias, 1)[0]),
        spread=1.0,
        logistic=True,
        origin=model.origin,
    )


def _single(path: Path) -> Tensor:
    tensors = read_weights_file(path).tensors
    if len(tensors) != 1:
        msg = f"{path}: holds {len(tensors)} tensors, and one is expected, the mean or the standard deviation of codes"
        raise CheckpointError(msg)
    return next(iter(tensors.values()))


def _vector(path: Path, tensor: Tensor, size: int) -> npt.NDArray[np.float64]:
    """So many finite numbers."""
    if tensor.numel() != size or not tensor.isfinite().all():
        msg = f"{path}: {size} finite numbers are expected, got a tensor {tuple(tensor.shape)}; give the files of one model"
        raise CheckpointError(msg)
    return tensor.double().flatten().numpy()
