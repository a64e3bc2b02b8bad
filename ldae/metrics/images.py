"""Agreement of two images: SSIM, MSE, PSNR, over the whole grid as published and inside the brain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["ImageAgreement", "compare_images"]

Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageAgreement:
    """Agreement of pairs of images, one value a pair.

    Attributes:
        ssim: structural similarity over the whole grid, (N,).
        ssim_brain: its mean inside the brain of the reference, (N,), without the background.
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


def compare_images(images: Images, references: Images) -> ImageAgreement:
    """All metrics of pairs of 3D images in [0, 1], each (N, D, H, W); the brain is where the reference is above 0.

    SSIM (Wang et al. 2004) has a Gaussian window of 1.5 voxels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    ssim, maps = structural_similarity_index_measure(
        torch.from_numpy(np.ascontiguousarray(images))[:, None],
        torch.from_numpy(np.ascontiguousarray(references))[:, None],
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    pairs = zip(maps[:, 0].numpy(), references > 0, strict=True)
    mse = np.square(images.astype(np.float64) - references).reshape(len(images), -1).mean(axis=1)
    return ImageAgreement(
        ssim=ssim.numpy().astype(np.float64),
        ssim_brain=np.array([values[brain].mean() for values, brain in pairs], dtype=np.float64),
        mse=mse,
        psnr=-10.0 * np.log10(np.maximum(mse, 1e-12)),
    )
