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
