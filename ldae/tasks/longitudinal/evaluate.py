"""The protocol of interpolation: every triple of sessions, every method, against the real scan, with intervals over subjects."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_json, write_text
from ldae.base.hardware import trim_heap
from ldae.data.manifest import Record
from ldae.data.text_table import read_text_table
from ldae.errors import ManifestError, TaskError
from ldae.metrics.change import change_correlation, change_error
from ldae.metrics.images import compare_images
from ldae.metrics.statistics import Interval
from ldae.metrics.volumetry import known_volumes
from ldae.tasks.encoded_scans import EncodedScans, Progress
from ldae.tasks.longitudinal.comparison import (
    OWN,
    compare_groups,
    differences,
    intervals,
    known_mean,
    scores_of,
)
from ldae.tasks.longitudinal.interpolate import METHODS, Sessions, Triple, find_triples, predict_between
from ldae.tasks.longitudinal.trajectory import TrajectoryPrior, sessions_of
from ldae.tasks.shown_images import save_images
from ldae.volume import Volume

__all__ = ["InterpolateResult", "evaluate_interpolation", "read_truth", "save_cases", "shown_cases"]

Images = npt.NDArray[np.float32]
Truth = Mapping[str, Mapping[str, float]]

COMPARED = ("voxel_linear", "voxel_trajectory", "copy_nearest")
"""Methods whose change error stands beside the own method's under a picture."""
KEYS = ["participant_id", "session_id"]


@dataclass(frozen=True)
class InterpolateResult:
    """Metrics over triples, against the real scan of the missing month.

    Attributes:
        n: number of triples.
        subjects: number of subjects.
        gap_months: mean distance of the two given sessions.
        ventricle_yardstick: reference of `ventricle_error_ml`: the "truth", "measured" in the real scan, or "mixed".
        means: by metric and method.
        intervals: the same with 95 % intervals over subjects.
        differences: by metric, own method and rival: own minus rival, by the paired bootstrap; p adjusted over rivals (Holm).
        groups: by kind (gap, diagnosis, boundary) and value: numbers, means by metric and method, and, by gap and boundary,
            the differences of the change metrics within the group.
        table: a row for each triple and method.
    """

    n: int
    subjects: int
    gap_months: float
    ventricle_yardstick: str
    means: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, dict[str, dict[str, float]]]]
    groups: dict[str, dict[str, dict[str, Any]]]
    table: pd.DataFrame

    @property
    def own(self) -> str:
        """The method that is reported: the line through all other sessions where there is one, else codes between two."""
        return next(name for name in reversed(OWN) if name in self.means["change_error"])

    def change_errors(self, method: str) -> npt.NDArray[np.float64]:
        """By triple, in their order."""
        return self.table.loc[self.table["method"] == method, "change_error"].to_numpy(dtype=np.float64)

    def plain(self) -> dict[str, Any]:
        """All but the table, as plain values; means by metric stand at the top."""
        found: dict[str, Any] = _without_nan(
            {
                "n": self.n,
                "subjects": self.subjects,
                "gap_months": self.gap_months,
                "own": self.own,
                "ventricle_yardstick": self.ventricle_yardstick,
                **self.means,
                "intervals": {
                    metric: {name: asdict(each) for name, each in of.items()} for metric, of in self.intervals.items()
                },
                "differences": self.differences,
                "groups": self.groups,
            }
        )
        return found

    def summary(self) -> dict[str, Any]:
        """Metrics for the results of a run, as plain values: all but the groups."""
        return {name: value for name, value in self.plain().items() if name != "groups"}

    def write(self, folder: Path, **facts: Any) -> tuple[Path, Path]:
        """Write interpolate.json, and every triple as interpolate.csv."""
        return (
            write_json(folder / "interpolate.json", self.plain() | facts),
            write_text(folder / "interpolate.csv", self.table.to_csv(index=False)),
        )


