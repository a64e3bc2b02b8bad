"""MONAI dictionary transforms: from a manifest's rows to the model's grid and intensities, and light augmentation."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, RandAffined, RandFlipd, RandGaussianNoised, RandScaleIntensityd, Transform

from ldae.base.ranges import checked, not_negative, share, share_below_one
from ldae.contract import Preprocessing, PreprocessingWarning
from ldae.volume import read_volume

__all__ = ["AugmentationConfig", "PrepareScan", "augmentation"]


@dataclass(frozen=True)
@checked
class AugmentationConfig:
    """Light augmentation of prepared scans; 0 turns a part off.

    Attributes:
        flip_probability: of mirroring left and right.
        affine_probability: of a small rotation, translation and scaling together.
        rotation_degrees: largest rotation about each axis.
        translation_voxels: largest shift along each axis.
        scale: largest relative change of size.
        intensity_scale: largest relative change of intensity.
        noise_std: standard deviation of added Gaussian noise.
    """

    flip_probability: float = share(0.5)
    affine_probability: float = share(0.5)
    rotation_degrees: float = not_negative(3.0)
    translation_voxels: float = not_negative(1.0)
    scale: float = share_below_one(0.03)
    intensity_scale: float = share_below_one(0.05)
    noise_std: float = not_negative(0.01)


class PrepareScan(Transform):  # type: ignore[misc]
    """Read the image that an item names and bring it to the model's grid and intensities."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """The path `image` becomes a tensor, (1, D, H, W), float32 in [0, 1]."""
        with warnings.catch_warnings():
            # The commands that read a manifest warn once, instead of for every scan of every stage.
            warnings.simplefilter("ignore", PreprocessingWarning)
            scan = self.preprocessing.prepare(read_volume(item["image"]))
        return item | {"image": torch.from_numpy(scan.data)[None]}


def augmentation(config: AugmentationConfig) -> Compose:
    """The random part of the training pipeline, on prepared tensors (1, D, H, W)."""
    # MONAI takes radians.
    radians = float(np.deg2rad(config.rotation_degrees))
    return Compose(
        [
            RandFlipd(["image"], prob=config.flip_probability, spatial_axis=0),
            RandAffined(
                ["image"],
                prob=config.affine_probability,
                rotate_range=(radians,) * 3,
                translate_range=(config.translation_voxels,) * 3,
                scale_range=(config.scale,) * 3,
                mode="bilinear",
                padding_mode="zeros",
            ),
            RandScaleIntensityd(["image"], factors=config.intensity_scale, prob=1.0 if config.intensity_scale else 0.0),
            RandGaussianNoised(["image"], std=config.noise_std, prob=0.5 if config.noise_std else 0.0),
        ]
    )
