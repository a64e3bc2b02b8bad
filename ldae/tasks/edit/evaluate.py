"""Manipulate: edit scans along a probe's direction, and measure probes, volumes, identity and the map of the change."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_json
from ldae.errors import TaskError
from ldae.metrics.statistics import Interval, mean_of, subject_bootstrap
from ldae.tasks.edit.change_map import BLOCK, ChangeMap, EditMap
from ldae.tasks.edit.manipulate import DEFAULT_STEPS, Edits, check_probes, edit_scans
from ldae.tasks.encoded_scans import EncodedScans, Progress
from ldae.tasks.probe.linear import LinearProbe

__all__ = ["MAPPED_SUBJECTS", "ManipulateResult", "ManipulationFindings", "manipulate"]

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
MAPPED_SUBJECTS = 3
"""Fewer subjects have no map of the change."""


@dataclass(frozen=True)
class ManipulationFindings:
    """Effects of edits of one scan of each subject.

    Attributes:
        steps: signed, in standard deviations of the training cohort along the direction.
        probes: mean value of every probe on the re-encoded images, at each step, by name.
        probe_slopes: change of each probe a step, mean over subjects with its interval: logits, or the target's unit.
        own_nearest_image: share of edited images that are nearest to their own subject's scan among all, at each step.
        own_nearest_code: the same for the re-encoded y.
        flipped: share of subjects that were below one half at step 0 and are above it at the last step; None for numbers.
        flip_step: median step, interpolated, at which those cross one half; None if none does.
        outside_brain: mean absolute change a voxel outside the scan's brain over that inside, at the last step; None where
            scans have no background.
    """

    steps: list[float]
    probes: dict[str, list[float]]
    probe_slopes: dict[str, Interval]
    own_nearest_image: list[float]
    own_nearest_code: list[float]
    flipped: float | None
    flip_step: float | None
    outside_brain: float | None


@dataclass(frozen=True)
class ManipulateResult:
    """Edits of scans, as means over them.

    Attributes:
        steps: signed, in standard deviations of the training cohort along the direction.
        predicted: mean of the probe on the re-encoded edited images, at each step.
        volume_change_ml: mean change of each measured volume against step 0, at each step; None where no image shows it.
        scans: number of them.
        findings: over the first scan of each subject.
        map: of the change over the first scans; None for fewer than three subjects.
    """

    steps: list[float]
    predicted: list[float]
    volume_change_ml: dict[str, list[float | None]]
    scans: int
    findings: ManipulationFindings
    map: EditMap | None = None

    @property
    def monotone(self) -> bool:
        """True if the mean prediction rises with every step."""
        return all(low < high for low, high in zip(self.predicted, self.predicted[1:], strict=False))

    @property
    def where(self) -> dict[str, Any]:
        """The map in numbers."""
        if self.map is None:
            return {}
        return {"changed_share": self.map.share, "effect_correlation": self.map.effect_correlations}

    def plain(self) -> dict[str, Any]:
        """Means over scans, as plain values."""
        names = ("steps", "predicted", "volume_change_ml", "scans", "monotone")
        return {name: getattr(self, name) for name in names}

    def write(self, folder: Path) -> Path:
        """Write manipulate.json."""
        return write_json(folder / "manipulate.json", self.plain() | {"findings": asdict(self.findings)} | self.where)


def manipulate(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    probe: LinearProbe,
    others: Mapping[str, LinearProbe] | None = None,
    *,
    steps: Sequence[float] = DEFAULT_STEPS,
    step: Array | None = None,
    deformed: bool = False,
    effects: Mapping[str, Image] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    visit: Callable[[int, Edits], None] = lambda row, edits: None,
    progress: Progress = lambda done, total: None,
) -> ManipulateResult:
    """Edit scans along a probe's direction, and measure what the edits change.

    Args:
        model: the trained model.
        scans: encoded, with noise codes.
        probe: whose direction is followed; positive steps raise it.
        others: further probes, by name: does a direction of disease change the predicted age?
        steps: signed, in standard deviations of the training cohort along the direction; 0 among them.
        step: change of y that one step makes; the probe's if it is not given.
        deformed: edits are the scans, deformed as the decoded edits are against the reconstructions; else the decoded images.
        effects: known effects of the target on images, (D, H, W) each, by name: from real scans (:func:`effect_map`), or the
            truth of a phantom.
        seed: of the resamples.
        resamples: of the bootstrap.
        visit: called with the row and the edits of each scan; images are not kept.
        progress: called with (done, total) scans.

    Raises:
        TaskError: if there are no scans, step 0 is missing, or the probe was trained on codes of another model.
    """
    amounts = np.array(steps, dtype=np.float64)
    if 0 not in amounts or not len(scans):
        msg = f"edits of 0 of {len(scans)} scans at steps {amounts.tolist()}: a scan, and step 0 to measure from, are needed"
        raise TaskError(msg)
    zero, last = amounts.tolist().index(0.0), int(amounts.argmax())
    check_probes(model, list((others or {}).values()))
    scan = (lambda row: scans.select([row]).images()[0]) if deformed else None
    edits = edit_scans(model, scans.codes, probe, steps=steps, step=step, scan=scan)
    first = scans.first_rows
    own, change = scans.select(first), ChangeMap()
    predicted: list[list[float]] = []
    volumes: list[dict[str, list[float | None]]] = []
    semantic: list[Array] = []
    own_nearest: list[npt.NDArray[np.bool_]] = []
    with tempfile.TemporaryFile(prefix="ldae-") as file:
        nearest = _NearestScan(own, file)
        for batch in edits:
            rows = range(len(predicted), len(predicted) + len(batch))
            for row, each in zip(rows, batch, strict=True):
                predicted.append(each.predicted)
                volumes.append(each.volumes)
                visit(row, each)
            chosen = {row: each for row, each in zip(rows, batch, strict=True) if row in first}
            if chosen:
                found = nearest.rows(np.stack([each.images for each in chosen.values()]))
                own_nearest += list(found == np.array([[first.index(row)] for row in chosen]))
                originals = scans.select(list(chosen)).images()
                for each, original in zip(chosen.values(), originals, strict=True):
                    semantic.append(each.semantic)
                    change.add(each.images[last] - each.images[zero], original)
            progress(len(predicted), len(scans))
    measure = partial(subject_bootstrap, subjects=own.subjects, resamples=resamples)
    codes, named = np.stack(semantic), {"direction": probe, **(others or {})}
    values = {name: each.predict(codes) for name, each in named.items()}
    slopes = {name: np.polyfit(amounts, each.value(codes).T, 1)[0] for name, each in named.items()}
    flipped, flip_step = _flips(amounts, values["direction"]) if probe.logistic else (None, None)
    return ManipulateResult(
        steps=amounts.tolist(),
        predicted=np.mean(predicted, axis=0).tolist(),
        volume_change_ml={name: _mean_change([each[name] for each in volumes], zero) for name in volumes[0]},
        scans=len(scans),
        findings=ManipulationFindings(
            steps=amounts.tolist(),
            probes={name: each.mean(axis=0).tolist() for name, each in values.items()},
            probe_slopes={name: measure(mean_of(slope), seed=seed) for name, slope in slopes.items()},
            own_nearest_image=np.mean(own_nearest, axis=0).tolist(),
            own_nearest_code=_own_nearest(codes, own.semantic),
            flipped=flipped,
            flip_step=flip_step,
            outside_brain=change.outside_brain,
        ),
        map=change.map(effects or {}) if len(first) >= MAPPED_SUBJECTS else None,
    )


def _mean_change(volumes: Sequence[Sequence[float | None]], zero: int) -> list[float | None]:
    """Mean over the scans whose volume could be measured at a step and at step 0, (K,)."""
    values = np.array(volumes, dtype=np.float64)
    changes = np.ma.masked_invalid(values - values[:, [zero]]).mean(axis=0)
    return [None if value is np.ma.masked else float(value) for value in changes]


def _own_nearest(codes: Array, own: Array) -> list[float]:
    """Share of the re-encoded codes, (N, K, S), whose nearest among the scans' own, (N, S), is that of their scan."""
    # Squared distances, less the part that is the same for every candidate.
    distance = np.square(own).sum(axis=1) - 2 * codes @ own.T
    return (distance.argmin(axis=-1) == np.arange(len(own))[:, None]).mean(axis=0).tolist()


