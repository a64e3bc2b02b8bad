"""Data sets of prepared scans and of cached latents."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from monai.data import CacheDataset, PersistentDataset
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import Dataset

from ldae.base.ranges import checked, natural
from ldae.contract import LEFT_RIGHT, Preprocessing
from ldae.data.manifest import Record
from ldae.data.transforms import AugmentationConfig, PrepareScan, augmentation

__all__ = ["DataConfig", "Draw", "Item", "LatentDataset", "ScanDataset"]

Item = dict[str, Any]
Draw = tuple[int, int]
"""Index of a scan, and the number of the draw, which seeds its augmentation."""


@dataclass(frozen=True)
@checked
class DataConfig:
    """Settings of reading scans.

    Attributes:
        augmentation: of the compression stage.
        cache: keep prepared scans in `memory`, or on `disk` in the run folder where they do not fit.
        workers: processes that load batches.
    """

    augmentation: AugmentationConfig = AugmentationConfig()
    cache: Literal["memory", "disk"] = "memory"
    workers: int = natural(0)


class ScanDataset(Dataset[Item]):
    """Prepared scans from MONAI's cache, augmented if a seed is given.

    With `share`, a data set of the same records, its prepared scans are taken over.
    """

    def __init__(
        self,
        records: Sequence[Record],
        preprocessing: Preprocessing,
        data: DataConfig,
        *,
        cache_folder: Path,
        seed: int | None = None,
        share: "ScanDataset | None" = None,
    ) -> None:
        items: list[Item] = [{"image": str(record.image), "key": record.key} for record in records]
        prepare = Compose([PrepareScan(preprocessing)])
        self.scans: Dataset[Item]
        if share is not None:
            self.scans = share.scans
        elif data.cache == "memory":
            self.scans = CacheDataset(items, prepare, num_workers=2, progress=False, copy_cache=False)
        else:
            # The files of the cache are named by a hash of their items.
            items = [item | {"content": each.content_hash} for item, each in zip(items, records, strict=True)]
            self.scans = PersistentDataset(items, prepare, cache_dir=cache_folder)
        self.keys = [record.key for record in records]
        self.subjects = [record.participant_id for record in records]
        self.seed = seed
        self.augment = None if seed is None else augmentation(data.augmentation)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int | Draw) -> Item:
        position, draw = index if isinstance(index, tuple) else (index, 0)
        item = dict(self.scans[position])
        if self.augment is not None and self.seed is not None:
            self.augment.set_random_state(seed=(self.seed * 1_000_003 + draw) % 2**32)
            item = dict(self.augment(item))
        item["image"] = torch.as_tensor(item["image"])
        return item

    def images(self, indices: Sequence[int], *, mirrored: bool = False) -> Tensor:
        """Prepared scans without augmentation, (B, 1, D, H, W), mirrored left to right if `mirrored`."""
        images = torch.stack([torch.as_tensor(self.scans[index]["image"]) for index in indices])
        return images.flip(LEFT_RIGHT) if mirrored else images


@dataclass(eq=False)
class LatentDataset(Dataset[Item]):
    """Cached latents, with their scans where the stage needs both.

    Attributes:
        latents: standardised posterior means, (N, C, d, h, w); or (2N, C, d, h, w), where the second half belongs to the scans
            mirrored left to right.
        keys: of the scans, N.
        scans: the scans themselves, in the same order.
        std: standardised posterior stds, the shape of `latents`, for stages that draw from the posterior.
    """

    latents: Tensor
    keys: Sequence[str]
    scans: ScanDataset | None = None
    _: KW_ONLY
    std: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int | Draw) -> Item:
        position = index[0] if isinstance(index, tuple) else index
        mirrored, scan = divmod(position, len(self.keys))
        item: Item = {"latent": self.latents[position], "key": self.keys[scan]}
        if self.std is not None:
            item["latent_std"] = self.std[position]
        if self.scans is not None:
            (item["image"],) = self.scans.images([scan], mirrored=bool(mirrored))
            item["subject"] = self.scans.subjects[scan]
        return item
