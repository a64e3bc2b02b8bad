"""Map of the change that edits make, one subject at a time, and the effect of a diagnosis on real scans."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ldae.errors import TaskError
from ldae.tasks.encoded_scans import EncodedScans

__all__ = ["BLOCK", "ChangeMap", "EditMap", "effect_map"]

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
FALSE_DISCOVERY_RATE = 0.05
BLOCK = 8
"""Images that are read at a time."""


@dataclass(frozen=True, eq=False)
class EditMap:
    """Map of the changes that an edit makes, over subjects.

    Attributes:
        mean: of the changes, (D, H, W), on the images' scale of [0, 1].
        significant: where it differs from zero at a false discovery rate of 0.05 (Benjamini and Hochberg 1995).
        share: of the brain's voxels that are.
        effect_correlations: with each known effect of the target, inside the brain, by its name.
    """

    mean: Image
    significant: npt.NDArray[np.bool_]
    share: float
    effect_correlations: dict[str, float]


class ChangeMap:
    """Mean and variance over subjects of the change that an edit makes (Welford 1962), one subject at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.inside: list[float] = []
        self.outside: list[float] = []

    def add(self, change: Image, original: Image) -> None:
        """Take in the change of one subject's scan, (D, H, W), and the scan."""
        if not self.count:
            self.mean, self.squares, self.brains = (np.zeros(change.shape) for _ in range(3))
        brain = original > 0
        self.count += 1
        self.brains += brain
        from_mean = change - self.mean
        self.mean += from_mean / self.count
        self.squares += from_mean * (change - self.mean)
        if brain.any() and not brain.all():
            size = np.abs(change)
            self.inside.append(float(size[brain].mean()))
            self.outside.append(float(size[~brain].mean()))

    @property
    def outside_brain(self) -> float | None:
        """Mean absolute change outside over that inside."""
        return float(np.mean(self.outside) / max(float(np.mean(self.inside)), 1e-12)) if self.inside else None

    def map(self, effects: Mapping[str, Image]) -> EditMap:
        """The mean change, and where it differs from zero, by a t test of each voxel in the brain of most subjects."""
        brain = self.brains / self.count > 0.5
        mean, error = self.mean[brain], np.sqrt(self.squares[brain] / (self.count - 1) / self.count)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stats.t.sf(np.abs(mean / error), self.count - 1)
        significant = np.zeros(brain.shape, dtype=bool)
        significant[brain] = stats.false_discovery_control(np.nan_to_num(p, nan=1.0)) <= FALSE_DISCOVERY_RATE
        correlations = {
            name: float(np.corrcoef(mean, effect[brain])[0, 1])
            for name, effect in effects.items()
            if mean.std() > 0 and effect[brain].std() > 0
        }
        return EditMap(self.mean.astype(np.float32), significant, float(significant[brain].mean()), correlations)


def effect_map(scans: EncodedScans, positive: str, negative: str) -> Image:
    """Effect of the positive against the negative diagnosis on real scans, (D, H, W).

    Voxelwise regression on the diagnosis, with age and sex as far as all are known (Ashburner and Friston 2000).

    Raises:
        TaskError: if a class is lacking.
    """
    chosen = scans.select([row for row, r in enumerate(scans.records) if r.diagnosis in (positive, negative)])
    labels = np.array([float(record.diagnosis == positive) for record in chosen.records])
    if len(chosen) < 4 or labels.min() == labels.max():
        msg = f"a map of {positive} against {negative} needs scans of both, got {int(labels.sum())} and {int((1 - labels).sum())}"
        raise TaskError(msg)
    columns: list[Array] = [np.ones(len(chosen)), labels]
    for name, number in (("age", float), ("sex", lambda value: float(value == "F"))):
        values: list[Any] = [getattr(record, name) for record in chosen.records]
        if all(value is not None for value in values) and len(set(values)) > 1:
            columns.append(np.array([number(value) for value in values]))
    # Least squares is linear in the images: the label's row of the pseudo-inverse weighs each of them.
    weights = np.linalg.pinv(np.stack(columns, axis=1))[1]
    effect = np.zeros(1)
    for index, batch in enumerate(chosen.batches(BLOCK)):
        weighed = weights[index * BLOCK : index * BLOCK + len(batch)]
        effect = effect + np.tensordot(weighed, batch.images().astype(np.float64), axes=1)
    return effect.astype(np.float32)
