"""Direction of an edit: a probe's change of y, without the part that moves other probes, in codes or in images."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.hardware import trim_heap
from ldae.codes import Codes
from ldae.data.manifest import Record
from ldae.errors import TaskError
from ldae.metrics.statistics import rows_by_subject
from ldae.tasks.encode import encode_scans
from ldae.tasks.encoded_scans import Progress
from ldae.tasks.probe.linear import LinearProbe

__all__ = ["BATCH", "MEASURED", "choose_step", "hold_in_images", "manipulate_codes", "project_out", "spread"]

Array = npt.NDArray[np.float64]

MEASURED = 32
"""Scans whose response is measured: enough for the mean over them."""
BATCH = 16
"""Images that are decoded at a time."""
REACH = 2.0
"""Steps to either side at which it is measured."""


def spread(rows: Sequence[int], count: int) -> list[int]:
    """At most `count` rows, spread evenly."""
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [rows[index] for index in chosen]


def manipulate_codes(codes: Codes, step: npt.NDArray[np.float64], amount: float) -> Codes:
    """Codes moved by so many steps, a change of y, (S,), each; amount 0 returns the very same codes."""
    if amount == 0:
        return codes
    return codes.with_semantic(codes.semantic + amount * torch.from_numpy(step).to(codes.semantic))


def project_out(probe: LinearProbe, nuisances: Sequence[LinearProbe]) -> Array:
    """A probe's step without the part that moves nuisance probes.

    The projection is made in the probe's standardised features, where its gradient is the shortest way to any of its values; so
    the result, (S,), is the shortest that leaves the nuisances' values in codes as they are, and never leads the probe backward.

    Raises:
        TaskError: if nothing is left.
    """
    if not nuisances:
        return probe.step
    gradients = np.stack([each.weights / each.scale * probe.scale for each in nuisances])
    step = probe.step / probe.scale
    left = step - np.linalg.pinv(gradients) @ (gradients @ step)
    if np.linalg.norm(left) < 1e-6 * np.linalg.norm(step):
        msg = "nothing of the direction is left once the nuisance directions are projected out; drop one of them"
        raise TaskError(msg)
    return np.asarray(left * probe.scale)


def choose_step(
    model: LatentDiffusionAutoencoder,
    probe: LinearProbe,
    nuisances: Sequence[LinearProbe],
    training: Sequence[Record] = (),
    *,
    progress: Progress = lambda done, total: None,
) -> Array:
    """The step of an edit that leaves nuisance probes as they are: in edited images, or without scans in codes alone.

    As :func:`hold_in_images`; the response of images is measured on the first of the training scans of at most 32 subjects.

    Raises:
        TaskError: if nothing is left of the direction.
    """
    if not nuisances or not training:
        return project_out(probe, nuisances)
    first = [int(rows[0]) for rows in rows_by_subject([record.participant_id for record in training])]
    measured = encode_scans(model, [training[row] for row in spread(first, MEASURED)]).with_noise(model)
    return hold_in_images(model, measured.codes, probe, nuisances, progress=progress)


def hold_in_images(
    model: LatentDiffusionAutoencoder,
    codes: Sequence[Codes],
    probe: LinearProbe,
    nuisances: Sequence[LinearProbe],
    *,
    progress: Progress = lambda done, total: None,
) -> Array:
    """A step that leaves nuisance probes as they are in edited images, encoded anew.

    A step orthogonal to a nuisance's gradient leaves that probe unchanged in the code. The decoder draws some changes of the
    code more strongly than others, so the image may still move it. Here the response of images is measured by central
    differences: of each nuisance, along the projected step and along the nuisances' own. A combination of the nuisances' steps
    is then subtracted that makes their responses zero to first order.

    Args:
        model: the trained model.
        codes: of scans to measure on, with noise codes; not those that are edited for a result.
        probe: whose direction is followed.
        nuisances: probes whose prediction must not move.
        progress: called with (done, total) scans.

    Returns:
        Change of y, (S,).

    Raises:
        TaskError: if nothing is left of the direction, or there are no scans to measure on.
    """
    if not nuisances:
        return probe.step
    if not codes:
        msg = "holding nuisances in images needs scans to measure their response on; give scans of training subjects"
        raise TaskError(msg)
    steps = [project_out(probe, nuisances), *(each.step for each in nuisances)]
    responses = np.zeros((len(nuisances), len(steps)))
    chunk = max(1, BATCH // (2 * len(steps)))
    for start in range(0, len(codes), chunk):
        scans = codes[start : start + chunk]
        moved = [manipulate_codes(each, step, sign * REACH) for each in scans for step in steps for sign in (1, -1)]
        images = model.decode_images(moved)
        semantic = model.semantic(torch.from_numpy(images)[:, None]).double().numpy()
        for row, nuisance in enumerate(nuisances):
            values = nuisance.value(semantic).reshape(len(scans), len(steps), 2)
            responses[row] += (values[..., 0] - values[..., 1]).sum(axis=0) / (2 * REACH)
        trim_heap()
        progress(min(start + chunk, len(codes)), len(codes))
    responses /= len(codes)
    taken = np.linalg.lstsq(responses[:, 1:], -responses[:, 0], rcond=1e-6)[0]
    return np.asarray(steps[0] + sum(share * step for share, step in zip(taken, steps[1:], strict=True)))
