"""Minimal counterfactuals: the smallest edit of a scan at which a probe's prediction passes a target."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_text
from ldae.codes import Codes
from ldae.errors import TaskError
from ldae.io.bids import bids_path
from ldae.tasks.edit.direction import manipulate_codes
from ldae.tasks.edit.manipulate import ready_step
from ldae.tasks.encoded_scans import EncodedScans, Progress
from ldae.tasks.native.spaces import Space
from ldae.tasks.probe.linear import LinearProbe

__all__ = ["FARTHEST", "Counterfactual", "check_target", "find_counterfactuals", "write_counterfactuals"]

Images = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

FARTHEST = 6.0
"""Steps beyond which the search ends."""
BISECTIONS = 6
"""Halvings of the bracket."""


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The smallest edit of a scan that takes a probe to a target.

    Attributes:
        amount: signed, in steps (standard deviations of the training cohort along the direction).
        before: the probe's prediction of the re-encoded reconstruction.
        after: its prediction of the re-encoded edited image.
        image: the edited image, (D, H, W), on the model grid in [0, 1].
        reached: whether the target was reached within the range that was searched.
    """

    amount: float
    before: float
    after: float
    image: Images
    reached: bool


def check_target(probe: LinearProbe, target: float) -> None:
    """Refuse a target that a probe cannot reach.

    Raises:
        TaskError: if the probe is of two classes and the target is no probability.
    """
    if probe.logistic and not 0 < target < 1:
        msg = f"the target of a probe of two classes is a probability between 0 and 1, got {target:g}; give one"
        raise TaskError(msg)


def find_counterfactuals(
    model: LatentDiffusionAutoencoder,
    codes: Sequence[Codes],
    probe: LinearProbe,
    target: float = 0.5,
    *,
    step: Array | None = None,
    batch_size: int = 16,
) -> Iterator[Counterfactual]:
    """The smallest step of each scan at which the probe's value of the re-encoded edited image passes a target.

    In standardised features the probe's gradient is the shortest way to any of its values (Wachter et al. 2018, in the space
    of codes). The step is doubled until the target is passed or `FARTHEST` reached, then bisected: the result lies within the
    last half of the bracket, on the far side.

    Args:
        model: the trained model.
        codes: of the scans, with noise codes.
        probe: whose prediction is to change.
        target: probability, or value of a numeric probe.
        step: change of y that one step makes; the probe's if it is not given.
        batch_size: scans at a time.

    Raises:
        TaskError: if the target is no probability and the probe is logistic, or the probe is of other codes.
    """
    check_target(probe, target)
    step = ready_step(model, codes, probe, step)
    return (
        each
        for start in range(0, len(codes), batch_size)
        for each in _search(model, list(codes[start : start + batch_size]), probe, target, step)
    )


def write_counterfactuals(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    probe: LinearProbe,
    target: float,
    out: Path,
    space: Space,
    *,
    step: npt.NDArray[np.float64] | None = None,
    facts: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Write the image of each scan's :class:`Counterfactual` in a space, and counterfactuals.tsv.

    Arguments as of :func:`find_counterfactuals`; the facts of the direction go into the side-cars of the images.

    Returns:
        The table's rows: `step`, `before`, `after` and `reached` of each scan.
    """
    rows: list[dict[str, Any]] = []
    modality = model.config.preprocessing.modality
    found = find_counterfactuals(model, scans.codes, probe, target, step=step)
    for record, codes, each in zip(scans.records, scans.codes, found, strict=True):
        values = {"step": each.amount, "before": each.before, "after": each.after, "reached": each.reached}
        rows.append({"participant_id": record.participant_id, "session_id": record.session_id, **values})
        path = bids_path(out, record.stem, f"_space-{space.label}_desc-counterfactual_{modality}.nii.gz")
        reference = model.decode_images([codes])[0] if space.needs_reference else each.image
        space.scan(record, codes).edited(each.image, reference).write(path, "counterfactual", **facts, **values)
        progress(len(rows), len(scans))
    write_text(out / "counterfactuals.tsv", pd.DataFrame(rows).to_csv(sep="\t", index=False))
    return rows


def _search(
    model: LatentDiffusionAutoencoder,
    codes: Sequence[Codes],
    probe: LinearProbe,
    target: float,
    step: Array,
) -> list[Counterfactual]:
    """Counterfactuals of one batch."""

    def edit(rows: npt.NDArray[np.intp], amounts: Array) -> tuple[Images, Array]:
        """Edited images of some scans and the probe's predictions from them."""
        moved = [manipulate_codes(codes[row], step, float(each)) for row, each in zip(rows, amounts, strict=True)]
        images = model.decode_images(moved)
        return images, probe.predict(model.semantic(torch.from_numpy(images)[:, None]).double().numpy())

    image, before = edit(np.arange(len(codes)), np.zeros(len(codes)))
    image, after = image.copy(), before.copy()
    near, far = np.zeros(len(codes)), np.zeros(len(codes))
    sign = np.where(before < target, 1.0, -1.0)
    passed, reach = np.zeros(len(codes), dtype=bool), 1.0
    while not passed.all():
        rows = np.flatnonzero(~passed)
        near[rows] = far[rows]
        far[rows] = sign[rows] * min(reach, FARTHEST)
        image[rows], after[rows] = edit(rows, far[rows])
        passed[rows] = sign[rows] * (after[rows] - target) >= 0
        if reach >= FARTHEST:
            break
        reach *= 2
    rows = np.flatnonzero(passed)
    for _ in range(BISECTIONS if len(rows) else 0):
        middle = (near[rows] + far[rows]) / 2
        images, values = edit(rows, middle)
        beyond = sign[rows] * (values - target) >= 0
        inner = rows[beyond]
        far[inner], image[inner], after[inner] = middle[beyond], images[beyond], values[beyond]
        near[rows[~beyond]] = middle[~beyond]
    found = zip(far.tolist(), before.tolist(), after.tolist(), image, passed.tolist(), strict=True)
    return [Counterfactual(*each) for each in found]
