"""A part of work that several machines share."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

__all__ = ["Part"]

Job = TypeVar("Job")


class Part(NamedTuple):
    """One of the parts that work is dealt to.

    Attributes:
        number: from 1 to `total`.
        total: number of parts.
    """

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def choose(self, jobs: Sequence[Job]) -> list[Job]:
        """Its jobs: every `total`-th, from `number` on, so that the parts are alike and each job is in one."""
        return list(jobs[self.number - 1 :: self.total])

    def choose_batches(self, jobs: Sequence[Job], size: int) -> list[Job]:
        """Its jobs, where they are dealt in whole batches of a size."""
        batches = self.choose(range(0, len(jobs), size))
        return [job for start in batches for job in jobs[start : start + size]]
