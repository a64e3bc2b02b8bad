"""Agreement of two images: SSIM, MSE, PSNR, over the whole grid as published and inside the brain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["ImageAgreement", "compare_images", "mean_squared_error", "structural_similarity"]

Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageAgreement:
    """Agreement of pairs of images, one value a pair.

    Attributes:
        ssim: structural similarity over the whole grid, (N,).
        ssim_brain: its mean inside the brain of the reference, (N,); the background does not flatter it.
        mse: mean squared error over the whole grid, (N,).
        psnr: peak signal-to-noise ratio in dB for a range of 1, (N,).
    """

    ssim: npt.NDArray[np.float64]
    ssim_brain: npt.NDArray[np.float64]
    mse: npt.NDArray[np.float64]
    psnr: npt.NDArray[np.float64]

    @classmethod
    def concatenate(cls, parts: Sequence["ImageAgreement"]) -> "ImageAgreement":
        """Pairs of several batches, in order."""
        return cls(**{name: np.concatenate([getattr(each, name) for each in parts]) for name in cls.__annotations__})

    def mean(self) -> dict[str, float]:
        """Mean of each over the pairs."""
        return {name: float(np.mean(getattr(self, name))) for name in self.__dataclass_fields__}


def structural_similarity(images: Images, references: Images) -> tuple[npt.NDArray[np.float64], Images]:
    """SSIM (Wang et al. 2004) of 3D images in [0, 1] with a Gaussian window of 1.5 voxels.

    Args:
        images: (N, D, H, W).
        references: the same shape.

    Returns:
        The mean over the grid, (N,), and the map, (N, D, H, W).
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    values, maps = structural_similarity_index_measure(
        torch.from_numpy(np.ascontiguousarray(images))[:, None],
        torch.from_numpy(np.ascontiguousarray(references))[:, None],
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    return values.numpy().astype(np.float64), maps[:, 0].numpy()


def mean_squared_error(images: Images, references: Images) -> npt.NDArray[np.float64]:
    """Mean squared error of each pair, (N,)."""
    difference = images.astype(np.float64) - references
    return np.square(difference).reshape(len(images), -1).mean(axis=1)


def compare_images(images: Images, references: Images) -> ImageAgreement:
    """All metrics of pairs of images in [0, 1], each (N, D, H, W); the brain is where the reference is above 0."""
    ssim, maps = structural_similarity(images, references)
    brain = references > 0
    mse = mean_squared_error(images, references)
    return ImageAgreement(
        ssim=ssim,
        ssim_brain=np.array([m[b].mean() for m, b in zip(maps, brain, strict=True)], dtype=np.float64),
        mse=mse,
        psnr=-10.0 * np.log10(np.maximum(mse, 1e-12)),
    )
