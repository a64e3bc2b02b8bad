"""Agreement of two images: SSIM, MSE, PSNR, over the whole grid as published and inside the brain."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

__all__ = ["ImageAgreement", "compare_images"]

Images = npt.NDArray[np.float32]

WINDOW_VOXELS, RADIUS_VOXELS = 1.5, 5
LUMINANCE, CONTRAST = 0.01**2, 0.03**2
"""What keeps SSIM's quotients finite, for images in [0, 1] (Wang et al. 2004)."""


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

    SSIM (Wang et al. 2004) has a Gaussian window of 1.5 voxels. TorchMetrics gives the same, but filters along all axes at once,
    which takes 27 times as long.
    """
    with ThreadPoolExecutor() as threads:  # the filters let go of the interpreter
        maps = np.stack(list(threads.map(lambda pair: _ssim_map(*pair), zip(images, references, strict=True))))
    mse = np.square(images.astype(np.float64) - references).reshape(len(images), -1).mean(axis=1)
    return ImageAgreement(
        ssim=maps.reshape(len(maps), -1).mean(axis=1, dtype=np.float64),
        ssim_brain=np.array([each[brain].mean() for each, brain in zip(maps, references > 0, strict=True)], np.float64),
        mse=mse,
        psnr=-10.0 * np.log10(np.maximum(mse, 1e-12)),
    )


def _ssim_map(image: Images, reference: Images) -> Images:
    """Structural similarity around each voxel, (D, H, W)."""

    def local(values: Images) -> Images:
        found: Images = gaussian_filter(values, WINDOW_VOXELS, mode="mirror", radius=RADIUS_VOXELS)
        return found

    a, b = local(image), local(reference)
    squares = a**2 + b**2
    spread = local(image**2 + reference**2) - squares
    shared = local(image * reference) - a * b
    likeness = (2 * a * b + LUMINANCE) * (2 * shared + CONTRAST) / ((squares + LUMINANCE) * (spread + CONTRAST))
    return np.asarray(likeness, dtype=np.float32)
