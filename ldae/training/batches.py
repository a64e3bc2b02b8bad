"""Batches of a stage; their order depends on the seed and the step alone."""

import functools
from collections.abc import Callable, Iterator

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from ldae.data.datasets import Draw, Item
from ldae.errors import TrainingError

__all__ = ["StageDataModule", "StepBatchSampler"]


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
