"""Batches of a stage; their order depends on the seed and the step alone."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from ldae.base.ranks import rank, world
from ldae.data.datasets import Draw, Item
from ldae.errors import ConfigError, TrainingError

__all__ = ["StageDataModule", "StepBatchSampler"]


class StepBatchSampler(Sampler[list[Draw]]):
    """Batches of shuffled epochs laid end to end, a function of the seed and the step: a resumed run sees what it would have.

    Args:
        count: number of scans.
        batch_size: scans a batch, of which each process takes its share.
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
            share = self.batch_size // world()
            draws = range(step * self.batch_size + rank() * share, step * self.batch_size + (rank() + 1) * share)
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
        batch_size: scans a batch, of all processes together.
        steps: training batches in all.
        seed: of the order.
        parts: in which a process takes its share of a batch.
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
        parts: int = 1,
        workers: int = 0,
        start: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__()
        for name, dataset in (("train", train), ("validation", validation)):
            if len(dataset) == 0:  # type: ignore[arg-type]
                msg = f"the {name} split holds no scans; run 'ldae cohort split' or add subjects"
                raise TrainingError(msg)
        if len(train) < world():  # type: ignore[arg-type]
            msg = f"{len(train)} training scans are fewer than the {world()} devices; give fewer --devices"  # type: ignore[arg-type]
            raise ConfigError(msg)
        if batch_size % (world() * parts):
            msg = (
                f"batches of {batch_size} scans cannot be shared by {world()} devices, each in {parts} part(s); set batch_size "
                "to a multiple of devices times accumulate"
            )
            raise ConfigError(msg)
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
        return self._loader(self.train, sampler)

    @property
    def validation_batches(self) -> range:
        """Numbers of the validation batches that this process takes: its share, or all where there are too few."""
        count = -(-len(self.validation) // self.batch_size)  # type: ignore[arg-type]
        return range(rank(), count, world()) if count >= world() else range(count)

    def val_dataloader(self) -> DataLoader[Item]:
        """The validation scans of this process, in order."""
        scans, size = range(len(self.validation)), self.batch_size  # type: ignore[arg-type]
        return self._loader(self.validation, [scans[n * size : (n + 1) * size] for n in self.validation_batches])

    def _loader(self, scans: Dataset[Item], batches: Iterable[Sequence[int | Draw]]) -> DataLoader[Item]:
        workers: dict[str, Any] = {"num_workers": self.workers, "persistent_workers": self.workers > 0}
        return DataLoader(scans, batch_sampler=batches, pin_memory=torch.cuda.is_available(), **workers)  # type: ignore[arg-type]
