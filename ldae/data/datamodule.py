"""Datasets and the Lightning data module; the order of batches depends on the seed and the step alone."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from monai.data import CacheDataset, PersistentDataset
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ldae.contract import LEFT_RIGHT, Preprocessing
from ldae.data.manifest import Record
from ldae.data.transforms import AugmentationConfig, PrepareScand, augmentation
from ldae.errors import TrainingError

__all__ = ["DataConfig", "LatentDataset", "ScanDataset", "StageDataModule", "StepBatchSampler"]

Item = dict[str, Any]
Draw = tuple[int, int]
"""Index of a scan, and the number of the draw, which seeds its augmentation."""


@dataclass(frozen=True)
class DataConfig:
    """Settings of reading scans.

    Attributes:
        augmentation: of the compression stage.
        cache: keep prepared scans in `memory`, or on `disk` in the run folder where they do not fit.
        workers: processes that load batches.
    """

    augmentation: AugmentationConfig = AugmentationConfig()
    cache: Literal["memory", "disk"] = "memory"
    workers: int = 0


class StepBatchSampler(Sampler[list[Draw]]):
    """Batches of shuffled epochs laid end to end, a function of the seed and the step: a resumed run sees what it would have.

    Args:
        count: number of scans.
        batch_size: scans a batch.
        steps: batches in all.
        seed: of the order.
        start: the first step to yield.
    """

    def __init__(self, count: int, *, batch_size: int, steps: int, seed: int, start: int = 0) -> None:
        self.count = count
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.start = start

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start, self.steps):
            draws = range(step * self.batch_size, (step + 1) * self.batch_size)
            yield [(_epoch_order(self.count, self.seed, draw // self.count)[draw % self.count], draw) for draw in draws]


@functools.lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return tuple(torch.randperm(count, generator=generator).tolist())


class ScanDataset(Dataset[Item]):
    """Prepared scans from MONAI's cache, augmented if a seed and an augmentation are given.

    Args:
        records: the manifest's rows.
        preprocessing: the model's contract.
        data: caching.
        cache_folder: for the disk cache.
        seed: of the augmentation; None leaves scans as they are.
        share: a dataset of the same records, whose prepared scans are taken over.
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
        prepare = Compose([PrepareScand("image", preprocessing)])
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


class LatentDataset(Dataset[Item]):
    """Cached latents, with their scans where the stage needs both.

    Args:
        latents: standardised posterior means, (N, C, d, h, w); or (2N, C, d, h, w), where the second half belongs to the scans
            mirrored left to right.
        keys: of the scans, N.
        scans: the scans themselves, in the same order.
        std: standardised posterior stds, the shape of `latents`, for stages that draw from the posterior.
        paired: every item holds the latent of its mirror image too, so `latents` must be 2N.
        mirrors: whether the mirrored scans, where there are latents of them, are items of their own.
    """

    def __init__(
        self,
        latents: Tensor,
        keys: Sequence[str],
        scans: ScanDataset | None = None,
        *,
        std: Tensor | None = None,
        paired: bool = False,
        mirrors: bool = True,
    ) -> None:
        self.latents = latents
        self.std = std
        self.keys = list(keys)
        self.scans = scans
        self.paired = paired
        self.mirrors = mirrors

    def __len__(self) -> int:
        return len(self.latents) if self.mirrors else len(self.keys)

    def __getitem__(self, index: int | Draw) -> Item:
        position = index[0] if isinstance(index, tuple) else index
        mirrored, scan = divmod(position, len(self.keys))
        item: Item = {"latent": self.latents[position], "key": self.keys[scan]}
        if self.std is not None:
            item["latent_std"] = self.std[position]
        if self.paired:
            item["mirrored_latent"] = self.latents[(position + len(self.keys)) % len(self.latents)]
        if self.scans is not None:
            (item["image"],) = self.scans.images([scan], mirrored=bool(mirrored))
            item["subject"] = self.scans.subjects[scan]
        return item


class StageDataModule(LightningDataModule):
    """Training and validation batches of one stage.

    Args:
        train: training scans.
        validation: validation scans.
        batch_size: scans a batch.
        steps: training batches in all.
        seed: of the order.
        workers: loading processes.
        start: called with the first step, once a checkpoint has been read.
    """

    def __init__(
        self,
        train: Dataset[Item],
        validation: Dataset[Item],
        *,
        batch_size: int,
        steps: int,
        seed: int,
        workers: int = 0,
        start: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__()
        for name, dataset in (("train", train), ("validation", validation)):
            if len(dataset) == 0:  # type: ignore[arg-type]
                msg = f"the {name} split holds no scans; run 'ldae cohort split' or add subjects"
                raise TrainingError(msg)
        self.train = train
        self.validation = validation
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.workers = workers
        self.start = start

    def train_dataloader(self) -> DataLoader[Item]:
        """Batches from the step that the run has reached."""
        sampler = StepBatchSampler(
            len(self.train),  # type: ignore[arg-type]
            batch_size=self.batch_size,
            steps=self.steps,
            seed=self.seed,
            start=self.start(),
        )
        return DataLoader(
            self.train, batch_sampler=sampler, num_workers=self.workers, persistent_workers=self.workers > 0
        )

    def val_dataloader(self) -> DataLoader[Item]:
        """All validation scans, in order."""
        return DataLoader(self.validation, batch_size=self.batch_size, num_workers=self.workers)
