"""The part of a study that predicts missing sessions: every figure, and a typical and the worst case to look at."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.errors import TaskError
from ldae.io.files import write_json
from ldae.tasks.encode import EncodedScans
from ldae.tasks.longitudinal.evaluate import Images, InterpolateResult, evaluate_interpolation
from ldae.tasks.longitudinal.interpolate import Triple, predict_between
from ldae.tasks.longitudinal.trajectory import fit_trajectory_prior
from ldae.tasks.shown_images import save_images

__all__ = ["study_interpolation"]

COMPARED = ("voxel_linear", "voxel_trajectory", "copy_nearest")
"""Whose figures stand beside the own method's under a picture."""


def study_interpolation(
    model: LatentDiffusionAutoencoder,
    test: EncodedScans,
    decoded: Images,
    triples: Sequence[Triple],
    training: EncodedScans,
    folder: Path,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every method on every triple; write interpolate.json, .csv and .npz.

    Args:
        model: the trained model.
        test: scans of test subjects, with noise codes.
        decoded: their reconstructions from both codes, (M, D, H, W).
        triples: which to predict.
        training: scans to learn from how codes change; where hardly anybody comes twice there are no trajectories.
        folder: to write to.
        seed: of the bootstrap.
        progress: told (done, total).

    Returns:
        Figures as plain values, but for those by group, which are in the file.
    """
    try:
        prior = fit_trajectory_prior(training.records, training.semantic)
    except TaskError:
        prior = None
    result = evaluate_interpolation(model, test, decoded, triples, prior=prior, seed=seed, progress=progress)
    result.write(folder)
    cases = shown_cases(result)
    chosen = [triples[index] for index in cases.values()]
    predicted = predict_between(model, test, decoded, chosen, prior)
    shown = [_case(name, result, index, test, triples[index]) for name, index in cases.items()]
    plain = result.plain()
    write_json(folder / "interpolate.json", plain | {"shown": shown})
    save_images(
        folder / "interpolate.npz",
        first=test.images[[triple.first for triple in chosen]],
        target=test.images[[triple.target for triple in chosen]],
        predicted=predicted[result.own],
        voxel_linear=predicted["voxel_linear"],
    )
    del plain["groups"]
    return plain


def shown_cases(result: InterpolateResult) -> dict[str, int]:
    """Index of the case whose change error by the own method is the median, and of the largest; of one case, that alone."""
    order = np.argsort(_change_errors(result, result.own), kind="stable")
    middle, worst = int(order[(len(order) - 1) // 2]), int(order[-1])
    return {"only": worst} if len(order) == 1 else {"typical": middle, "worst": worst}


def _case(name: str, result: InterpolateResult, index: int, test: EncodedScans, triple: Triple) -> dict[str, Any]:
    records = [test.records[row] for row in (triple.first, triple.target, triple.second)]
    return {
        "case": name,
        "keys": [record.key for record in records],
        "months": [record.months for record in records],
        "change_error": {
            method: float(_change_errors(result, method)[index])
            for method in (result.own, *COMPARED)
            if method in result.means["change_error"]
        },
    }


def _change_errors(result: InterpolateResult, method: str) -> npt.NDArray[np.float64]:
    """By case, in the order of the triples."""
    table = result.table
    return table.loc[table["method"] == method, "change_error"].to_numpy(dtype=np.float64)