def evaluate_interpolation(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    *,
    prior: TrajectoryPrior | None = None,
    references: Mapping[str, Record] | None = None,
    truth: Truth | None = None,
    batch_size: int = 8,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> InterpolateResult:
    """Predict every session that lies between two others of its subject, and score every method.

    Args:
        model: the trained model.
        scans: encoded, with noise codes.
        prior: of codes over time, from training subjects; adds the trajectories.
        references: by key, scans to compare with instead of the scans themselves: noise-free twins, say. Averaging two
            scans averages their noise, which flatters voxel blending against a noisy target.
        truth: true values of scans by key, as `ventricles_ml` and `ventricle_mm` of a phantom: volumes are then compared by
            their true change, and triples are grouped by the true movement of the ventricle's wall.
        batch_size: triples at a time.
        resamples: of the bootstrap.
        seed: of the resamples.
        progress: called with (done, total).

    Raises:
        TaskError: if there is no triple.
    """
    triples = find_triples(scans)
    if not triples:
        msg = "no subject has three dated sessions, so no missing scan can be scored; give a longitudinal manifest with months"
        raise TaskError(msg)
    missing = [] if references is None else [each.key for each in scans.records if each.key not in references]
    if missing:
        msg = f"the references lack {len(missing)} scans (first: {missing[0]}); give a manifest with the same keys"
        raise TaskError(msg)
    ventricles = _Ventricles(model.config.preprocessing.grid.affine, truth or {})
    # Of three sessions the line through the others is the blend of the two, and would stand in the table twice.
    beyond_three = any(len(each) > 3 for each in sessions_of(scans.records).values())
    rows: list[dict[str, Any]] = []
    done = 0
    for some, batch in _batches(scans, triples, batch_size):
        sessions = Sessions.of(model, some)
        real = sessions.images
        if references is not None:
            real = scans.source.images([references[record.key] for record in some.records])
        targets = real[[triple.target for triple in batch]]
        facts = [_facts(some, triple, truth or {}, model.config.preprocessing.voxel_size_mm) for triple in batch]
        for method, images in predict_between(model, sessions, batch, prior).items():
            if method == "voxel_trajectory" and not beyond_three:
                continue
            agreement = compare_images(images, targets)
            for index, (triple, image, target) in enumerate(zip(batch, images, targets, strict=True)):
                pair = [(some.records[row].key, real[row]) for row in (triple.first, triple.target)]
                rows.append(
                    {
                        **facts[index],
                        "method": method,
                        **{
                            name: float(getattr(agreement, name)[index])
                            for name in ("ssim", "ssim_brain", "psnr", "mse")
                        },
                        "change_error": change_error(image, target, real[triple.first]),
                        "change_correlation": change_correlation(image, target, real[triple.first]),
                        "ventricle_error_ml": ventricles.error(image, *pair),
                    }
                )
        done += len(batch)
        progress(done, len(triples))
    table = pd.DataFrame(rows)
    methods = [name for name in METHODS if (table["method"] == name).any()]
    scores = scores_of(table, methods)
    subjects = table.loc[table["method"] == methods[0], "participant_id"].tolist()
    return InterpolateResult(
        n=len(triples),
        subjects=len(set(subjects)),
        gap_months=float(np.mean([triple.gap_months for triple in triples])),
        ventricle_yardstick=ventricles.yardstick,
        means={metric: {name: known_mean(each) for name, each in of.items()} for metric, of in scores.items()},
        intervals=intervals(scores, subjects, resamples, seed),
        differences=differences(scores, subjects, resamples, seed),
        groups=compare_groups(table, methods, resamples, seed),
        table=table,
    )


def _batches(scans: EncodedScans, triples: Sequence[Triple], size: int) -> Iterator[tuple[EncodedScans, list[Triple]]]:
    """A few triples at a time, their rows counted within all dated scans of their subjects."""
    sessions = sessions_of(scans.records)
    for start in range(0, len(triples), size):
        batch = triples[start : start + size]
        rows = sorted({int(row) for each in batch for row in sessions[scans.records[each.target].participant_id]})
        place = {row: index for index, row in enumerate(rows)}
        yield (
            scans.select(rows),
            [replace(t, first=place[t.first], target=place[t.target], second=place[t.second]) for t in batch],
        )
        trim_heap()


def read_truth(path: Path) -> dict[str, dict[str, float]]:
    """True values by the scan's key, from a table with participant_id, session_id and numeric columns.

    Raises:
        TaskError: if it is no such table.
    """
    try:
        table = read_text_table(path)
        keys = [f"{subject}_{session}" for subject, session in table[KEYS].itertuples(index=False, name=None)]
        cells = table.drop(columns=KEYS)
    except (ManifestError, KeyError) as error:
        msg = f"{path}: no table of true values ({error}); give participant_id, session_id and columns such as ventricles_ml"
        raise TaskError(msg) from error
    numbers = cells.apply(pd.to_numeric, errors="coerce")
    for name in numbers.columns:
        words = cells[name].notna() & numbers[name].isna()
        if words.any() and numbers[name].notna().any():
            word = cells[name][words].iloc[0]
            msg = f"{path}: column {name} holds numbers and text, such as {word!r}; clean it, or take it out"
            raise TaskError(msg)
    return {
        key: {name: value for name, value in zip(numbers.columns, row, strict=True) if np.isfinite(value)}
        for key, row in zip(keys, numbers.to_numpy().tolist(), strict=True)
    }


class _Ventricles:
    """Ventricles of predicted scans, against the truth where it is known, or measured alike on the real scan."""

    def __init__(self, affine: npt.NDArray[np.float64], truth: Truth) -> None:
        self.affine = affine
        self.truth = truth
        self.measured: dict[str, float] = {}
        self.used: set[str] = set()

    @property
    def yardstick(self) -> str:
        """The reference of the errors so far."""
        return next(iter(self.used)) if len(self.used) == 1 else "mixed"

    def measure(self, image: Images) -> float:
        return known_volumes(Volume(image, self.affine))["ventricles_ml"]

    def of_scan(self, key: str, image: Images) -> float:
        if key not in self.measured:
            self.measured[key] = self.measure(image)
        return self.measured[key]

    def error(self, image: Images, first: tuple[str, Images], target: tuple[str, Images]) -> float:
        """Absolute error of the predicted change since the first session, ml; the measurement's own bias cancels.

        Args:
            image: predicted, (D, H, W).
            first: key and image of the first session.
            target: key and image of the predicted one.
        """
        start = self.of_scan(*first)
        known = [self.truth.get(key, {}).get("ventricles_ml") for key, _ in (first, target)]
        if known[0] is not None and known[1] is not None:
            self.used.add("truth")
            change = known[1] - known[0]
        else:
            self.used.add("measured")
            change = self.of_scan(*target) - start
        return abs(self.measure(image) - start - change)


def _facts(scans: EncodedScans, triple: Triple, truth: Truth, voxel_mm: float) -> dict[str, Any]:
    first, target, second = (scans.records[row] for row in (triple.first, triple.target, triple.second))
    facts = {
        "participant_id": target.participant_id,
        "first": first.session_id,
        "target": target.session_id,
        "second": second.session_id,
        "weight": triple.weight,
        "gap_months": triple.gap_months,
        "diagnosis": target.diagnosis,
    }
    walls = [truth.get(record.key, {}).get("ventricle_mm") for record in (first, second)]
    if walls[0] is not None and walls[1] is not None:
        facts["boundary_voxels"] = abs(walls[1] - walls[0]) / voxel_mm
    return facts


def _without_nan(value: Any) -> Any:
    """The same with None where nothing could be measured: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def shown_cases(result: InterpolateResult) -> dict[str, int]:
    """Index of the triple whose change error by the own method is the median, and of the largest; of one triple, that alone."""
    order = np.argsort(result.change_errors(result.own), kind="stable")
    middle, worst = int(order[(len(order) - 1) // 2]), int(order[-1])
    return {"only": worst} if len(order) == 1 else {"typical": middle, "worst": worst}


def save_cases(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    result: InterpolateResult,
    prior: TrajectoryPrior | None,
    path: Path,
) -> list[dict[str, Any]]:
    """Write the images of a typical and the worst case as NPZ, and return their keys, months and change errors.

    Args:
        model: the trained model.
        scans: that the result is of.
        result: of :func:`evaluate_interpolation`.
        prior: that it was made with.
        path: of the file.
    """
    triples = find_triples(scans)
    facts, images = [], []
    for name, index in shown_cases(result).items():
        ((some, (triple,)),) = _batches(scans, [triples[index]], 1)
        sessions = Sessions.of(model, some)
        predicted = predict_between(model, sessions, [triple], prior)
        records = [some.records[row] for row in (triple.first, triple.target, triple.second)]
        methods = [each for each in (result.own, *COMPARED) if each in result.means["change_error"]]
        facts.append(
            {
                "case": name,
                "keys": [record.key for record in records],
                "months": [record.months for record in records],
                "change_error": {method: float(result.change_errors(method)[index]) for method in methods},
            }
        )
        images.append(
            {
                "first": sessions.images[triple.first],
                "target": sessions.images[triple.target],
                "predicted": predicted[result.own][0],
                "codes_alone": predicted[result.own.removesuffix("_residual")][0],
                "voxel_linear": predicted["voxel_linear"][0],
            }
        )
    save_images(path, **{name: np.stack([each[name] for each in images]) for name in images[0]})
    return facts