def _flips(steps: Array, probability: Array) -> tuple[float | None, float | None]:
    """Share that crosses one half on the way up, and the median step where."""
    zero = int(np.flatnonzero(steps == 0)[0])
    upward = steps >= 0
    starts = probability[:, zero] < 0.5
    if not starts.any() or upward.sum() < 2:
        return None, None
    crossings = []
    for row in probability[starts][:, upward]:
        above = np.flatnonzero(row >= 0.5)
        if len(above):
            at = above[0]
            crossings.append(float(np.interp(0.5, row[at - 1 : at + 1], steps[upward][at - 1 : at + 1])))
    return len(crossings) / int(starts.sum()), float(np.median(crossings)) if crossings else None


class _NearestScan:
    """Nearest of some scans to an image. The scans lie in a file, not in memory.

    Args:
        scans: to choose from, N.
        file: to keep them in.
    """

    def __init__(self, scans: EncodedScans, file: IO[bytes]) -> None:
        self.file = file
        self.norms: list[Array] = []
        for batch in scans.batches(BLOCK):
            rows = np.ascontiguousarray(batch.images().reshape(len(batch), -1), dtype=np.float32)
            self.file.write(rows.data)
            self.norms.append(np.square(rows.astype(np.float64)).sum(axis=1))
        self.width = rows.shape[1]

    def rows(self, images: Image) -> npt.NDArray[np.int64]:
        """Row of the nearest scan of each of (..., D, H, W)."""
        flat = images.reshape(-1, self.width)
        self.file.seek(0)
        distances = []
        for norms in self.norms:
            data = np.frombuffer(self.file.read(4 * len(norms) * self.width), dtype=np.float32)
            # Squared distances, less the part that is the same for every candidate.
            distances.append(norms - 2 * flat @ data.reshape(len(norms), -1).T)
        return np.concatenate(distances, axis=1).argmin(axis=1).reshape(images.shape[:-3])
